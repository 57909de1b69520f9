"""What is CEM's own, and what it shares with MPPI and random shooting for discrete actions."""

import math

import pytest
import torch

from planners import (
    CEM,
    CategoricalConfig,
    CategoricalMPPI,
    CategoricalMPPIConfig,
    CEMConfig,
    PlannerError,
    RandomShooting,
)
from planners.categorical import draw_actions, draw_sticky
from planners.scoring import elite_weights, softmax_weights


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cem(**settings):
    return CEM(CEMConfig(**settings), generator=generator())


def test_plans_repeat_their_last_action_as_often_as_asked():
    plans = draw_sticky(torch.full((1, 11, 3), 1 / 3), 2000, 0.7, generator())
    repeats = (plans[..., 1:] == plans[..., :-1]).float().mean().item()
    # A fresh draw repeats by chance too: 0.7 + 0.3 / 3. Four standard errors of 20,000 draws.
    assert repeats == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 20000) ** 0.5)


def test_first_actions_follow_their_chances():
    probs = torch.tensor([0.2, 0.0, 0.8, 0.0])
    plans = draw_sticky(probs.expand(1, 2, 4), 3000, 0.7, generator())
    counts = plans[0, :, 0].bincount(minlength=4)
    assert counts[1] == counts[3] == 0
    # Four standard deviations of a binomial with 3,000 draws.
    assert abs(counts[0] - 600) < 4 * (3000 * 0.2 * 0.8) ** 0.5


def test_a_number_falls_into_the_share_of_one_action():
    probs = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0])
    draws = torch.tensor([0.0, 0.2, 0.25, 0.9999999])
    assert draw_actions(probs, draws).tolist() == [1, 1, 3, 3]


def test_elites_share_their_weight_with_all_who_tie():
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, -torch.inf], [-torch.inf] * 4])
    third = 1 / 3
    wanted = torch.tensor([[third, 0, third, third], [third, third, third, 0], [0.25] * 4])
    torch.testing.assert_close(elite_weights(scores, 2), wanted)


def test_a_tie_may_be_as_wide_as_the_noise_of_a_model():
    scores = torch.tensor([[1e-4, -2e-4, 0.0, -0.6], [1.0, -1e-4, 3e-4, -torch.inf]])
    assert elite_weights(scores, 1)[0].tolist() == [1, 0, 0, 0]
    third = 1 / 3
    wanted = torch.tensor([[third, third, third, 0], [1, 0, 0, 0]])
    torch.testing.assert_close(elite_weights(scores, 1, tie_width=0.01), wanted)


def test_noise_narrower_than_a_tie_teaches_nothing(toys):
    class Noisy(toys["Bandit"]):
        pay = torch.tensor([0.0, 1e-5, 2e-5])

    settings = {"horizon": 4, "num_samples": 400, "repeat_prob": 0.0, "momentum": 0.0}
    plans = {
        width: cem(**settings, num_kept=0, tie_width=width).plan(Noisy()) for width in (0.0, 0.01)
    }
    assert plans[0.0].proposal.probs[..., 2].min() > 0.9
    # Four iterations of 400 draws, five standard errors each way; the likeliest plan is one more.
    assert (plans[0.01].proposal.probs - 1 / 3).abs().max() < 5 * (4 * 2 / 9 / 400) ** 0.5


def test_softmax_weights_fall_by_e_for_each_temperature():
    scores = torch.tensor([[1.0, 1.5, -torch.inf], [-torch.inf] * 3])
    weights = softmax_weights(scores, 0.5)
    assert weights[0, 1] / weights[0, 0] == pytest.approx(2.718281828)
    assert weights[0, 2] == 0 and weights[0].sum() == pytest.approx(1)
    assert weights[1].tolist() == pytest.approx([1 / 3] * 3)


def test_where_nothing_is_earned_nothing_is_learned(toys):
    class Poor(toys["Bandit"]):
        pay = torch.zeros(3)

    config = CEMConfig(horizon=6, num_samples=4000, num_kept=0, repeat_prob=0.0, momentum=0.0)
    proposal = CEM(config, generator=generator()).plan(Poor()).proposal
    # Five standard errors of 4,000 draws; a CEM without ties would be sure of something by now.
    assert (proposal.probs - 1 / 3).abs().max() < 5 * (2 / 9 / 4000) ** 0.5


