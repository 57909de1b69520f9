"""What holds of every planner of discrete actions."""

import itertools
import time

import pytest
import torch

from planners import (
    CEM,
    CategoricalConfig,
    CategoricalMPPI,
    CategoricalMPPIConfig,
    CEMConfig,
    Exhaustive,
    ExhaustiveConfig,
    GumbelConfig,
    GumbelSearch,
    Model,
    Plan,
    PlannerError,
    RandomShooting,
    Rollout,
    score,
)

# 2,000 draws out of 3^4 plans miss one with a chance of (80/81)^2000 < 1e-10.
PLANNERS = {
    "random": (RandomShooting, CategoricalConfig, {"num_samples": 2000, "repeat_prob": 0.0}),
    "exhaustive": (Exhaustive, ExhaustiveConfig, {"macro_length": 1}),
    "cem": (CEM, CEMConfig, {"num_iterations": 8, "repeat_prob": 0.3}),
    "mppi": (CategoricalMPPI, CategoricalMPPIConfig, {"num_iterations": 8}),
    "gumbel": (GumbelSearch, GumbelConfig, {"num_samples": 500, "repeat_prob": 0.2}),
}


def make(name, *, seed=0, **changes):
    kind, config, defaults = PLANNERS[name]
    settings = {"horizon": 4, **defaults, **changes}
    return kind(config(**settings), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=PLANNERS)
def name(request):
    return request.param


def test_the_toys_are_models(toys):
    for kind in toys.values():
        assert isinstance(kind(), Model)


def test_the_best_arm_of_a_bandit_is_pulled_all_the_time(name, toys):
    plan = make(name).plan(toys["Bandit"]())
    assert plan.actions.tolist() == [[1, 1, 1, 1]]
    assert plan.score.item() == pytest.approx(0.9 * (1 + 0.99 + 0.99**2 + 0.99**3))
    assert plan.num_rejected.tolist() == [0]


def test_every_root_gets_its_own_best_arm(name, toys):
    plan = make(name).plan(toys["Bandit"](roots=(0, 1, 2)))
    assert plan.actions.tolist() == [[1] * 4, [0] * 4, [2] * 4]


def test_a_chain_is_walked_to_its_end(name, toys):
    plan = make(name, horizon=3).plan(toys["Chain"]())
    assert plan.actions.tolist() == [[1, 1, 1]]
    assert plan.score.item() == pytest.approx(0.99**2)


def test_a_trap_that_pays_at_once_is_left_until_the_last_step(name, toys):
    plan = make(name, discount=1.0).plan(toys["Trap"]())
    assert (plan.actions[0, :-1] != 0).all() and plan.actions[0, -1] == 0
    assert plan.score.item() == pytest.approx(3 * 0.6 + 1)


def test_a_trap_is_taken_by_whom_the_future_does_not_count(name, toys):
    assert make(name, discount=0.1).plan(toys["Trap"]()).actions[0, 0] == 0


@pytest.mark.parametrize("toy", ["Bandit", "Chain", "Trap", "Code"])
def test_small_trees_are_solved_as_exhaustive_search_solves_them(name, toy, toys):
    optimum = make("exhaustive", num_samples=81).plan(toys[toy](roots=(0, 1, 2)))
    found = make(name).plan(toys[toy](roots=(0, 1, 2)))
    torch.testing.assert_close(found.score, optimum.score)


def test_candidates_whose_score_is_not_finite_lose_and_are_counted(name, toys):
    model = toys["Broken"]()
    plan = make(name).plan(model)
    asked = torch.cat(model.asked, dim=1)
    assert plan.actions[0, 0] == 0 and plan.score.isfinite().all()
    assert plan.num_rejected.item() == (asked[0, :, 0] != 0).sum() > 0


