import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from PIL import Image
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import genie_gym
from genie_gym.envs.real import RealEnv
from genie_gym.envs.world_env import GenieWorldEnv
from genie_gym.errors import (
    ConfigError,
    DeviceError,
    GameError,
    InvalidActionError,
    PromptError,
    WorldError,
)
from genie_gym.games import GAMES, world_id

ID = "GenieWorld-Pong-v0"

PLAY = """
import hashlib, sys, gymnasium as gym, numpy as np, torch, genie_gym

torch.set_num_threads(1)
world, num_steps = sys.argv[1], int(sys.argv[2])
env = gym.make("GenieWorld-Pong-v0", world=world)
actions = np.random.default_rng(0).integers(env.action_space.n, size=num_steps)
obs, info = env.reset(seed=3)
digest = hashlib.sha256(obs.tobytes() + repr(info).encode())
for action in actions:
    obs, *rest = env.step(action)
    digest.update(obs.tobytes() + repr(rest).encode())
    if rest[1] or rest[2]:
        obs, info = env.reset()
        digest.update(obs.tobytes() + repr(info).encode())
print(digest.hexdigest())
"""

COMPARE = """
import sys, torch
from genie_gym.models.bundle import load_world

torch.set_num_threads(1)
steps = []
for is_compiled in (False, True):
    world = load_world(sys.argv[1], is_compiled=is_compiled)
    state = world.start(torch.arange(2))
    for action in range(4):
        imagined = world.imagine(state, torch.tensor([action, 5 - action]), temperature=0.0)
        state = imagined.state
        steps.append((state.tokens, world.decode(state), imagined.prediction.reward_probs))
for eager, compiled in zip(steps[:4], steps[4:], strict=True):
    assert torch.equal(eager[0], compiled[0])
    assert (eager[1].int() - compiled[1].int()).abs().max() <= 1
    assert (eager[2] - compiled[2]).abs().max() < 1e-5
"""


def make(world, **options):
    return gym.make(ID, world=str(world), **options)


def play(env, actions):
    """Return what the steps gave; the game is begun anew after an end."""
    results = []
    for action in actions:
        results.append(env.step(action))
        if results[-1][2] or results[-1][3]:
            env.reset()
    return results


def assert_same(ones, others):
    for (obs, *rest), (other_obs, *other_rest) in zip(ones, others, strict=True):
        assert rest == other_rest
        np.testing.assert_array_equal(obs, other_obs)


def random_actions(num_steps, num_actions=6, seed=0):
    return np.random.default_rng(seed).integers(num_actions, size=num_steps)


