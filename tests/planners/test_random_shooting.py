import itertools
from dataclasses import replace

import pytest
import torch

from planners import Plan, RandomShooting, RandomShootingConfig, Rollout, score
from planners.protocol import Model

CONFIG = RandomShootingConfig(num_samples=64, horizon=4)


class ToyModel:
    """Keeps what it was asked, and leaves reward and continuation to its subclasses."""

    num_actions = 3

    def __init__(self, roots=(0,)):
        self.roots = torch.tensor(roots)
        self.asked = []

    def snapshot(self):
        """Return a number a root."""
        return self.roots

    def rollout(self, state, actions):
        """Return what `earn` says of these candidates."""
        self.asked.append(actions.clone())
        reward, continuation = self.earn(state[:, None, None], actions)
        return Rollout(reward.float(), continuation.float(), state)


class Bandit(ToyModel):
    """Action a pays its pay at every root, shifted by the root's number; nothing ends."""

    pay = torch.tensor([0.1, 0.9, 0.5])

    def earn(self, root, actions):
        """Return the pay of every action."""
        reward = self.pay[(actions + root) % 3]
        return reward, torch.ones_like(reward)


class Chain(ToyModel):
    """Action 1 steps right, all others left; only standing at `goal` after a step pays 1."""

    goal = 3

    def earn(self, root, actions):
        """Return 1 where the walker stands at the goal."""
        place = root + torch.where(actions == 1, 1, -1).cumsum(-1)
        return (place == self.goal).float(), torch.ones(actions.shape)


class Trap(ToyModel):
    """Action 0 pays 1 and ends the game; the others pay 0.6 and go on."""

    def earn(self, root, actions):
        """Return the pay, and 0 after the trap."""
        is_trap = actions == 0
        return torch.where(is_trap, 1.0, 0.6), (~is_trap).float()


class Broken(Bandit):
    """Candidates that begin with the best action pay NaN, those with action 2 infinity."""

    def earn(self, root, actions):
        """Return pay that is not finite for two of three first actions."""
        reward, continuation = super().earn(root, actions)
        reward[actions[..., 0] == 1] = torch.nan
        reward[actions[..., 0] == 2] = torch.inf
        return reward, continuation