def test_no_chance_falls_below_the_floor(toys):
    proposal = cem(horizon=4, num_iterations=10, min_prob=0.05).plan(toys["Bandit"]()).proposal
    assert proposal.probs.min() >= 0.05 - 1e-6
    torch.testing.assert_close(proposal.probs.sum(-1), torch.ones(1, 4))
    assert (proposal.probs.argmax(-1) == 1).all()


def test_momentum_holds_on_to_old_chances(toys):
    settings = {"horizon": 4, "num_iterations": 1, "min_prob": 0.0}
    stuck = cem(**settings, momentum=1.0).plan(toys["Bandit"]()).proposal
    torch.testing.assert_close(stuck.probs, torch.full((1, 4, 3), 1 / 3))
    free = cem(**settings, momentum=0.0).plan(toys["Bandit"]()).proposal
    assert free.probs[..., 1].min() > 0.5


def test_the_best_plans_go_on_into_the_next_iteration(toys):
    model = toys["Code"]()
    cem(horizon=8, num_samples=20, num_kept=3, num_iterations=2).plan(model)
    first, second = model.asked
    reward, _ = model.earn(torch.zeros(1, 1, 1, dtype=torch.int64), first)
    scores = (reward * 0.99 ** torch.arange(8)).sum(-1)
    best = scores.sort(descending=True, stable=True).indices[0, :3]
    assert torch.equal(second[0, :3], first[0, best])


def test_the_likeliest_plan_is_tried(toys):
    model = toys["Bandit"]()
    planner = cem(horizon=3, num_iterations=1)
    proposal = planner.plan(model).proposal
    planner.plan(model, proposal)
    assert torch.equal(model.asked[-1][0, -1], proposal.probs[0].argmax(-1))


def test_a_warm_start_moves_chances_and_plans_by_one_step(toys):
    plan = cem(horizon=5).plan(toys["Code"](roots=(0, 9)))
    before, after = plan.proposal, plan.proposal.advance(torch.tensor([False, True]))
    assert torch.equal(after.probs[0, :-1], before.probs[0, 1:])
    torch.testing.assert_close(after.probs[0, -1], torch.full((3,), 1 / 3))
    assert torch.equal(after.kept[0, :, :-1], before.kept[0, :, 1:])
    assert torch.equal(after.kept[0, :, -1], before.kept[0, :, -1])
    # A game that has just begun has nothing to go on from.
    torch.testing.assert_close(after.probs[1], torch.full((5, 3), 1 / 3))
    assert after.has_kept.tolist() == [True, False]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (CEM, CEMConfig),
        (CategoricalMPPI, CategoricalMPPIConfig),
        (RandomShooting, CategoricalConfig),
    ],
)
def test_a_warm_start_beats_a_cold_one_at_the_same_budget(kind, config, toys):
    earned = {}
    for is_warm in (False, True):
        settings = config(horizon=10, num_samples=16, budget_frames=320)
        planner, proposal, total = kind(settings, generator=generator()), None, 0.0
        for step in range(30):
            model = toys["Code"](roots=(step,))
            plan = planner.plan(model, proposal)
            total += plan.score.item()
            proposal = plan.proposal.advance(torch.tensor([False])) if is_warm else None
        earned[is_warm] = total
    assert earned[True] > earned[False]


def test_without_kept_plans_random_shooting_takes_nothing_over(toys):
    config = CategoricalConfig(horizon=5, num_samples=8, num_kept=0)
    plans = []
    for is_warm in (False, True):
        planner = RandomShooting(config, generator=generator())
        proposal = planner.plan(toys["Code"]()).proposal
        plans.append(planner.plan(toys["Code"](), proposal if is_warm else None))
    assert torch.equal(plans[0].actions, plans[1].actions)


class Advised:
    """A policy that knows the best arm of each bandit, and says so now and then."""

    def __init__(self, sureness=1.0):
        self.sureness = sureness
        self.num_asked = 0

    def __call__(self, state):
        """Return the chances of three arms."""
        self.num_asked += 1
        best = torch.nn.functional.one_hot((1 - state.rows) % 3, 3).float()
        return self.sureness * best + (1 - self.sureness) / 3


