from dataclasses import replace

import numpy as np
import pytest

from genie_gym.data.quality import Quality, QualityMeter, histogram_distances
from genie_gym.errors import ConfigError


def moving_square(num_frames=16, *, row=8, grey=100, size=32):
    frames = np.full((num_frames, size, size, 3), grey, np.uint8)
    for index, frame in enumerate(frames):
        frame[row : row + 2, index : index + 2] = 255
    return frames


def measure(frames):
    return QualityMeter().measure(frames)


def test_a_moving_square_is_perfect():
    assert measure(moving_square()) == Quality(frozen=0.0, black=0.0, cuts=0.0, duplicate=0.0)
    assert measure(moving_square()).score == 1


def test_a_filter_is_one_more_voice_of_which_the_worst_counts():
    cheap = Quality(frozen=0.25, black=0.0, cuts=0.0, duplicate=0.0)
    assert (cheap.score, cheap.worst) == (0.75, "frozen")
    assert replace(cheap, filter=0.125).worst == "frozen"
    judged = replace(cheap, filter=0.5)
    assert (judged.score, judged.worst) == (0.5, "filter")


@pytest.mark.parametrize("num_still", [0, 5, 15])
def test_frozen_is_the_share_of_unchanged_pairs(num_still):
    frames = moving_square()
    frames[len(frames) - num_still :] = frames[-1 - num_still]
    assert measure(frames).frozen == num_still / 15


def test_noise_of_a_codec_is_no_movement():
    noise = np.random.default_rng(0).integers(-4, 5, size=(16, 32, 32, 3))
    assert measure((moving_square()[:1] + noise).clip(0, 255).astype(np.uint8)).frozen == 1


def test_black_is_the_share_of_dark_frames():
    frames = moving_square(grey=20)
    assert measure(frames).black == 0  # a small thing on a black ground is a game
    frames[4:] = 20
    assert measure(frames).black == 12 / 16


@pytest.mark.parametrize("cut", [0, 4, 8, 15])
def test_cuts_is_the_share_outside_of_the_longest_scene(cut):
    frames = moving_square()
    frames[:cut] = moving_square(grey=200)[:cut]
    assert measure(frames).cuts == min(cut, 16 - cut) / 16


def test_the_distance_of_histograms_is_the_brightening():
    levels = np.array([0, 255, 204, 204], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (4, 8, 8, 3))
    np.testing.assert_allclose(histogram_distances(frames), [1, 0.2, 0])


def test_a_second_copy_is_a_duplicate_also_when_it_was_rescaled_and_is_noisy():
    meter = QualityMeter()
    first, other = moving_square(), moving_square(row=20)
    assert [meter.measure(clip).duplicate for clip in (first, other)] == [0, 0]
    assert [meter.measure(clip).duplicate for clip in (first, other)] == [1, 1]
    larger = first.repeat(2, axis=1).repeat(2, axis=2).astype(np.int16)
    noise = np.random.default_rng(0).integers(-4, 5, size=larger.shape)
    assert meter.measure((larger + noise).clip(0, 255).astype(np.uint8)).duplicate == 1


def test_duplicates_are_found_however_many_clips_there_were():
    rng = np.random.default_rng(0)
    meter = QualityMeter()
    clips = rng.integers(256, size=(1100, 2, 8, 9, 3), dtype=np.uint8)
    # 64 random bits of look and 64 of movement: two of them never agree in all but 3.
    assert not any(meter.measure(clip).duplicate for clip in clips)
    assert all(meter.measure(clip).duplicate for clip in clips[::100])


def test_the_score_is_what_the_worst_defect_leaves():
    quality = Quality(frozen=0.2, black=0.75, cuts=0.5, duplicate=0.0)
    assert (quality.score, quality.worst) == (0.25, "black")


def test_one_frame_alone_has_neither_movement_nor_cuts():
    assert measure(moving_square(1)) == Quality(frozen=0.0, black=0.0, cuts=0.0, duplicate=0.0)


def test_frames_too_small_to_judge_are_refused():
    with pytest.raises(ConfigError, match="at least 8 pixels high and wide to be judged, got 4 x"):
        measure(moving_square(size=32)[:, :4])