def test_a_root_without_any_finite_candidate_says_so(name, toys):
    class AllBroken(toys["Bandit"]):
        pay = torch.full((3,), torch.nan)

    plan = make(name).plan(AllBroken(roots=(0, 1)))
    assert plan.score.tolist() == [-torch.inf] * 2
    assert plan.actions.shape == (2, 4)
    assert plan.num_rejected.tolist() == [plan.num_frames // 4] * 2


@pytest.mark.parametrize("toy", ["Bandit", "Code"])
def test_many_roots_are_planned_for_as_each_alone(name, toy, toys):
    roots = (0, 1, 2)
    together = make(name, num_samples=24).plan(toys[toy](roots=roots))
    for row, root in enumerate(roots):
        alone = make(name, num_samples=24).plan(toys[toy](roots=(root,)))
        assert torch.equal(alone.actions[0], together.actions[row])
        assert alone.score[0] == together.score[row]


def test_many_roots_go_on_from_warm_starts_as_each_alone(name, toys):
    def second_plan(roots):
        planner = make(name, num_samples=24)
        first = planner.plan(toys["Code"](roots=roots))
        is_first = torch.tensor([root == 1 for root in roots])
        later = tuple(root + 1 for root in roots)
        return planner.plan(toys["Code"](roots=later), first.proposal.advance(is_first))

    together = second_plan((0, 1, 2))
    for row in range(3):
        alone = second_plan((row,))
        assert torch.equal(alone.actions[0], together.actions[row])


def test_one_seed_gives_one_plan_and_another_seed_other_candidates(name, toys):
    models = [toys["Chain"]() for _ in range(3)]
    plans = [
        make(name, seed=seed, num_samples=20).plan(model)
        for model, seed in zip(models, (1, 1, 2), strict=True)
    ]
    assert torch.equal(plans[0].actions, plans[1].actions)
    first, second, other = (torch.cat(model.asked, dim=1) for model in models)
    assert torch.equal(first, second)
    if name != "exhaustive":
        assert not torch.equal(first, other)


def test_the_executed_plan_is_the_best_that_was_ever_seen(name, toys):
    for seed in range(5):
        model = toys["Code"](roots=(0, 5))
        found = make(name, seed=seed, num_samples=12, horizon=5).plan(model)
        asked = torch.cat(model.asked, dim=1)
        best = score(model.rollout(model.snapshot(), asked), 0.99).amax(1)
        if name != "gumbel":  # Gumbel search may choose another first action
            torch.testing.assert_close(found.score, best)
        is_asked = (asked == found.actions[:, None]).all(-1)
        assert is_asked.any(1).all()


def test_more_budget_is_never_worse(name, toys):
    found = [
        make(name, num_samples=12, horizon=6, budget_frames=frames).plan(toys["Code"]())
        for frames in (6, 30, 100, 400, 1500)
    ]
    scores = [plan.score.item() for plan in found]
    if name != "gumbel":  # Gumbel search may choose another first action
        assert scores == sorted(scores)
    assert scores[-1] > scores[0]


def test_a_budget_in_frames_is_used_up_and_kept(name, toys):
    model = toys["Chain"](roots=(0, 1))
    plan = make(name, num_samples=12, horizon=5, budget_frames=104).plan(model)
    assert plan.num_frames == 100
    assert sum(asked.shape[1] for asked in model.asked) == 20


def test_a_budget_in_milliseconds_stops_between_iterations(name, toys):
    class Slow(toys["Bandit"]):
        def earn(self, root, actions):
            time.sleep(0.005)
            return super().earn(root, actions)

    model = Slow()
    plan = make(name, num_samples=12, budget_ms=1.0).plan(model)
    assert len(model.asked) == plan.num_iterations == 1
    assert plan.score.isfinite().all() and plan.milliseconds >= 5


def test_planning_leaves_the_roots_alone(name, toys):
    model = toys["Chain"](roots=(0, 1))
    make(name).plan(model)
    assert model.roots.tolist() == [0, 1]


def test_only_the_named_actions_are_used(name, toys):
    model = toys["Bandit"]()
    plan = make(name, actions=(0, 2)).plan(model)
    assert plan.actions.tolist() == [[2, 2, 2, 2]]
    assert set(torch.cat(model.asked, dim=1).unique().tolist()) == {0, 2}


def test_a_plan_has_one_row_a_root(name, toys):
    plan = make(name, horizon=5).plan(toys["Bandit"](roots=(0, 1)))
    assert isinstance(plan, Plan)
    assert plan.actions.shape == (2, 5)
    assert plan.score.shape == plan.num_rejected.shape == (2,)


def test_the_value_of_where_a_plan_ends_is_added(name, toys):
    class Valued(toys["Trap"]):
        def value(self, state):
            return state.rows + 10.0

    # Whoever falls into the trap gets no value.
    plan = make(name, discount=0.5).plan(Valued(roots=(0, 4)))
    earned = 0.6 * (1 + 0.5 + 0.25 + 0.125)
    assert plan.score.tolist() == pytest.approx([earned + 10 / 16, earned + 14 / 16])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"budget_frames": 0}, r"at least one plan of horizon=4 steps, got 0. Raise it to 4"),
        ({"budget_ms": 0.0}, "budget_ms must be a finite number above 0, got 0.0. For no limit"),
        ({"discount": 0.0}, r"discount must lie in \(0, 1\], got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(name, changes, text):
    with pytest.raises(PlannerError, match=text):
        make(name, **changes)


@pytest.mark.parametrize("actions", [(), (3,), (0, -1)])
def test_actions_that_the_model_lacks_are_refused(name, actions, toys):
    with pytest.raises(PlannerError, match=r"some of the model's 3, in \[0, 3\), got \["):
        make(name, actions=actions).plan(toys["Bandit"]())


def test_vectors_are_refused_with_the_planners_that_take_them(name, toys):
    with pytest.raises(PlannerError, match=r"plans discrete actions.* Plan with ICEM or MPPI"):
        make(name).plan(toys["Point"]())


def test_the_score_discounts_and_stops_after_the_end():
    reward = torch.tensor([[[1.0, 2.0, 4.0]]])
    continuation = torch.tensor([[[1.0, 0.5, 1.0]]])
    expected = 1 + 0.9 * 2 + 0.81 * 0.5 * 4
    scored = score(Rollout(reward, continuation, None), 0.9)
    torch.testing.assert_close(scored, torch.tensor([[expected]]))


def test_what_a_model_says_after_a_certain_end_is_not_looked_at():
    reward = torch.tensor([[[1.0, torch.nan, torch.inf]]])
    rollout = Rollout(reward, torch.tensor([[[0.0, 1.0, 1.0]]]), None)
    assert score(rollout, 0.9, lambda state: torch.tensor([torch.nan])).tolist() == [[1.0]]


def test_macro_actions_are_held_and_the_last_is_cut_short(toys):
    model = toys["Bandit"]()
    plan = make("exhaustive", macro_length=3, horizon=7, num_samples=10).plan(model)
    asked = torch.cat(model.asked, dim=1)[0]
    wanted = [[a] * 3 + [b] * 3 + [c] for a, b, c in itertools.product(range(3), repeat=3)]
    assert asked.tolist() == wanted
    assert plan.num_iterations == 3 and plan.num_frames == 27 * 7


def test_a_tree_that_is_too_large_is_refused_with_the_cure(toys):
    text = r"would try 3\^20 plans, more than 1,000,000: lower horizon, .* or take CEM"
    with pytest.raises(PlannerError, match=text):
        make("exhaustive", horizon=20).plan(toys["Bandit"]())
