"""Runs in the tiny world of the pipeline: three rollouts long, and nothing is learned."""

import pytest

from genie_gym.agents.config import AgentConfig
from genie_gym.agents.run import train_agent
from genie_gym.config import from_dict

OPTIONS = {
    "ppo": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    "a2c": {"n_steps": 8},
    "dqn": {"buffer_size": 64, "learning_starts": 16, "batch_size": 8, "train_freq": 4},
    "recurrent_ppo": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    "dreamer": {"horizon": 8, "num_minibatches": 2},
}


@pytest.fixture(scope="session")
def make_config(pipeline):
    def make(algo="ppo", **changes):
        env = {"game": "Pong", "world": str(pipeline.bundle), "max_episode_steps": 5}
        values = {
            "algo": algo,
            "env": env | {"num_maskgit_steps": 1},
            "steps": 96,
            "min_learning_rate": 1e-4,
            "num_envs": 4,
            "save_every": 32,
            "algo_options": OPTIONS[algo],
            "network": {"num_frames": 2, "channels": [2, 3], "token_dim": 3, "feature_dim": 8},
            "real_check": {"every": 64, "episodes": 0},
        }
        return from_dict(AgentConfig, values | changes)

    return make


@pytest.fixture(scope="session")
def trained(make_config, tmp_path_factory):
    """Train PPO for three rollouts; return the run folder. Not to be changed."""
    out = tmp_path_factory.mktemp("agents") / "ppo"
    train_agent(make_config(), out)
    return out
