"""The real game as an oracle."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from genie_gym.envs.planning_real import RealModel
from genie_gym.envs.real import RealEnv
from genie_gym.errors import ConfigError
from planners import CEM, CEMConfig, Model, MPCAgent


def pong(seed, num_steps=0, **settings):
    env = RealEnv("Pong", **settings)
    env.reset(seed=seed)
    for _ in range(num_steps):
        env.step(0)
    return env


def test_the_oracle_says_what_the_games_then_do():
    # Who does nothing loses the first ball 57 to 60 steps after the start.
    envs = [pong(seed, num_steps=40) for seed in (0, 1)]
    model = RealModel(envs)
    assert isinstance(model, Model) and model.num_actions == 6 and model.num_roots == 2
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(6, (2, 1, 60), generator=generator)
    rollout = model.rollout(model.snapshot(), actions)
    assert rollout.continuation.eq(1).all()
    for env, plan, promised in zip(envs, actions, rollout.expected_reward, strict=True):
        earned = [env.step(action)[1] for action in plan[0].tolist()]
        assert earned == promised[0].tolist()
        assert -1 in earned


def test_with_sticky_actions_it_foresees_the_emulators_draws():
    env = pong(3, num_steps=30, sticky=0.25)
    model = RealModel([env])
    plan = torch.tensor([2, 3] * 40)
    promised = model.rollout(model.snapshot(), plan[None, None]).expected_reward[0, 0]
    assert [env.step(action)[1] for action in plan.tolist()] == promised.tolist()


def test_planning_changes_nothing_in_the_live_game():
    lone, watched = pong(5), pong(5)
    model = RealModel([watched])
    for step in range(12):
        model.rollout(model.snapshot(), torch.full((1, 3, 7), step % 6))
        (alone, *rest), (beside, *others) = lone.step(2), watched.step(2)
        assert np.array_equal(alone, beside) and rest == others
    assert np.array_equal(lone.ale.getRAM(), watched.ale.getRAM())


def test_after_the_end_of_a_game_nothing_is_earned():
    env = pong(0, frame_skip=60)
    model = RealModel([env])
    rollout = model.rollout(model.snapshot(), torch.zeros(1, 1, 80, dtype=torch.int64))
    reward, continuation = rollout.expected_reward[0, 0], rollout.continuation[0, 0]
    assert reward.sum() == -21
    last = int(reward.nonzero()[-1])
    assert continuation[:last].eq(1).all() and continuation[last:].eq(0).all()
    # Nor from the end on.
    again = model.rollout(rollout.state, torch.zeros(1, 1, 2, dtype=torch.int64))
    assert again.expected_reward.eq(0).all() and again.continuation.eq(0).all()


def test_a_plan_is_the_sum_of_its_steps():
    model = RealModel([pong(0, num_steps=40)])
    plan = torch.tensor([0, 2, 2, 3] * 8)
    whole = model.rollout(model.snapshot(), plan[None, None])
    state, earned = model.snapshot().expand(2), []
    for action in plan:
        state, reward, continuation = model.step(state, action.repeat(2))
        assert reward[0] == reward[1] and continuation.tolist() == [1, 1]
        earned.append(reward[0].item())
    assert earned == whole.expected_reward[0, 0].tolist()
    assert -1 in earned


def test_an_oracle_returns_the_ball_that_idleness_loses():
    env = pong(0, num_steps=40)
    model = RealModel([env])
    idle = model.rollout(model.snapshot(), torch.zeros(1, 1, 20, dtype=torch.int64))
    assert idle.expected_reward.sum() == -1
    config = CEMConfig(horizon=20, num_samples=16, num_iterations=1, actions=(0, 2, 3))
    agent = MPCAgent(
        CEM(config, generator=torch.Generator().manual_seed(0)),
        lambda *_: model,
        obs_shape=(64, 64, 3),
    )
    obs, memory, total = np.zeros((64, 64, 3), np.uint8), None, 0.0
    for _ in range(19):
        action, memory = agent.predict(obs, memory)
        total += env.step(action)[1]
    assert total == 0


def test_a_game_that_cannot_be_cloned_is_refused_with_the_cure():
    text = "CartPole.* cannot be cloned, .* make it with RealEnv .* or plan in a learned world"
    with pytest.raises(ConfigError, match=text):
        RealModel([gym.make("CartPole-v1")])


def test_games_of_two_kinds_are_refused():
    with pytest.raises(ConfigError, match="game, frame_skip and sticky must agree, got"):
        RealModel([pong(0), pong(0, frame_skip=2)])
