import re

import gymnasium as gym
import numpy as np
import pytest

from genie_gym.envs.generation import generate, parse_actions
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError, InvalidActionError, WorldError


def config(bundle, **options):
    return WorldEnvConfig(game="Pong", world=str(bundle), **options)


def played(bundle, actions, **reset):
    env = gym.make("GenieWorld-Pong-v0", world=str(bundle))
    obs, _ = env.reset(**reset)
    return np.stack([obs, *(env.step(action)[0] for action in actions)])


@pytest.mark.parametrize("options", [{}, {"start": 3}])
def test_the_frames_are_those_of_the_environment(endless_bundle, options):
    actions = [2, 2, 3, 0, 5]
    frames = generate(config(endless_bundle), actions, seed=7, **options)
    np.testing.assert_array_equal(frames, played(endless_bundle, actions, seed=7, options=options))


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_prompt_comes_before_the_frames(endless_bundle, clip, num_frames):
    prompt = clip[:num_frames]
    frames = generate(config(endless_bundle), [1, 4], prompt=prompt)
    expected = played(endless_bundle, [1, 4], seed=0, options={"prompt": prompt})
    np.testing.assert_array_equal(frames, expected)


def test_every_action_has_a_frame_also_past_the_end_of_the_game(tiny_bundle):
    env = gym.make("GenieWorld-Pong-v0", world=str(tiny_bundle))
    env.reset(seed=2)
    num_steps = 1
    while not env.step(0)[2]:
        num_steps += 1
    actions = [0] * (num_steps + 2)
    assert (
        generate(config(tiny_bundle, max_episode_steps=2), actions, seed=2).shape[0]
        == num_steps + 3
    )


def test_latent_actions_are_the_worlds_own(endless_bundle, clip):
    latent = config(endless_bundle, action_mode="latent")
    ends = [generate(latent, [action] * 3, prompt=clip)[-1] for action in (0, 7)]
    assert (ends[0] != ends[1]).any()
    with pytest.raises(InvalidActionError, match=re.escape("ints in 0..7 for Pong, got 8")):
        generate(latent, [8])


def test_what_cannot_be_generated_is_refused(endless_bundle, clip):
    with pytest.raises(InvalidActionError, match=re.escape("ints in 0..5 for Pong, got 6")):
        generate(config(endless_bundle), [0, 6])
    with pytest.raises(InvalidActionError, match="got none: give at least one"):
        generate(config(endless_bundle), [])
    with pytest.raises(ConfigError, match="either a prompt or a start, not both"):
        generate(config(endless_bundle), [0], prompt=clip, start=0)
    with pytest.raises(WorldError, match=re.escape("must lie in [0, 5), got 5")):
        generate(config(endless_bundle), [0], start=5)


@pytest.mark.parametrize("text", ["", ",", "1,", "1;2", "up", "-1", "1.0", "²", "9" * 5000])
def test_a_text_that_lists_no_actions_is_refused(text):
    with pytest.raises(InvalidActionError, match="whole numbers between commas, as 2,2,3,0; got"):
        parse_actions(text)


def test_actions_are_read_from_a_text():
    assert parse_actions("2,2 , 3,\n0") == [2, 2, 3, 0]
