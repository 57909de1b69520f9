import numpy as np
import pytest
from gymnasium import Env
from gymnasium.spaces import Box, Discrete
from stable_baselines3 import DQN, PPO

from collectors.policies import make_policy
from genie_gym.errors import ConfigError


class Blank(Env):
    """Black frames of any shape, to save untrained models for."""

    action_space = Discrete(3)

    def __init__(self, shape):
        self.observation_space = Box(0, 255, shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        """Return a black observation."""
        return np.zeros(self.observation_space.shape, np.uint8), {}


def save(folder, shape, algorithm=PPO, **options):
    if algorithm is PPO:
        options = {"n_steps": 2, "batch_size": 2}
    # A linear policy is enough, and built in no time.
    model = algorithm("MlpPolicy", Blank(shape), policy_kwargs={"net_arch": []}, seed=0, **options)
    model.save(folder / "model.zip")
    return f"sb3:{folder / 'model.zip'}"


def actions_of(policy, seed):
    policy.reset(np.random.default_rng(seed))
    frames = np.random.default_rng(9).integers(0, 256, (30, 64, 64, 3), np.uint8)
    return [policy.act(frame) for frame in frames]


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 64, 12), (6, 64, 64)])
def test_a_model_plays_the_same_again_from_the_same_seed(tmp_path, shape):
    policy = make_policy(save(tmp_path, shape), "Freeway", 3)
    first = actions_of(policy, 0)
    assert first == actions_of(policy, 0) != actions_of(policy, 1)
    assert set(first) <= {0, 1, 2} and all(type(action) is int for action in first)
    assert policy.description.startswith("sb3:model.zip(")


def test_frames_are_stacked_oldest_first_on_black(tmp_path):
    policy = make_policy(save(tmp_path, (6, 64, 64)), "Freeway", 3)
    seen = []
    policy._model.predict = lambda obs, deterministic: (seen.append(obs), None) and (np.array(0), 0)
    policy.reset(np.random.default_rng(0))
    for shade in (10, 20):
        policy.act(np.full((64, 64, 3), shade, np.uint8))
    assert [obs[:, 5, 5].tolist() for obs in seen] == [[0] * 3 + [10] * 3, [10] * 3 + [20] * 3]


def test_a_dqn_plays_and_takes_its_part_in_a_mixture(tmp_path):
    name = save(tmp_path, (64, 64, 3), DQN, buffer_size=10)
    policy = make_policy(f"mixed:{name}=1,random=1", "Freeway", 3)
    assert set(actions_of(policy, 0)) <= {0, 1, 2}


@pytest.mark.parametrize("shape", [(84, 84, 4), (64, 64, 4), (4, 64, 64), (84, 84, 3)])
def test_a_model_of_other_frames_is_refused(tmp_path, shape):
    name = save(tmp_path, shape)
    text = r"observes Box.*, but the recorder shows uint8 RGB frames of \(64, 64, 3\).*grey frames"
    with pytest.raises(ConfigError, match=text):
        make_policy(name, "Freeway", 3)


def test_a_model_of_another_game_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"acts in Discrete\(3\), but the game in Discrete\(6\)"):
        make_policy(save(tmp_path, (64, 64, 3)), "Pong", 6)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.zip").write_text("no zip")
    with pytest.raises(ConfigError, match=r"this is no model of \['A2C', 'DQN', 'PPO'\]"):
        make_policy(f"sb3:{tmp_path / 'model.zip'}", "Pong", 6)
    with pytest.raises(ConfigError, match=r"there is no such file. Name the zip"):
        make_policy(f"sb3:{tmp_path / 'absent.zip'}", "Pong", 6)
