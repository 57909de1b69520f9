"""What is Gumbel root search's own."""

import math

import pytest
import torch

from planners import GumbelConfig, GumbelSearch, PlannerError


def search(*, seed=0, **settings):
    return GumbelSearch(GumbelConfig(**settings), generator=torch.Generator().manual_seed(seed))


def six_arms(toys):
    class SixArms(toys["Bandit"]):
        num_actions = 6
        pay = torch.tensor([0.1, 0.3, 0.2, 0.9, 0.5, 0.4])

        def earn(self, root, actions):
            reward = self.pay[actions] * (torch.arange(actions.shape[-1]) == 0)
            return reward, torch.ones_like(reward)

    return SixArms()


def test_half_of_the_first_actions_are_dropped_after_each_phase(toys):
    model = six_arms(toys)
    plan = search(horizon=3, num_samples=12).plan(model)
    counts = [asked[0, :, 0].bincount(minlength=6).tolist() for asked in model.asked]
    # Danihelka et al. 2022, figure 1: all arms alike often, then the better half, then two.
    assert counts[0] == [2] * 6
    assert sorted(counts[1]) == [0, 0, 0, 4, 4, 4]
    assert sorted(counts[2]) == [0, 0, 0, 0, 6, 6]
    assert plan.actions[0, 0] == 3


def test_the_noise_decides_between_equals_by_the_policys_chances(toys):
    class Poor(toys["Bandit"]):
        pay = torch.zeros(3)

    model = Poor()
    model.policy = lambda state: torch.tensor([[0.7, 0.3, 0.0]]).expand(len(state.rows), -1)
    first = [
        search(seed=seed, horizon=1, num_samples=4).plan(model).actions.item() for seed in range(60)
    ]
    # Gumbel noise makes the choice a draw from the policy. Four standard deviations of 60 draws.
    assert abs(first.count(0) - 42) < 4 * (60 * 0.7 * 0.3) ** 0.5
    assert first.count(2) == 0


def test_values_outweigh_the_policys_chances(toys):
    model = toys["Bandit"]()
    model.policy = lambda state: torch.tensor([[0.9, 0.05, 0.05]]).expand(len(state.rows), -1)
    found = [search(seed=seed, horizon=3).plan(model).actions[0, 0].item() for seed in range(20)]
    # Noise alone would choose the best arm once in 20 times.
    assert found.count(1) >= 15


def test_only_so_many_first_actions_are_considered(toys):
    model = six_arms(toys)
    search(horizon=2, num_samples=12, num_considered=3).plan(model)
    assert (model.asked[0][0, :, 0].bincount(minlength=6) > 0).sum() == 3


def test_the_rest_of_the_last_plan_is_tried_first(toys):
    # The plan of the winner, which in some of these searches is not the best of all.
    is_best = []
    for seed in range(20):
        planner = search(seed=seed, horizon=6, num_samples=12)
        plan = planner.plan(toys["Code"]())
        is_best.append(plan.score[0] == plan.proposal.value.max())
        later = toys["Code"](roots=(1,))
        planner.plan(later, plan.proposal.advance(torch.tensor([False])))
        wanted = [*plan.actions[0, 1:].tolist(), plan.actions[0, -1].item()]
        assert wanted in later.asked[0][0, :3].tolist()
    assert not all(is_best)


def test_the_policy_opens_each_action(toys):
    model = toys["Bandit"]()
    model.policy = lambda state: torch.tensor([[0.0, 1.0, 0.0]]).expand(len(state.rows), -1)
    plan = search(horizon=4, num_samples=3, num_iterations=1).plan(model)
    # Three openings, whose last steps are not looked at, and three simulations.
    assert plan.num_frames == 3 * 3 + 3 * 4
    assert plan.actions.tolist() == [[1, 1, 1, 1]]


def test_a_budget_that_the_policy_eats_up_is_refused(toys):
    model = toys["Bandit"]()
    model.policy = lambda state: torch.ones(len(state.rows), 3)
    # Less than what is left over for one plan, and less than the openings themselves.
    for budget in (40, 24):
        text = f"the policy's 33 frames leave nothing of budget_frames={budget}"
        with pytest.raises(PlannerError, match=text):
            search(horizon=12, budget_frames=budget).plan(model)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_considered": 0}, "num_considered must be at least 1, got 0"),
        ({"repeat_prob": -1.0}, r"repeat_prob must lie in \[0, 1\], got -1.0"),
        ({"value_scale": -1.0}, "finite numbers of at least 0, got 50.0 and -1.0"),
        ({"visit_offset": math.nan}, "finite numbers of at least 0, got nan and 0.1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, text):
    with pytest.raises(PlannerError, match=text):
        GumbelConfig(**changes)


def test_golden_plan(toys):
    """One seed, and the plan it gave when this was written: a change of results must be meant."""
    plan = search(horizon=10, num_samples=16).plan(toys["Code"](roots=(0, 50)))
    assert plan.actions.tolist() == GOLDEN


GOLDEN = [[1, 1, 1, 1, 1, 0, 2, 2, 2, 2], [0, 2, 2, 2, 2, 0, 0, 1, 1, 1]]