def plan(model, *, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    planner = RandomShooting(replace(CONFIG, **changes), generator=generator)
    return planner.plan(model, num_roots=len(model.roots))


def every_plan(num_actions, horizon):
    return torch.tensor(list(itertools.product(range(num_actions), repeat=horizon)))[None]


def test_the_toy_models_are_models():
    assert isinstance(Bandit(), Model)


def test_the_best_arm_of_a_bandit_is_pulled_all_the_time():
    # 2,000 draws out of 3^4 plans miss one with a chance of (80/81)^2000 < 1e-10.
    found = plan(Bandit(), num_samples=2000, repeat_prob=0.0)
    assert found.actions.tolist() == [[1, 1, 1, 1]]
    assert found.score.item() == pytest.approx(0.9 * (1 + 0.99 + 0.99**2 + 0.99**3))
    assert found.num_rejected.tolist() == [0]


def test_every_root_gets_its_own_best_arm():
    found = plan(Bandit(roots=(0, 1, 2)), num_samples=2000)
    assert found.actions.tolist() == [[1] * 4, [0] * 4, [2] * 4]


def test_a_chain_is_walked_to_its_end():
    found = plan(Chain(), num_samples=2000, horizon=3)
    assert found.actions.tolist() == [[1, 1, 1]]
    assert found.score.item() == pytest.approx(0.99**2)


def test_a_trap_that_pays_at_once_is_left_until_the_last_step():
    found = plan(Trap(), num_samples=2000, discount=1.0)
    first, last = found.actions[0, :-1], found.actions[0, -1]
    assert (first != 0).all() and last == 0
    assert found.score.item() == pytest.approx(3 * 0.6 + 1)


def test_a_trap_is_taken_by_whom_the_future_does_not_count():
    found = plan(Trap(), num_samples=2000, discount=0.1)
    assert found.actions[0, 0] == 0


def test_candidates_whose_score_is_not_finite_lose_and_are_counted():
    model = Broken()
    found = plan(model, num_samples=300)
    [candidates] = model.asked
    assert found.actions[0, 0] == 0 and found.score.isfinite().all()
    assert found.num_rejected.item() == (candidates[0, :, 0] != 0).sum()
    assert 0 < found.num_rejected.item() < 300


def test_a_root_without_any_finite_candidate_says_so():
    class AllBroken(Bandit):
        pay = torch.full((3,), torch.nan)

    found = plan(AllBroken())
    assert found.num_rejected.tolist() == [64]
    assert found.score.tolist() == [-torch.inf]


def test_one_seed_gives_one_plan_and_another_seed_other_candidates():
    first, second, other = Chain(), Chain(), Chain()
    plans = [plan(model, seed=seed) for model, seed in ((first, 1), (second, 1), (other, 2))]
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert torch.equal(first.asked[0], second.asked[0])
    assert not torch.equal(first.asked[0], other.asked[0])


def test_the_plan_is_the_best_of_the_candidates_that_were_drawn():
    for seed in range(5):
        model = Trap(roots=(0, 0))
        found = plan(model, seed=seed, num_samples=7)
        [candidates] = model.asked
        scores = score(model.rollout(model.roots, candidates), CONFIG.discount)
        torch.testing.assert_close(found.score, scores.amax(1))
        for root in range(2):
            assert torch.equal(found.actions[root], candidates[root, scores[root].argmax()])


def test_more_candidates_are_never_worse_when_they_include_the_fewer():
    found, drawn = [], []
    for num_samples in (2, 8, 32, 128, 512):
        model = Bandit()
        # Only without repeats and for one root do small budgets draw the first of the larger.
        found.append(plan(model, num_samples=num_samples, repeat_prob=0.0, horizon=6).score.item())
        drawn.append(model.asked[0][0])
    for fewer, more in itertools.pairwise(drawn):
        assert torch.equal(more[: len(fewer)], fewer)
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_what_stands_at_one_root_does_not_change_the_plan_of_another():
    alone, beside = plan(Bandit(roots=(0, 0))), plan(Bandit(roots=(0, 2)))
    assert torch.equal(alone.actions[0], beside.actions[0])
    assert alone.score[0] == beside.score[0]


def test_planning_leaves_the_roots_alone():
    model = Chain(roots=(0, 1))
    plan(model)
    assert model.roots.tolist() == [0, 1]


def test_candidates_repeat_their_last_action_as_often_as_asked():
    model = Bandit()
    plan(model, num_samples=2000, horizon=11, repeat_prob=0.7)
    repeats = (model.asked[0][..., 1:] == model.asked[0][..., :-1]).float().mean().item()
    # A fresh draw repeats by chance too: 0.7 + 0.3 / 3. Four standard errors of 20,000 draws.
    assert repeats == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 20000) ** 0.5)


def test_first_actions_are_uniform():
    model = Bandit()
    plan(model, num_samples=3000)
    counts = model.asked[0][0, :, 0].bincount(minlength=3)
    # Four standard deviations of a binomial with 3,000 draws.
    assert (counts - 1000).abs().max() < 4 * (3000 * 2 / 9) ** 0.5


def test_the_score_discounts_and_stops_after_the_end():
    reward = torch.tensor([[[1.0, 2.0, 4.0]]])
    continuation = torch.tensor([[[1.0, 0.5, 1.0]]])
    expected = 1 + 0.9 * 2 + 0.81 * 0.5 * 4
    scored = score(Rollout(reward, continuation, None), 0.9)
    torch.testing.assert_close(scored, torch.tensor([[expected]]))


def test_a_chain_has_the_optimum_that_exhaustive_search_finds():
    model = Chain(roots=(1,))
    best = score(model.rollout(model.roots, every_plan(3, 4)), CONFIG.discount).amax()
    assert plan(model, num_samples=2000).score.item() == best.item()


def test_a_plan_has_one_row_a_root():
    found = plan(Bandit(roots=(0, 1)), horizon=9)
    assert isinstance(found, Plan)
    assert found.actions.shape == (2, 9)
    assert found.score.shape == found.num_rejected.shape == (2,)