def digest_of_a_process(world, num_steps, threads="1"):
    command = [sys.executable, "-c", PLAY, str(world), str(num_steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_game_has_a_registered_world():
    assert all(world_id(game) in gym.registry for game in GAMES)
    assert {gym.spec(world_id(game)).kwargs["game"] for game in GAMES} == set(GAMES)


@pytest.mark.parametrize("action_mode", ["ale", "latent"])
@pytest.mark.filterwarnings("error")
def test_gymnasium_finds_no_fault_with_the_environment(tiny_bundle, action_mode):
    env = make(tiny_bundle, action_mode=action_mode, render_mode="rgb_array")
    check_env(env.unwrapped)


@pytest.mark.filterwarnings("error")
def test_stable_baselines3_finds_no_fault_with_the_environment(tiny_bundle):
    check_env_sb3(make(tiny_bundle, render_mode="rgb_array").unwrapped)


def test_spaces_are_those_of_the_world(tiny_bundle):
    env = make(tiny_bundle)
    assert env.observation_space == gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space == gym.spaces.Discrete(6)
    assert make(tiny_bundle, action_mode="latent").action_space == gym.spaces.Discrete(8)


def test_a_step_gives_plain_python_numbers(tiny_bundle):
    env = make(tiny_bundle)
    obs, info = env.reset(seed=0)
    assert type(info["start"]) is int
    obs, reward, terminated, truncated, info = env.step(0)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert {type(value) for value in info.values()} == {float}
    assert obs.dtype == np.uint8
    assert reward in (-1.0, 0.0, 1.0)


def test_the_options_survive_json(tiny_bundle):
    options = {"temperature": 0.5, "num_maskgit_steps": 1, "reward_mode": "expected"}
    spec = make(tiny_bundle, **options).spec
    again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    assert json.loads(spec.to_json())["kwargs"] == again.kwargs
    assert gym.make(again).unwrapped.config == gym.make(spec).unwrapped.config


def test_one_seed_and_one_action_list_give_one_episode(tiny_bundle):
    one, other = make(tiny_bundle), make(tiny_bundle)
    np.testing.assert_array_equal(one.reset(seed=5)[0], other.reset(seed=5)[0])
    actions = random_actions(50)
    ones = play(one, actions)
    assert_same(ones, play(other, actions))
    assert any(terminated for _, _, terminated, _, _ in ones)


def test_two_processes_play_the_same_hundred_steps(tiny_bundle):
    assert digest_of_a_process(tiny_bundle, 100) == digest_of_a_process(tiny_bundle, 100)


@pytest.mark.slow
def test_two_processes_play_the_same_thousand_steps_of_pong():
    assert digest_of_a_process("pong", 1000) == digest_of_a_process("pong", 1000)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_networks_imagine_what_eager_ones_imagine(endless_bundle):
    # In a process of its own, because the shape checks of the tests cannot be compiled.
    command = [sys.executable, "-c", COMPARE, str(endless_bundle)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_seeds_tell_episodes_apart_and_resets_without_a_seed_go_on(tiny_bundle):
    env = make(tiny_bundle)

    def begin(seed):
        obs, _ = env.reset(seed=seed, options={"start": 0})
        return np.stack([obs, *(obs for obs, *_ in play(env, [0, 0]))])

    first, second = begin(1), begin(None)
    assert (first != begin(2)).any()
    assert (first != second).any()
    np.testing.assert_array_equal(first, begin(1))
    np.testing.assert_array_equal(second, begin(None))


def test_every_start_context_is_drawn(tiny_bundle):
    env = make(tiny_bundle)
    env.reset(seed=0)
    # Chance that one of five is missed in 60 draws: below 5 * 0.8**60 = 1e-5.
    assert {env.reset()[1]["start"] for _ in range(60)} == set(range(5))


def test_a_named_start_leaves_the_random_stream_as_it_was(endless_bundle):
    env = make(endless_bundle)
    _, info = env.reset(seed=7)
    drawn = play(env, [1, 2, 3])
    env.reset(seed=7, options={"start": info["start"]})
    assert_same(drawn, play(env, [1, 2, 3]))


def test_a_state_can_be_gone_back_to(tiny_bundle):
    env = make(tiny_bundle)
    env.reset(seed=0)
    play(env, random_actions(5))
    state = env.unwrapped.get_state()
    rendered = env.unwrapped._obs()
    actions = random_actions(30, seed=1)
    first = play(env, actions)
    np.testing.assert_array_equal(env.unwrapped.set_state(state), rendered)
    assert_same(first, play(env, actions))

    other = make(tiny_bundle)
    other.reset(seed=99)
    other.unwrapped.set_state(pickle.loads(pickle.dumps(state)))
    assert_same(first, play(other, actions))


def test_a_state_holds_the_number_of_steps(endless_bundle):
    env = GenieWorldEnv(world=str(endless_bundle), max_episode_steps=6)
    env.reset(seed=0)
    play(env, [0, 0])
    state = env.get_state()
    for _ in range(2):
        assert [step[3] for step in play(env, [0, 0, 0, 0])] == [False, False, False, True]
        env.set_state(state)


def test_a_state_fits_an_environment_that_was_never_reset(endless_bundle):
    env, fresh = make(endless_bundle), GenieWorldEnv(world=str(endless_bundle))
    env.reset(seed=0)
    fresh.set_state(env.unwrapped.get_state())
    assert_same(play(env, [1, 2]), play(fresh, [1, 2]))


def test_the_game_is_over_when_the_world_holds_that_for_likelier(tiny_bundle):
    env = make(tiny_bundle)
    env.reset(seed=0)
    results = play(env, random_actions(50))
    ends = [terminated for _, _, terminated, _, _ in results]
    assert 0 < sum(ends) < 25
    assert ends == [info["terminated_prob"] > 0.5 for *_, info in results]


def test_the_last_step_is_truncated_even_when_the_game_is_over_there(tiny_bundle):
    actions = random_actions(100)
    env = GenieWorldEnv(world=str(tiny_bundle))
    env.reset(seed=0)
    length = 1 + next(i for i, action in enumerate(actions) if env.step(action)[2])
    limited = GenieWorldEnv(world=str(tiny_bundle), max_episode_steps=length)
    limited.reset(seed=0)
    *before, (_, _, terminated, truncated, _) = play(limited, actions[:length])
    assert (terminated, truncated) == (True, True)
    assert not any(step[2] or step[3] for step in before)


def test_the_limit_is_a_thousand_steps(tiny_bundle):
    assert GenieWorldEnv(world=str(tiny_bundle)).config.max_episode_steps == 1000


def test_a_longer_limit_goes_into_the_spec(tiny_bundle):
    spec = gym.spec(ID)
    spec.kwargs |= {"world": str(tiny_bundle), "max_episode_steps": 5000}
    assert gym.make(spec).unwrapped.config.max_episode_steps == 5000


def test_stepping_on_after_the_end_is_refused(endless_bundle):
    env = GenieWorldEnv(world=str(endless_bundle), max_episode_steps=2)
    for call in (lambda: env.step(0), env.get_state, env._obs):
        with pytest.raises(ResetNeeded, match="not begun"):
            call()
    env.reset(seed=0)
    play_without_reset = [env.step(0), env.step(0)]
    assert play_without_reset[-1][3]
    with pytest.raises(ResetNeeded, match="over"):
        env.step(0)
    env.reset()
    env.step(0)


def test_the_expected_reward_is_the_mean_of_the_sampled_ones(endless_bundle):
    sampled, expected = make(endless_bundle), make(endless_bundle, reward_mode="expected")
    for env in (sampled, expected):
        env.reset(seed=0)
    ones, others = (play(env, random_actions(100)) for env in (sampled, expected))
    for (obs, reward, *_, info), (other_obs, mean, *_, other_info) in zip(
        ones, others, strict=True
    ):
        np.testing.assert_array_equal(obs, other_obs)
        assert reward in (-1.0, 0.0, 1.0)
        assert mean == info["expected_reward"] == other_info["expected_reward"]
    # A mean of 100 rewards of spread 1 or less strays by 4 * 0.1 once in 16,000 seeds.
    means = [np.mean([step[1] for step in steps]) for steps in (ones, others)]
    assert abs(means[0] - means[1]) < 0.4
    assert len({step[1] for step in ones}) == 3


def test_temperature_zero_takes_the_likeliest_frames(endless_bundle):
    env = make(endless_bundle, temperature=0.0)

    def frames(seed):
        env.reset(seed=seed, options={"start": 1})
        return np.stack([step[0] for step in play(env, [1, 2, 3, 4])])

    np.testing.assert_array_equal(frames(0), frames(1))


def test_the_number_of_maskgit_steps_changes_the_frames(endless_bundle):
    frames = []
    for num_steps in (1, 8):
        env = make(endless_bundle, num_maskgit_steps=num_steps)
        env.reset(seed=0)
        frames.append(env.step(0)[0])
    assert (frames[0] != frames[1]).any()


def test_latent_actions_drive_the_world(endless_bundle):
    env = make(endless_bundle, action_mode="latent")
    last = []
    for action in (0, 7):
        env.reset(seed=0)
        last.append(play(env, [action] * 5)[-1][0])
    assert (last[0] != last[1]).any()


def test_a_prompt_may_be_an_image_a_clip_or_a_file(endless_bundle, clip, tmp_path):
    env = make(endless_bundle)
    Image.fromarray(clip[0]).save(tmp_path / "image.png")
    np.save(tmp_path / "clip.npy", clip)

    def begin(prompt, **more):
        obs, info = env.reset(seed=0, options={"prompt": prompt, **more})
        assert info == {}
        return np.stack([obs, env.step(3)[0]])

    image = begin(clip[0])
    np.testing.assert_array_equal(image, begin(clip[:1]))
    np.testing.assert_array_equal(image, begin(str(tmp_path / "image.png")))
    whole = begin(clip)
    assert (whole != image).any()
    np.testing.assert_array_equal(whole, begin(tmp_path / "clip.npy"))
    np.testing.assert_array_equal(whole, begin(clip, actions=[0, 0]))
    assert (whole != begin(clip, actions=[4, 5])).any()


def test_a_prompt_in_latent_mode_takes_the_actions_the_world_infers(endless_bundle, clip):
    env = make(endless_bundle, action_mode="latent")
    codes = env.unwrapped.world.infer_latent_actions(torch.from_numpy(clip)[None])[0].tolist()
    steps = []
    for options in ({"prompt": clip}, {"prompt": clip, "actions": codes}):
        env.reset(seed=0, options=options)
        steps.append(env.step(0)[0])
    np.testing.assert_array_equal(*steps)


def test_a_flipped_prompt_array_is_taken(endless_bundle, clip):
    make(endless_bundle).reset(options={"prompt": clip[:, ::-1]})


def test_the_past_stays_of_one_size(endless_bundle):
    env = GenieWorldEnv(world=str(endless_bundle), num_maskgit_steps=1)
    env.reset(seed=0)

    def shapes():
        world = env.get_state().world
        return [x.shape for c in (world.dynamics, world.reward) for x in (*c.keys, *c.values)]

    play(env, random_actions(10))
    early = shapes()
    play(env, random_actions(290))
    assert shapes() == early


def test_frames_are_not_shared_with_the_caller(tiny_bundle):
    env = make(tiny_bundle, render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    frame = env.render()
    frame[:] = 0
    obs[:] = 0
    np.testing.assert_array_equal(env.render(), kept)


def test_without_a_render_mode_nothing_is_drawn(tiny_bundle):
    env = GenieWorldEnv(world=str(tiny_bundle))
    env.reset(seed=0)
    assert env.render() is None


def test_environments_of_one_world_share_its_weights(tiny_bundle):
    one, other = make(tiny_bundle), make(tiny_bundle, temperature=2.0)
    assert one.unwrapped.world is other.unwrapped.world
    copy = pickle.loads(pickle.dumps(one.unwrapped))
    assert copy.world is one.unwrapped.world
    assert copy.config == one.unwrapped.config


def test_a_world_that_was_exported_again_is_loaded_again(tiny_bundle, tmp_path):
    import shutil

    shutil.copytree(tiny_bundle, tmp_path / "world")
    before = make(tmp_path / "world").unwrapped.world
    os.utime(tmp_path / "world" / "world.yaml", ns=(1, 1))
    assert make(tmp_path / "world").unwrapped.world is not before


def test_playing_leaves_the_weights_as_they_were(tiny_bundle):
    env = make(tiny_bundle)

    def digest():
        state = env.unwrapped.world.stack.state_dict()
        return hashlib.sha256(b"".join(x.numpy().tobytes() for x in state.values())).hexdigest()

    before = digest()
    env.reset(seed=0)
    play(env, random_actions(20))
    assert digest() == before


def test_the_keyboard_is_that_of_the_game_or_the_digits(tiny_bundle):
    keys = make(tiny_bundle).get_wrapper_attr("get_keys_to_action")()
    assert keys == RealEnv("Pong").get_keys_to_action()
    latent = make(tiny_bundle, action_mode="latent").get_wrapper_attr("get_keys_to_action")()
    assert latent == {(str(code),): code for code in range(8)}


def test_gymnasium_wrappers_take_the_environment(tiny_bundle, tmp_path):
    env = make(tiny_bundle, render_mode="rgb_array", max_episode_steps=8)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moviepy
        env = gym.wrappers.RecordVideo(env, str(tmp_path), episode_trigger=lambda episode: True)
    env = gym.wrappers.FrameStackObservation(env, 4)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4, 64, 64, 3)
    is_over, total, length = False, 0.0, 0
    while not is_over:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        is_over, total, length = terminated or truncated, total + reward, length + 1
    env.close()
    assert (info["episode"]["r"], info["episode"]["l"]) == (total, length)
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_human_rendering_is_added_by_gymnasium(tiny_bundle):
    with pytest.warns(UserWarning, match="HumanRendering wrapper"):
        env = make(tiny_bundle, render_mode="human")
    assert env.unwrapped.render_mode == "rgb_array"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"action_mode": "keys"}, ConfigError, "env.action_mode must be one of ['ale', 'latent']"),
        ({"reward_mode": "mean"}, ConfigError, "env.reward_mode must be one of"),
        ({"temperature": -0.1}, ConfigError, "env.temperature must be a finite number of 0 or"),
        ({"temperature": float("nan")}, ConfigError, "got nan"),
        ({"num_maskgit_steps": 0}, ConfigError, "env.num_maskgit_steps must be at least 1"),
        ({"num_maskgit_steps": 2.5}, ConfigError, "env.num_maskgit_steps must be int, got 2.5"),
        ({"rewardmode": "mean"}, ConfigError, "Did you mean 'reward_mode'?"),
        ({"dtype": "float16"}, WorldError, "dtype must be one of"),
        ({"device": "abacus"}, DeviceError, "unknown device 'abacus'"),
        ({"world": "/nowhere"}, WorldError, "genie-gym train"),
        ({"world": 3}, ConfigError, "env.world must be str, got 3"),
    ],
)
def test_a_wrong_option_is_refused(tiny_bundle, options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        gym.make(ID, **{"world": str(tiny_bundle), **options})


def test_a_wrong_limit_or_render_mode_is_refused(tiny_bundle):
    with pytest.raises(ConfigError, match=r"env\.max_episode_steps must be at least 1, or None"):
        GenieWorldEnv(world=str(tiny_bundle), max_episode_steps=0)
    with pytest.raises(ConfigError, match=re.escape("one of ['rgb_array'], got 'ascii'")):
        GenieWorldEnv(world=str(tiny_bundle), render_mode="ascii")


def test_an_unknown_game_or_a_world_of_another_game_is_refused(tiny_bundle):
    with pytest.raises(GameError, match="Did you mean 'Pong'"):
        GenieWorldEnv("Ponk", world=str(tiny_bundle))
    with pytest.raises(WorldError, match="a world of Pong, not of Breakout"):
        gym.make("GenieWorld-Breakout-v0", world=str(tiny_bundle))


def test_a_game_without_a_world_says_how_to_train_one():
    commands = r"genie-gym collect ALE/Zaxxon-v5 .* stack\.game=Zaxxon stack\.num_actions=N "
    with pytest.raises(WorldError, match=rf"no world 'zaxxon'.*{commands}"):
        gym.make("GenieWorld-Zaxxon-v0")


@pytest.mark.parametrize("action", [-1, 6, 1.0, "up", None, [0], np.array([0, 1]), np.float32(1)])
def test_a_wrong_action_is_refused_and_changes_nothing(tiny_bundle, action):
    env = GenieWorldEnv(world=str(tiny_bundle))
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"an int in 0\.\.5 for Pong, got .*'NOOP'"):
        env.step(action)
    assert env.get_state().num_steps == 0


