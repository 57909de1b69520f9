import subprocess
import sys
import warnings

import ale_py
import cv2
import gymnasium as gym
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from genie_gym.envs.real import RealEnv
from genie_gym.errors import ConfigError, GameError, InvalidActionError
from genie_gym.games import GAMES, game_of, world_id


def play(env, actions):
    return [env.step(int(action))[:4] for action in actions]


def assert_same_play(first, second):
    for (obs, *rest), (other_obs, *other_rest) in zip(first, second, strict=True):
        np.testing.assert_array_equal(obs, other_obs)
        assert rest == other_rest


def test_the_list_of_games_is_that_of_ale_py():
    gym.register_envs(ale_py)
    ids = [spec.id for spec in gym.registry.values() if spec.namespace == "ALE"]
    assert sorted(GAMES) == sorted(i[4:-3] for i in ids if i.endswith("-v5"))


def test_a_game_is_known_by_its_id_and_by_its_name_in_any_case():
    assert {game_of(name) for name in ("ALE/Pong-v5", "Pong", "pong")} == {"Pong"}
    assert world_id("ALE/MsPacman-v5") == "GenieWorld-MsPacman-v0"


@pytest.mark.parametrize("name", ["ALE/Pomg-v5", "Pomg"])
def test_an_unknown_game_is_refused_with_the_nearest_known_one(name):
    with pytest.raises(GameError, match=f"unknown game '{name}'. Did you mean 'Pong'?"):
        RealEnv(name)


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_frames_and_rewards_are_bitwise_those_of_ales_own_vector_env(game):
    env = RealEnv(game, noop_max=0)
    vector_env = AtariVectorEnv(
        game=game.lower(),
        num_envs=1,
        noop_max=0,
        use_fire_reset=False,
        reward_clipping=False,
        repeat_action_probability=0.0,
        grayscale=False,
        img_height=64,
        img_width=64,
        stack_num=1,
    )
    env.reset(seed=0)
    vector_env.reset(seed=0)
    rng = np.random.default_rng(0)
    action = 0
    for _ in range(300):
        action = action if rng.random() < 0.8 else int(rng.integers(env.action_space.n))
        obs, reward, terminated, _, _ = env.step(action)
        if terminated:  # on the last frame ALE may pool with a frame of the step before
            break
        vector_obs, vector_reward, *_ = vector_env.step(np.array([action]))
        np.testing.assert_array_equal(obs, vector_obs[0, 0])
        assert reward == vector_reward[0]


