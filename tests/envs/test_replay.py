import dataclasses
import json
import os
import shutil

import gymnasium as gym
import numpy as np
import pytest

from genie_gym.envs.real import RealEnv
from genie_gym.envs.replay import RecordReplay, load_replay, play_back, save_replay, world_hash
from genie_gym.errors import ConfigError, DataError, WorldError


@pytest.fixture
def env(endless_bundle):
    return RecordReplay(gym.make("GenieWorld-Pong-v0", world=str(endless_bundle)))


def play(env, actions, **reset):
    obs, _ = env.reset(**reset)
    return np.stack([obs, *(env.step(action)[0] for action in actions)])


def test_a_saved_episode_plays_back_frame_for_frame(env, tmp_path):
    frames = play(env, [0, 1, 2, 3, np.int64(5)], seed=3)
    path = tmp_path / "replays" / "episode.json"
    save_replay(path, env.replay())
    replay = load_replay(path)
    assert replay == env.replay()
    np.testing.assert_array_equal(play_back(replay), frames)
    assert [file.name for file in path.parent.iterdir()] == ["episode.json"]


def test_a_chosen_start_and_the_options_are_replayed(endless_bundle):
    made = gym.make("GenieWorld-Pong-v0", world=str(endless_bundle), temperature=0.5)
    env = RecordReplay(made)
    frames = play(env, [1, 1], seed=3, options={"start": 4})
    assert env.replay().start == 4
    np.testing.assert_array_equal(play_back(env.replay()), frames)


def test_an_episode_without_a_seed_of_its_own_plays_back(env):
    play(env, [0], seed=3)
    frames = play(env, [4, 4, 4])
    replay = env.replay()
    assert replay.actions == (4, 4, 4)
    np.testing.assert_array_equal(play_back(replay), frames)
    play(env, [0], seed=3)
    play(env, [0])
    assert env.replay().seed == replay.seed


def test_an_episode_to_its_end_plays_back(tiny_bundle):
    env = RecordReplay(gym.make("GenieWorld-Pong-v0", world=str(tiny_bundle)))
    frames = [env.reset(seed=0)[0]]
    terminated = False
    generator = np.random.default_rng(0)
    while not terminated:
        obs, _, terminated, _, _ = env.step(generator.integers(6))
        frames.append(obs)
    replay = env.replay()
    np.testing.assert_array_equal(play_back(replay), frames)
    longer = dataclasses.replace(replay, actions=(*replay.actions, 1))
    with pytest.raises(DataError, match=rf"its game is over after {len(frames) - 1}"):
        play_back(longer)


def test_the_hash_names_the_weights_and_the_starts(env, tiny_bundle, endless_bundle):
    worlds = [
        gym.make("GenieWorld-Pong-v0", world=str(world), device="cpu").unwrapped.world
        for world in (tiny_bundle, endless_bundle)
    ]
    assert world_hash(worlds[0]) != world_hash(worlds[1])
    assert world_hash(worlds[1]) == env._world_hash


def test_another_world_under_the_same_name_is_refused(tiny_bundle, endless_bundle, tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(tiny_bundle, folder)
    env = RecordReplay(gym.make("GenieWorld-Pong-v0", world=str(folder)))
    play(env, [0], seed=0)
    replay = env.replay()
    shutil.copytree(endless_bundle, folder, dirs_exist_ok=True)
    os.utime(folder / "world.yaml", ns=(1, 1))
    found = world_hash(gym.make("GenieWorld-Pong-v0", world=str(folder)).unwrapped.world)
    with pytest.raises(WorldError, match=rf"{replay.world_hash}, but .* is now {found}"):
        play_back(replay)


def test_a_replay_needs_a_bundled_start(env, clip):
    with pytest.raises(DataError, match="bundled start context"):
        env.replay()
    env.reset(options={"prompt": clip})
    with pytest.raises(DataError, match="bundled start context"):
        env.replay()


def test_only_a_learned_world_can_be_replayed():
    with pytest.raises(ConfigError, match="only a GenieWorldEnv"):
        RecordReplay(RealEnv("Pong"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content[:-20], "is not readable JSON"),
        (lambda content: "[]", "must hold an object, got list"),
        (lambda content: content.replace('"seed"', '"sed"'), "Did you mean 'seed'"),
        (lambda content: content.replace('"version": 2', '"version": 3'), "has version 3"),
        (lambda content: content.replace('"start":', '"start": "a", "x":'), "unknown key 'x'|int"),
        (lambda content: content.replace('"ale"', '"keys"'), "env.action_mode must be one of"),
        (lambda content: "{}", "has version None"),
    ],
)
def test_a_malformed_file_is_refused(env, tmp_path, change, text):
    play(env, [0], seed=0)
    path = tmp_path / "episode.json"
    save_replay(path, env.replay())
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=text):
        load_replay(path)


def test_a_missing_key_or_file_is_refused(env, tmp_path):
    play(env, [0], seed=0)
    path = tmp_path / "episode.json"
    save_replay(path, env.replay())
    content = json.loads(path.read_text())
    del content["actions"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="actions"):
        load_replay(path)
    with pytest.raises(DataError, match=r"absent\.json is not readable"):
        load_replay(tmp_path / "absent.json")