def test_the_policy_proposes_candidates_of_the_first_iteration(toys):
    model = toys["Bandit"](roots=(0, 1))
    model.policy = Advised()
    config = {"horizon": 5, "num_samples": 9, "num_policy_samples": 2, "num_iterations": 2}
    plan = cem(**config).plan(model)
    first, second = model.asked[-2:]
    assert plan.actions.tolist() == [[1] * 5, [0] * 5]
    assert first[:, 4:6].tolist() == [[[1] * 5] * 2, [[0] * 5] * 2]
    assert model.policy.num_asked == 5
    assert second.shape == (2, 9, 5)
    # The steps that the policy took are part of the cost; where its last ones lead is not asked.
    assert plan.num_frames == 5 * (9 + 9) + 4 * 2


def test_policy_plans_of_many_roots_are_those_of_each_alone(toys):
    def plan(roots):
        model = toys["Bandit"](roots=roots)
        model.policy = Advised(sureness=0.3)
        cem(horizon=6, num_samples=12, num_policy_samples=5).plan(model)
        return model.asked[0][:, 4:9]

    together = plan((0, 1, 2))
    for root in range(3):
        assert torch.equal(plan((root,))[0], together[root])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"repeat_prob": 1.5}, r"repeat_prob must lie in \[0, 1\], got 1.5"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\], got -0.1"),
        ({"min_prob": -0.1}, r"min_prob must lie in \[0, 1\], got -0.1"),
        ({"min_prob": math.nan}, r"min_prob must lie in \[0, 1\], got nan"),
        ({"num_elites": 0}, r"num_elites must lie in \[1, num_samples=64\], got 0"),
        ({"tie_width": -0.1}, "tie_width must be 0 or more, and finite, got -0.1"),
        ({"tie_width": math.inf}, "tie_width must be 0 or more, and finite, got inf"),
        ({"num_kept": 60, "num_policy_samples": 4}, "num_samples must exceed .* got 64, 60 and 4"),
        ({"num_kept": -1}, "num_kept and num_policy_samples must be at least 0, got -1 and 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, text):
    with pytest.raises(PlannerError, match=text):
        CEMConfig(**changes)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(PlannerError, match=r"temperature must be above 0, got 0.0"):
        CategoricalMPPIConfig(temperature=0.0)


def test_a_floor_that_leaves_no_room_is_refused(toys):
    with pytest.raises(PlannerError, match=r"must be at most 1, got 0.4 times 3"):
        cem(min_prob=0.4).plan(toys["Bandit"]())


def test_policy_plans_without_a_policy_are_refused(toys):
    text = "num_policy_samples is 3, but the model has no policy. Give it one, or set"
    with pytest.raises(PlannerError, match=text):
        cem(num_policy_samples=3).plan(toys["Bandit"]())


def test_a_budget_that_the_policy_eats_up_is_refused(toys):
    model = toys["Bandit"]()
    model.policy = Advised()
    for budget in (40, 20):
        with pytest.raises(
            PlannerError, match=f"33 frames leave nothing of budget_frames={budget}"
        ):
            cem(horizon=12, num_policy_samples=3, budget_frames=budget).plan(model)


def test_golden_plans(toys):
    """One seed, and the plans it gave when this was written: a change of results must be meant."""
    model = toys["Code"](roots=(0, 50))
    found = {
        "cem": cem(horizon=10, num_samples=16).plan(model),
        "mppi": CategoricalMPPI(
            CategoricalMPPIConfig(horizon=10, num_samples=16), generator=generator()
        ).plan(model),
        "random": RandomShooting(
            CategoricalConfig(horizon=10, num_samples=16), generator=generator()
        ).plan(model),
    }
    assert {name: plan.actions.tolist() for name, plan in found.items()} == GOLDEN


GOLDEN = {
    "cem": [[0, 1, 1, 1, 1, 1, 1, 1, 1, 2], [0, 2, 2, 2, 0, 0, 2, 1, 1, 1]],
    "mppi": [[1, 1, 1, 1, 1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]],
    "random": [[0, 2, 2, 2, 2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]],
}