def test_a_frame_is_the_maximum_of_two_raw_frames_shrunk_by_area():
    env = RealEnv("Pong", noop_max=0)
    raw = RealEnv("Pong", noop_max=0, frame_size=None, frame_skip=1, max_pool=False)
    env.reset(seed=0)
    raw.reset(seed=0)
    for action in [0] * 60 + [2, 3] * 10:
        screens = [raw.step(action)[0] for _ in range(4)]
        assert screens[0].shape == (210, 160, 3)
        pooled = np.maximum(screens[-2], screens[-1])
        expected = cv2.resize(pooled, (64, 64), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(env.step(action)[0], expected)


@pytest.mark.parametrize("frame_size", [64, None])
def test_gymnasiums_checker_finds_nothing(frame_size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(RealEnv("Pong", frame_size=frame_size), skip_render_check=True)


def test_rendering_gives_the_raw_screen():
    env = RealEnv("Pong", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (210, 160, 3)
    assert env.metadata["render_fps"] == 15


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_a_seed_fixes_the_whole_episode(sticky):
    actions = np.random.default_rng(0).integers(6, size=60)
    runs = []
    for _ in range(2):
        env = RealEnv("Pong", sticky=sticky)
        env.reset(seed=5)
        runs.append(play(env, actions))
    assert_same_play(*runs)


def assert_later_episodes_are_those_of_a_new_env(game):
    used, rng = RealEnv(game, render_mode="rgb_array"), np.random.default_rng(0)
    actions = rng.integers(used.action_space.n, size=60)
    used.reset(seed=1)
    for action in actions:
        if any(used.step(int(action))[2:4]):
            used.reset()
    for noop_max in (30, 0):
        new = RealEnv(game, render_mode="rgb_array", noop_max=noop_max)
        used.noop_max = noop_max
        (obs, info), (new_obs, new_info) = used.reset(seed=7), new.reset(seed=7)
        np.testing.assert_array_equal(obs, new_obs)
        assert info == new_info
        np.testing.assert_array_equal(used.render(), new.render())
        assert_same_play(*(play(env, actions[:40]) for env in (used, new)))


# Qbert and Tetris leave something in the console's ports, Assault and Solaris in its memory.
@pytest.mark.parametrize("game", ["Pong", "Qbert", "Tetris", "Assault", "Solaris"])
def test_no_episode_depends_on_the_ones_before_it(game):
    assert_later_episodes_are_those_of_a_new_env(game)


@pytest.mark.slow
@pytest.mark.parametrize("game", sorted(GAMES))
def test_in_no_game_does_an_episode_depend_on_the_ones_before_it(game):
    assert_later_episodes_are_those_of_a_new_env(game)


def test_the_number_of_noops_is_drawn_from_the_seed_and_counts_raw_frames():
    env = RealEnv("Pong", noop_max=30)
    numbers = [env.reset(seed=seed)[1]["episode_frame_number"] for seed in range(15)]
    without = RealEnv("Pong", noop_max=0).reset(seed=0)[1]["episode_frame_number"]
    assert min(numbers) >= without and max(numbers) <= without + 30
    assert len(set(numbers)) > 5


def test_no_frame_of_the_last_game_shines_through_the_first_of_the_next():
    env = RealEnv("Pong", noop_max=0)
    first, _ = env.reset(seed=0)
    play(env, [2] * 100)
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
@pytest.mark.parametrize("frame_skip", [1, 4])
def test_a_restored_state_goes_on_as_it_did(sticky, frame_skip):
    env = RealEnv("Pong", sticky=sticky, frame_skip=frame_skip, max_episode_steps=120)
    env.reset(seed=1)
    play(env, [0, 2] * 30)
    state = env.get_state()
    actions = np.random.default_rng(0).integers(6, size=60)
    first = play(env, actions)
    first_reset, _ = env.reset()
    obs = env.set_state(state)
    assert obs.shape == (64, 64, 3)
    assert_same_play(first, play(env, actions))
    np.testing.assert_array_equal(env.reset()[0], first_reset)


def test_an_episode_ends_when_the_game_is_over_and_not_before():
    env = RealEnv("Pong")
    env.reset(seed=0)
    total, terminated = 0.0, False
    while not terminated:
        _, reward, terminated, truncated, _ = env.step(0)
        assert type(reward) is float and not truncated
        total += reward
    assert total == -21.0
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)


def test_an_episode_is_truncated_at_its_limit_only():
    env = RealEnv("Pong", max_episode_steps=5)
    env.reset(seed=0)
    assert [truncated for *_, truncated in play(env, [0] * 5)] == [False] * 4 + [True]


@pytest.mark.parametrize("action", [-1, 6])
def test_a_wrong_action_is_refused_with_its_value_and_range(action):
    env = RealEnv("Pong")
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=rf"int in 0\.\.5 for Pong, got {action}\."):
        env.step(action)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"frame_size": 0}, "frame_size must be at least 1, or None, got 0"),
        ({"frame_skip": 0}, "frame_skip must be at least 1, got 0"),
        ({"sticky": 1.5}, "sticky must be a probability"),
        ({"noop_max": -1}, "noop_max must be at least 0, got -1"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, or None, got 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        RealEnv("Pong", **options)


def test_the_real_game_and_its_recorder_load_no_torch():
    code = "import sys, collectors, genie_gym.envs.real; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
