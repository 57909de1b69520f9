import ale_py
import gymnasium
import numpy as np
import pytest

from genie_gym.data.augment import Augmentation, AugmentConfig, mirrored_actions
from genie_gym.data.windows import Clip
from genie_gym.errors import ConfigError
from genie_gym.games import FLIPS, swapped_words

gymnasium.register_envs(ale_py)
BREAKOUT = ["NOOP", "FIRE", "RIGHT", "LEFT"]


def make_clip(num_clips=64, num_frames=5, seed=0):
    """Fill clips with frames whose pixels all differ, and with every action in turn."""
    rng = np.random.default_rng(seed)
    steps = (num_clips, num_frames - 1)
    return Clip(
        frames=rng.integers(256, size=(num_clips, num_frames, 6, 4, 3), dtype=np.uint8),
        actions=np.arange(num_clips * (num_frames - 1)).reshape(steps) % 4,
        rewards=rng.random(steps, np.float32),
        terminations=np.zeros(steps, bool),
    )


def augmented(clip, num_frames=5, *, game="Breakout", meanings=BREAKOUT, seed=0, **settings):
    augmentation = Augmentation(AugmentConfig(**settings), game=game, action_meanings=meanings)
    return augmentation(clip, num_frames, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_shift": 2},
        {"horizontal_flip": True},
        {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5},
    ],
)
def test_one_seed_changes_clips_in_one_way_and_leaves_the_original_alone(settings):
    clip = make_clip()
    first, second = (augmented(clip, seed=3, **settings).frames for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != augmented(clip, seed=4, **settings).frames).any()
    np.testing.assert_array_equal(clip.frames, make_clip().frames)
    assert first.dtype == np.uint8


