import pytest
import torch

from genie_gym.envs.planning import WorldModel
from genie_gym.errors import WorldError
from genie_gym.models.world import World
from planners import RandomShooting, RandomShootingConfig
from planners.protocol import Model

NUM_ROOTS, NUM_PLANS, HORIZON = 2, 3, 4


class BlindWorld(World):
    """A world that refuses to show pixels."""

    def decode(self, state):
        """Refuse."""
        raise AssertionError("a planner asked for pixels")


@pytest.fixture(scope="module")
def blind_world(world):
    return BlindWorld(world.stack, world.starts, parts=world.parts, card=world.card)


@pytest.fixture
def state(blind_world):
    return blind_world.start(torch.arange(NUM_ROOTS))


@pytest.fixture(scope="module")
def actions(world):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(world.num_actions, (NUM_ROOTS, NUM_PLANS, HORIZON), generator=generator)


def tensors(state):
    kept = [state.tokens]
    for cache in (state.dynamics, state.reward, state.decoder):
        kept += [*cache.keys, *cache.values, cache.num_frames]
    return kept


def test_the_world_is_a_model_that_planners_can_roll_out(blind_world, state, actions):
    model = WorldModel(blind_world, state)
    assert isinstance(model, Model) and model.num_actions == 6
    rollout = model.rollout(model.snapshot(), actions)
    assert rollout.expected_reward.shape == rollout.continuation.shape == actions.shape
    assert rollout.state.tokens.shape == (NUM_ROOTS * NUM_PLANS, 16)
    assert (rollout.expected_reward.abs() <= 1).all()
    assert ((rollout.continuation >= 0) & (rollout.continuation <= 1)).all()


def test_a_rollout_is_what_the_world_says_step_by_step(blind_world, state, actions):
    rollout = WorldModel(blind_world, state).rollout(state, actions)
    for root in range(NUM_ROOTS):
        for candidate in range(NUM_PLANS):
            one = state.gather(torch.tensor([root]))
            for step, action in enumerate(actions[root, candidate]):
                one, reward, ended = blind_world.step(one, action[None])
                place = (root, candidate, step)
                assert rollout.expected_reward[place] == pytest.approx(reward.item(), abs=1e-4)
                assert rollout.continuation[place] == pytest.approx(1 - ended.item(), abs=1e-4)
            row = root * NUM_PLANS + candidate
            assert torch.equal(rollout.state.tokens[row], one.tokens[0])


def test_planning_does_not_change_the_states_it_starts_from(blind_world, state):
    before = [x.clone() for x in tensors(state)]
    model = WorldModel(blind_world, state, num_maskgit_steps=1)
    config = RandomShootingConfig(num_samples=8, horizon=3)
    plan = RandomShooting(config, generator=torch.Generator().manual_seed(0)).plan(model, NUM_ROOTS)
    assert plan.actions.shape == (NUM_ROOTS, 3)
    assert plan.score.isfinite().all() and plan.num_rejected.tolist() == [0, 0]
    for x, old in zip(tensors(state), before, strict=True):
        assert torch.equal(x, old)


def test_one_seed_gives_one_plan_and_one_rollout(blind_world, state):
    plans = []
    for _ in range(2):
        model = WorldModel(
            blind_world, state, generator=torch.Generator().manual_seed(1), num_maskgit_steps=1
        )
        config = RandomShootingConfig(num_samples=8, horizon=3)
        planner = RandomShooting(config, generator=torch.Generator().manual_seed(2))
        plans.append(planner.plan(model, NUM_ROOTS))
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert torch.equal(plans[0].score, plans[1].score)


def test_a_world_without_a_reward_part_cannot_be_planned_in(world, actions):
    parts = world.parts - {"reward"}
    poor = World(world.stack, world.starts, parts=parts, card=world.card)
    model = WorldModel(poor, poor.start(torch.arange(NUM_ROOTS)))
    with pytest.raises(WorldError, match="has no trained 'reward' part, which step needs"):
        model.rollout(model.snapshot(), actions)
