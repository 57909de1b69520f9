import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics, RecordVideo
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
    VecVideoRecorder,
)

import genie_gym  # noqa: F401  (registers the ids)
from genie_gym.envs.sb3_vec_env import GenieWorldSB3VecEnv
from genie_gym.envs.world_vector_env import GenieWorldVectorEnv
from genie_gym.errors import ConfigError, InvalidActionError, WorldError

ID = "GenieWorld-Pong-v0"


def make(world, num_envs=4, **options):
    return GenieWorldSB3VecEnv(num_envs, world=str(world), **options)


def random_actions(num_steps, num_envs=4):
    return np.random.default_rng(0).integers(6, size=(num_steps, num_envs))


def test_it_plays_what_the_vector_environment_plays(tiny_bundle):
    options = {"world": str(tiny_bundle), "max_episode_steps": 9}
    envs = GenieWorldSB3VecEnv(4, **options)
    other = GenieWorldVectorEnv(4, autoreset_mode="SameStep", **options)
    assert envs.seed(3) == [3, 4, 5, 6]
    first, infos = other.reset(seed=3)
    np.testing.assert_array_equal(envs.reset(), first)
    assert envs.reset_infos == [{"start": start} for start in infos["start"]]
    num_truncated = num_terminated = 0
    for actions in random_actions(30):
        obs, rewards, dones, slot_infos = envs.step(actions)
        frames, other_rewards, terminated, truncated, infos = other.step(actions)
        np.testing.assert_array_equal(obs, frames)
        np.testing.assert_array_equal(rewards, other_rewards.astype(np.float32))
        np.testing.assert_array_equal(dones, terminated | truncated)
        assert (obs.dtype, rewards.dtype, dones.dtype) == (np.uint8, np.float32, bool)
        for row, slot_info in enumerate(slot_infos):
            if not dones[row]:
                assert slot_info == {}
                continue
            np.testing.assert_array_equal(
                slot_info["terminal_observation"], infos["final_obs"][row]
            )
            assert slot_info["TimeLimit.truncated"] is not terminated[row].item()
            assert envs.reset_infos[row] == {"start": infos["start"][row]}
        num_terminated += terminated.sum()
        num_truncated += (truncated & ~terminated).sum()
    assert num_terminated > 0 and num_truncated > 0


def test_seeds_and_options_hold_for_one_reset(endless_bundle):
    envs = make(endless_bundle)
    envs.seed(0)
    first = envs.reset()
    assert (envs.reset() != first).any()
    envs.seed(0)
    np.testing.assert_array_equal(envs.reset(), first)
    envs.set_options({"start": 2})
    envs.reset()
    assert envs.reset_infos == [{"start": 2}] * 4
    envs.set_options([{"start": start} for start in (0, 1, 2, 3)])
    envs.reset()
    assert envs.reset_infos == [{"start": start} for start in (0, 1, 2, 3)]


def test_attributes_and_methods_are_those_of_all_slots(endless_bundle):
    envs = make(endless_bundle, render_mode="rgb_array")
    assert envs.get_attr("render_mode") == ["rgb_array"] * 4
    assert envs.get_attr("action_space", [1, 2]) == [envs.action_space] * 2
    assert not envs.has_attr("lives")
    envs.set_attr("note", 7)
    assert envs.get_attr("note", 3) == [7]
    frames = envs.reset()
    np.testing.assert_array_equal(envs.env_method("render"), frames)
    assert len(envs.env_method("get_state")) == 4
    assert envs.env_is_wrapped(gym.Wrapper) == [False] * 4
    assert envs.render().shape == (128, 128, 3)
    with pytest.raises(ConfigError, match=r"attribute 'note' belongs to all 4 .* got indices=\[0"):
        envs.set_attr("note", 1, [0])
    with pytest.raises(ConfigError, match="method 'reset' belongs to all 4 slots"):
        envs.env_method("reset", indices=0)
    envs.close()


def test_what_is_wrong_is_refused(endless_bundle):
    envs = make(endless_bundle)
    with pytest.raises(ConfigError, match="num_envs must be at least 1, got 0"):
        make(endless_bundle, num_envs=0)
    with pytest.raises(WorldError, match="no world 'nowhere'"):
        make("nowhere")
    envs.set_options([{"start": 1}, {}, {}, {}])
    with pytest.raises(ConfigError, match="'start' must be set for every slot or for none"):
        envs.reset()
    envs.set_options({"begin": 1})
    with pytest.raises(ConfigError, match=re.escape("unknown key 'begin'.")):
        envs.reset()
    envs.set_options()
    envs.reset()
    with pytest.raises(InvalidActionError, match=r"int in 0\.\.5 for Pong, got 6"):
        envs.step(np.array([0, 6, 0, 0]))


def test_stock_wrappers_and_ppo_work_unchanged(tiny_bundle, tmp_path):
    inner = make(tiny_bundle, max_episode_steps=9, render_mode="rgb_array")
    stacked = VecFrameStack(VecMonitor(inner), 4)
    trigger = lambda step: step == 0  # noqa: E731
    envs = VecVideoRecorder(stacked, str(tmp_path), trigger, video_length=12)
    model = PPO("CnnPolicy", envs, n_steps=16, batch_size=32, n_epochs=1, seed=0)
    model.learn(64)
    assert isinstance(model.env, VecTransposeImage)
    assert len(model.ep_info_buffer) > 0 and model.ep_info_buffer[0]["l"] <= 9
    assert list(tmp_path.glob("*.mp4"))

    returns, lengths = evaluate_policy(model, envs, 8, return_episode_rewards=True, warn=False)
    assert len(returns) == 8 and max(lengths) <= 9


def test_stock_gymnasium_wrappers_work_on_the_single_environment(tiny_bundle, tmp_path):
    env = gym.make(ID, world=str(tiny_bundle), render_mode="rgb_array", max_episode_steps=9)
    check_env(env, skip_render_check=True)
    env = RecordVideo(
        RecordEpisodeStatistics(FrameStackObservation(env, 4)), str(tmp_path / "videos")
    )
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4, 64, 64, 3)
    is_over = False
    while not is_over:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        is_over = terminated or truncated
    assert 0 < info["episode"]["l"] <= 9
    env.close()
    assert list((tmp_path / "videos").glob("*.mp4"))
