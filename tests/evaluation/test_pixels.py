import numpy as np
import pytest

from genie_gym.evaluation.estimates import spread
from genie_gym.evaluation.pixels import changed_pixels, mse, mse_where, psnr, ssim


def flat(value, count=1, size=16):
    return np.full((count, size, size, 3), value, np.uint8)


def test_a_difference_of_51_levels_is_an_mse_of_a_25th_and_14_db():
    error = mse(flat(100), flat(151))
    assert error == pytest.approx(0.04)
    assert psnr(error) == pytest.approx(13.979, abs=1e-3)


def test_equal_frames_score_100_db_and_a_similarity_of_1():
    frames = np.random.default_rng(0).integers(256, size=(70, 16, 16, 3), dtype=np.uint8)
    assert psnr(mse(frames, frames)).tolist() == [100] * 70
    assert ssim(frames, frames) == pytest.approx(np.ones(70))


def test_the_similarity_of_two_flat_frames_is_that_of_their_brightness():
    a, b = 100 / 255, 150 / 255
    expected = (2 * a * b + 0.01**2) / (a**2 + b**2 + 0.01**2)
    assert ssim(flat(100), flat(150)) == pytest.approx(expected)


def test_the_similarity_to_a_negative_is_that_of_one_window_by_hand():
    """One window fits an 11 x 11 frame; a checkerboard about mid-grey against its negative."""
    board = np.indices((11, 11)).sum(0) % 2
    frame = np.where(board, 200, 55).astype(np.uint8)[None, :, :, None].repeat(3, axis=-1)
    offset = np.arange(11) - 5
    weights = np.exp(-0.5 * (offset / 1.5) ** 2)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    x, y = frame[0, ..., 0] / 255, (255 - frame[0, ..., 0]) / 255
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    expected = luminance * (2 * covariance + 9e-4) / (var_x + var_y + 9e-4)
    assert expected < -0.9
    assert ssim(frame, 255 - frame) == pytest.approx(expected)


def test_the_error_where_pixels_changed_leaves_out_all_else_and_frames_without_change():
    before, real = flat(0, count=2), flat(0, count=2)
    real[0, 0, 0] = 51
    changed = changed_pixels(real, before)
    assert changed.sum() == 1
    guess = flat(255, count=2)
    guess[0, 0, 0] = 0
    assert mse_where(changed, guess, real) == pytest.approx([0.04])


def test_a_spread_of_nothing_is_none_and_says_why():
    assert spread(np.arange(11.0)) == {"mean": 5, "p10": 1, "p90": 9}
    none = {"mean": None, "p10": None, "p90": None, "reason": "no frames"}
    assert spread(np.zeros(0), "no frames") == none