def test_a_shifted_clip_shows_the_same_picture_elsewhere_with_its_edges_repeated():
    clip = make_clip(num_clips=200)
    shifted = augmented(clip, max_shift=1).frames
    padded = np.pad(clip.frames, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    seen = set()
    for padded_clip, shifted_clip in zip(padded, shifted, strict=True):
        seen |= {
            (row, column)
            for row in range(3)
            for column in range(3)
            if (padded_clip[:, row : row + 6, column : column + 4] == shifted_clip).all()
        }
    # All nine places, each for a whole clip; 200 clips miss one with a chance of 1 in 10^9.
    assert seen == {(row, column) for row in range(3) for column in range(3)}


def test_a_flip_mirrors_pictures_and_actions_of_half_of_the_clips():
    clip = make_clip(num_clips=200)
    flipped = augmented(clip, horizontal_flip=True)
    is_same = (flipped.frames == clip.frames).all(axis=(1, 2, 3, 4))
    assert 60 < is_same.sum() < 140
    np.testing.assert_array_equal(flipped.actions[is_same], clip.actions[is_same])
    np.testing.assert_array_equal(flipped.frames[~is_same], clip.frames[~is_same][:, :, :, ::-1])
    mirrored = np.array([0, 1, 3, 2])  # RIGHT and LEFT change places
    np.testing.assert_array_equal(flipped.actions[~is_same], mirrored[clip.actions[~is_same]])
    np.testing.assert_array_equal(flipped.rewards, clip.rewards)


def test_a_vertical_flip_turns_pictures_upside_down():
    clip = make_clip()
    names = ["NOOP", "UP", "RIGHT", "DOWN"]
    flipped = augmented(clip, game="Boxing", meanings=names, vertical_flip=True)
    is_same = (flipped.frames == clip.frames).all(axis=(1, 2, 3, 4))
    np.testing.assert_array_equal(flipped.frames[~is_same], clip.frames[~is_same][:, :, ::-1])
    np.testing.assert_array_equal(
        flipped.actions[~is_same], np.array([0, 3, 2, 1])[clip.actions[~is_same]]
    )


@pytest.mark.parametrize(
    ("words", "name", "mirror"),
    [
        (("LEFT", "RIGHT"), "UPRIGHT", "UPLEFT"),
        (("LEFT", "RIGHT"), "DOWNLEFTFIRE", "DOWNRIGHTFIRE"),
        (("LEFT", "RIGHT"), "LEFTFIRE", "RIGHTFIRE"),
        (("LEFT", "RIGHT"), "UP", "UP"),
        (("UP", "DOWN"), "UPRIGHT", "DOWNRIGHT"),
        (("UP", "DOWN"), "DOWNFIRE", "UPFIRE"),
        (("UP", "DOWN"), "NOOP", "NOOP"),
    ],
)
def test_compound_actions_are_mirrored_by_name(words, name, mirror):
    names = gymnasium.make("ALE/Boxing-v5").unwrapped.get_action_meanings()  # all eighteen
    assert names[mirrored_actions(names, words)[names.index(name)]] == mirror


@pytest.mark.parametrize("flip", sorted(FLIPS))
def test_mirroring_the_actions_of_an_allowed_game_twice_changes_nothing(flip):
    for game in FLIPS[flip]:
        names = gymnasium.make(f"ALE/{game}-v5").unwrapped.get_action_meanings()
        mirrored = mirrored_actions(names, swapped_words(game, flip))
        assert (mirrored != np.arange(len(names))).any()
        np.testing.assert_array_equal(mirrored[mirrored], np.arange(len(names)))


def test_actions_without_a_mirror_image_are_refused():
    with pytest.raises(ConfigError, match=r"\['NOOP', 'LEFT'\] have no mirror image \['RIGHT'\]"):
        mirrored_actions(["NOOP", "LEFT"], ("LEFT", "RIGHT"))


def test_a_game_that_a_mirror_changes_is_refused():
    with pytest.raises(ConfigError, match=r"must be false for Pong.*\['Breakout', 'MsPacman'\]"):
        augmented(make_clip(), game="ALE/Pong-v5", horizontal_flip=True)


def test_brightness_multiplies_every_pixel_of_a_clip_by_one_factor():
    frames = np.full((50, 3, 2, 2, 3), 100, np.uint8)
    frames[:, :, 0] = 40
    clip = Clip(frames=frames, actions=None, rewards=None, terminations=None)
    bright = augmented(clip, num_frames=3, brightness=0.5).frames
    assert (bright == bright[:, :1]).all()  # no flicker
    factors = bright[:, 0, 1, 0, 0] / 100
    assert 0.5 <= factors.min() < 0.6 and 1.4 < factors.max() <= 1.5
    np.testing.assert_allclose(bright[:, 0, 0, 0, 0] / 40, factors, atol=0.02)


def test_contrast_keeps_the_mean_grey_and_saturation_the_grey_of_every_pixel():
    grey = np.array([50, 150], np.uint8)[None, None, :, None, None] * np.ones(
        (50, 3, 1, 2, 3), "u1"
    )
    clip = Clip(frames=grey, actions=None, rewards=None, terminations=None)
    np.testing.assert_array_equal(augmented(clip, 3, saturation=1.0).frames, grey)
    changed = augmented(clip, 3, contrast=1.0).frames
    np.testing.assert_allclose(changed.mean(axis=(1, 2, 3, 4)), 100, atol=0.5)
    spread = np.ptp(changed[..., 0].astype(int), axis=(1, 2, 3))
    assert spread.min() < 20 and spread.max() > 160  # from nearly flat to nearly twice the 100

    red = np.array([200, 0, 0], np.uint8) * np.ones((50, 3, 2, 2, 3), "u1")
    pale = (
        augmented(
            Clip(frames=red, actions=None, rewards=None, terminations=None), 3, saturation=1.0
        )
        .frames[:, 0, 0, 0]
        .astype(int)
    )
    # 200 red are 59.8 of grey; green is (1 - s) of that, red what is left of 200, for one s.
    is_pale = pale[:, 1] > 0
    s = 1 - pale[is_pale, 1] / 59.8
    np.testing.assert_allclose(pale[is_pale, 0], 200 * s + 59.8 * (1 - s), atol=2)


def test_every_kth_frame_is_kept_and_the_actions_between_are_dropped():
    frames = np.arange(7, dtype=np.uint8)[None, :, None, None, None] * np.ones(
        (90, 1, 2, 2, 3), "u1"
    )
    augmentation = Augmentation(AugmentConfig(max_stride=3), game="Pong", action_meanings=["NOOP"])
    assert augmentation.span(3) == 7
    clip = Clip(frames=frames, actions=np.zeros((90, 6), int), rewards=None, terminations=None)
    kept = augmentation(clip, 3, np.random.default_rng(0))
    assert {tuple(one) for one in kept.frames[:, :, 0, 0, 0]} == {(0, 1, 2), (0, 2, 4), (0, 3, 6)}
    assert kept.actions is None and kept.rewards is None and kept.terminations is None
