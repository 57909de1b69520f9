import numpy as np
import pytest
import torch

from genie_gym.envs.planning import WorldFollower, WorldModel
from genie_gym.envs.real import RealEnv
from genie_gym.errors import WorldError
from genie_gym.models.world import World
from planners import CategoricalConfig, Model, MPCAgent, RandomShooting

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
    for cache in (state.dynamics, state.reward, state.decoder, *state.encoder):
        kept += [*cache.keys, *cache.values, cache.num_frames]
    return kept


def planner(**changes):
    config = CategoricalConfig(**{"num_samples": 8, "horizon": 3, **changes})
    return RandomShooting(config, generator=torch.Generator().manual_seed(2))


def plan(model, **changes):
    return planner(**changes).plan(model)


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


def test_plans_that_begin_alike_are_imagined_once(blind_world, state, actions):
    class CountingWorld(BlindWorld):
        rows = ()

        def step(self, state, actions, *more, **options):
            self.rows = (*self.rows, len(actions))
            return super().step(state, actions, *more, **options)

    parts = (blind_world.stack, blind_world.starts)
    world = CountingWorld(*parts, parts=blind_world.parts, card=blind_world.card)
    plans = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]]).expand(NUM_ROOTS, -1, -1)
    rollout = WorldModel(world, state).rollout(state, plans)
    assert world.rows == (1 * NUM_ROOTS, 2 * NUM_ROOTS, 3 * NUM_ROOTS)
    assert torch.equal(rollout.expected_reward[:, 0], rollout.expected_reward[:, 3])
    assert rollout.state.tokens.shape == (4 * NUM_ROOTS, 16)


def test_a_step_is_a_plan_of_one_action(blind_world, state, actions):
    model = WorldModel(blind_world, state)
    rollout = model.rollout(state, actions[:, :1, :1])
    after, reward, continuation = model.step(state, actions[:, 0, 0])
    torch.testing.assert_close(reward, rollout.expected_reward[:, 0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(continuation, rollout.continuation[:, 0, 0], atol=1e-5, rtol=0)
    assert torch.equal(after.tokens, rollout.state.tokens)


def test_planning_does_not_change_the_states_it_starts_from(blind_world, state):
    before = [x.clone() for x in tensors(state)]
    found = plan(WorldModel(blind_world, state, num_maskgit_steps=1))
    assert found.actions.shape == (NUM_ROOTS, 3)
    assert found.score.isfinite().all() and found.num_rejected.tolist() == [0, 0]
    for x, old in zip(tensors(state), before, strict=True):
        assert torch.equal(x, old)


def test_many_games_are_planned_for_as_each_alone(blind_world, state):
    together = plan(WorldModel(blind_world, state))
    for row in range(NUM_ROOTS):
        alone = plan(WorldModel(blind_world, state.gather(torch.tensor([row]))))
        assert torch.equal(alone.actions[0], together.actions[row])
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-4, rtol=0)


def test_a_policy_and_a_value_of_its_states_take_part(blind_world, state):
    def policy(states):
        return torch.nn.functional.one_hot(states.tokens[:, 0] % 6, 6).float()

    def value(states):
        return torch.full((len(states.tokens),), 5.0)

    model = WorldModel(blind_world, state, policy=policy, value=value)
    found = plan(model, num_policy_samples=2, discount=1.0)
    # Three steps earn at most 3, and the ends are worth 5 unless the game is over.
    assert (found.score > 3).all()
    # Of the policy's two plans the last steps are not imagined.
    assert found.num_frames == 3 * 8 + 2 * 2


def test_the_world_follows_a_game_that_is_played_elsewhere(blind_world):
    follow = WorldFollower(blind_world)
    window = blind_world.config.dynamics.transformer.temporal_window
    frames, actions, is_first = [], [], np.ones(2, np.bool_)
    rng = np.random.default_rng(0)
    for step in range(window + 3):
        frames.append(rng.integers(256, size=(2, 64, 64, 3), dtype=np.uint8))
        model = follow(frames[-1], actions[-1] if actions else None, is_first)
        actions.append(rng.integers(6, size=2))
        is_first = np.array([False, step == window])
        # The second game begins anew in the last step but one.
        for row, age in enumerate((step + 1, step + 1 if step <= window else step - window)):
            seen = torch.from_numpy(np.stack(frames[-age:])[:, row])[None]
            between = torch.from_numpy(np.stack(actions)[-age:-1, row])[None]
            wanted = blind_world.encode(seen, between)
            found = model.snapshot().gather(torch.tensor([row]))
            for mine, theirs in zip(tensors(found), tensors(wanted), strict=True):
                torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_an_agent_plays_the_real_game_with_the_world_in_its_head(blind_world):
    env = RealEnv("Pong")
    agent = MPCAgent(planner(), WorldFollower(blind_world), obs_shape=(64, 64, 3))
    obs, _ = env.reset(seed=0)
    memory, taken = None, []
    for _ in range(3):
        action, memory = agent.predict(obs, memory)
        obs, *_ = env.step(action)
        taken.append(int(action))
    assert set(taken) <= set(range(6)) and memory.plan.score.isfinite().all()


def test_a_world_without_a_reward_part_cannot_be_planned_in(world, actions):
    parts = world.parts - {"reward"}
    poor = World(world.stack, world.starts, parts=parts, card=world.card)
    model = WorldModel(poor, poor.start(torch.arange(NUM_ROOTS)))
    with pytest.raises(WorldError, match="has no trained 'reward' part, which step needs"):
        model.rollout(model.snapshot(), actions)
