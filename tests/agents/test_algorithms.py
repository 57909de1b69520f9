from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from genie_gym.agents.algorithms import check_options, make_model
from genie_gym.agents.config import AgentConfig, NetworkConfig
from genie_gym.agents.observations import GreyFrameStack
from genie_gym.agents.rollout_buffer import DeviceRolloutBuffer
from genie_gym.config import from_dict, load_yaml
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError


class Corner(gym.Env):
    """A white square stands left or right; the action that names its side earns 1."""

    observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        """Begin a game of eight steps."""
        super().reset(seed=seed)
        self.num_steps = 0
        return self._look(), {}

    def step(self, action):
        """Earn 1 or nothing."""
        reward = float(action == self.side)
        self.num_steps += 1
        return self._look(), reward, False, self.num_steps == 8, {}

    def _look(self):
        self.side = self.np_random.integers(2)
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[16:32, 32 * self.side + 8 : 32 * self.side + 24] = 255
        return frame


OPTIONS = {
    "ppo": {"n_steps": 16, "batch_size": 64, "n_epochs": 8},
    "a2c": {"n_steps": 4, "gamma": 0.0},
    "dqn": {"learning_starts": 64, "batch_size": 32, "gradient_steps": 1, "gamma": 0.0},
}


def learn_sides(algo, num_steps, **options):
    envs = GreyFrameStack(DummyVecEnv([Corner] * 8), 2)
    envs.seed(0)
    network = NetworkConfig(num_frames=2, channels=(4, 8), feature_dim=16)
    config = AgentConfig(
        env=WorldEnvConfig(game="Pong"),
        algo=algo,
        learning_rate=5e-3,
        algo_options=OPTIONS[algo] | options,
        network=network,
    )
    frames = np.stack([Corner().reset(seed=seed)[0] for seed in range(16)])
    model = make_model(config, envs, frames)
    return model.learn(num_steps), envs


@pytest.mark.parametrize("algo", OPTIONS)
def test_every_algorithm_learns_to_name_the_side(algo):
    model, envs = learn_sides(algo, 1024)
    obs = envs.reset()
    earned = []
    for _ in range(8):
        obs, rewards, _, _ = envs.step(model.predict(obs, deterministic=True)[0])
        earned.append(rewards)
    assert np.mean(earned) > 0.9


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_rollouts_on_the_device_teach_what_those_of_sb3_teach(algo):
    ours, _ = learn_sides(algo, 384)
    stock, _ = learn_sides(algo, 384, rollout_buffer_class=RolloutBuffer)
    assert isinstance(ours.rollout_buffer, DeviceRolloutBuffer)
    torch.testing.assert_close(ours.get_parameters(), stock.get_parameters(), rtol=0, atol=0)


class SmallCorner(Corner):
    """Shows every fourth pixel."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)

    def _look(self):
        return super()._look()[::4, ::4]


def test_a_world_of_small_frames_is_refused():
    envs = GreyFrameStack(DummyVecEnv([SmallCorner]), 2)
    config = AgentConfig(env=WorldEnvConfig(game="Pong"))
    with pytest.raises(ConfigError, match=r"^an agent's frames must be .*, got 16 x 16\."):
        make_model(config, envs, np.zeros((1, 16, 16, 3), np.uint8))


def test_the_preset_for_pong_is_one_that_ppo_takes():
    path = Path(__file__).parents[2] / "configs" / "ppo-pong.yaml"
    config = from_dict(AgentConfig, load_yaml(path), str(path))
    check_options(config)
    assert (config.algo, config.env.world, config.env.temperature) == ("ppo", "pong", 1.0)