@pytest.mark.parametrize("action", [2, np.int32(2), np.uint8(2), np.array(2)])
def test_an_action_may_be_any_integer(tiny_bundle, action):
    env = GenieWorldEnv(world=str(tiny_bundle))
    env.reset(seed=0)
    env.step(action)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"begin": 1}, ConfigError, "unknown key 'begin'"),
        ({"star": 1}, ConfigError, "Did you mean 'start'?"),
        ({"start": 5}, WorldError, "must lie in [0, 5), got 5"),
        ({"start": -1}, ConfigError, "index of a start context, 0 or more, got -1"),
        ({"start": 0.5}, ConfigError, "got 0.5"),
        ({"start": [0, 1]}, ConfigError, "got [0, 1]"),
        ({"actions": [0]}, ConfigError, "between the frames of a 'prompt'"),
        ({"start": 0, "prompt": "x.png"}, ConfigError, "either 'start' or 'prompt'"),
        ({"prompt": "nowhere.png"}, PromptError, "nowhere.png cannot be read: No such file"),
        ({"prompt": np.zeros((64, 64, 3))}, PromptError, "got float64 (64, 64, 3)"),
    ],
)
def test_wrong_reset_options_are_refused(tiny_bundle, options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        make(tiny_bundle).reset(options=options)


@pytest.mark.parametrize(
    ("actions", "error", "text"),
    [
        ([0], WorldError, "3 frames have 2 actions between them, got 1"),
        ([], WorldError, "3 frames have 2 actions between them, got 0"),
        ([0, 6], InvalidActionError, "in [0, 6), got 6"),
        ([0.5, 1.0], InvalidActionError, "must be a list of ints"),
        ("02", WorldError, "got '02'"),
    ],
)
def test_wrong_prompt_actions_are_refused(tiny_bundle, clip, actions, error, text):
    with pytest.raises(error, match=re.escape(text)):
        make(tiny_bundle).reset(options={"prompt": clip, "actions": actions})


def test_the_package_offers_load_world(tiny_bundle):
    assert genie_gym.load_world(tiny_bundle).num_actions == 6
