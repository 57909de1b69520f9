import cv2
import numpy as np
import pytest

from genie_gym.envs.real import RealEnv
from genie_gym.errors import DataError
from genie_gym.evaluation.objects import find_objects

NUM_STEPS = 600
BALL_X, OPPONENT_Y, OWN_Y, BALL_Y = 49, 50, 51, 54  # addresses in the emulator's RAM


@pytest.fixture(scope="module")
def play(step_with_ram):
    """600 steps of random play: frames, and the RAM behind each of the two raw frames merged."""
    env = RealEnv("Pong")
    env.reset(seed=3)
    generator = np.random.default_rng(3)
    frames, rams = [], []
    for step in range(NUM_STEPS):
        if step % 4 == 0:
            action = generator.integers(env.action_space.n)
        obs, ram = step_with_ram(env, action)
        frames.append(obs)
        rams.append(ram)
    env.close()
    return np.array(frames), np.array(rams).astype(float)


def _row(raw_y):
    return raw_y * 64 / 210 - 0.5


def _column(raw_x):
    return raw_x * 64 / 160 - 0.5


def _paddle(ram_y, offset):
    """Return the centre row of a 16-row paddle merged over two raw frames, cut by the walls."""
    top = np.clip(ram_y - offset, 34, 194).min(axis=1)
    bottom = np.clip(ram_y - offset + 16, 34, 194).max(axis=1)
    return np.where(bottom - top >= 3, _row((top + bottom) / 2), np.nan)


def test_a_ball_is_seen_when_the_emulator_draws_one(play):
    frames, rams = play
    drawn = (rams[:, :, BALL_Y] > 0).any(axis=1)
    assert 0.2 < drawn.mean() < 0.9  # both cases are tested
    found = find_objects(frames, "Pong")
    assert (found.ball_seen == drawn).mean() >= 0.99
    assert found.num_balls.max() == 1


def test_the_ball_is_within_a_pixel_of_the_emulators(play):
    frames, rams = play
    found = find_objects(frames, "Pong")
    both = (rams[:, :, BALL_Y] > 0).all(axis=1) & found.ball_seen
    # The ball's two raw columns start at RAM - 49, its four raw rows at RAM - 14 or - 15.
    row = _row(rams[:, :, BALL_Y].mean(axis=1) - 14.5 + 2)
    column = _column(rams[:, :, BALL_X].mean(axis=1) - 49 + 1)
    error = np.abs(found.ball_yx - np.stack([row, column], axis=1))[both]
    assert error.max() < 1
    assert np.median(error) < 0.2


def test_the_paddles_are_within_a_pixel_of_the_emulators(play):
    frames, rams = play
    found = find_objects(frames, "Pong")
    own = _paddle(rams[:, :, OWN_Y], 13.5)
    opponent = _paddle(rams[:, :, OPPONENT_Y], 15)
    assert (np.isnan(found.paddles["own"]) == np.isnan(own)).mean() >= 0.99
    assert (np.isnan(found.paddles["opponent"]) == np.isnan(opponent)).mean() >= 0.99
    assert np.nanmax(np.abs(found.paddles["own"] - own)) < 1
    assert np.nanmax(np.abs(found.paddles["opponent"] - opponent)) < 1


@pytest.mark.parametrize("noise", ["uniform", "extreme"])
def test_slight_noise_makes_no_balls_and_loses_none(play, noise):
    frames, _ = play
    generator = np.random.default_rng(0)
    choices = np.arange(-8, 9) if noise == "uniform" else np.array([-8, 8])
    noisy = np.clip(frames + generator.choice(choices, frames.shape), 0, 255).astype(np.uint8)
    clean, found = find_objects(frames, "Pong"), find_objects(noisy, "Pong")
    assert (found.num_balls == clean.num_balls).mean() >= 0.995
    assert found.num_balls[clean.num_balls == 0].max() == 0
    assert np.nanmax(np.abs(found.ball_yx - clean.ball_yx)) < 0.5


def test_a_slight_blur_makes_no_balls_and_loses_few(play):
    frames, _ = play
    blurred = np.array([cv2.GaussianBlur(frame, (0, 0), 0.6) for frame in frames])
    clean, found = find_objects(frames, "Pong"), find_objects(blurred, "Pong")
    assert found.num_balls[clean.num_balls == 0].max() == 0
    assert (found.num_balls == clean.num_balls).mean() >= 0.98


@pytest.mark.parametrize("top", [34, 35, 60, 101, 188, 190])
@pytest.mark.parametrize("left", [0, 13, 14, 16, 17, 19, 20, 77, 78, 138, 140, 141, 143, 144, 158])
def test_a_ball_is_found_wherever_it_is_also_over_a_paddle(draw, top, left):
    frame = draw((top, left), own=min(top, 178), opponent=min(top, 178))
    found = find_objects(frame[None], "Pong")
    assert found.num_balls.tolist() == [1]
    assert np.allclose(found.ball_yx, [[_row(top + 2), _column(left + 1)]], atol=0.5)


def test_an_empty_field_holds_nothing(draw):
    found = find_objects(draw()[None], "Pong")
    assert found.num_balls.tolist() == [0]
    assert not found.ball_seen.any()
    assert np.isnan(found.ball_yx).all()
    assert np.isnan([found.paddles["own"], found.paddles["opponent"]]).all()


def test_every_frames_balls_are_counted_on_their_own(draw):
    frames = [draw(), draw((40, 30), (100, 90)), draw((190, 30)), draw((34, 30))]
    assert find_objects(np.array(frames), "Pong").num_balls.tolist() == [0, 2, 1, 1]


def test_of_two_balls_the_larger_is_given(draw):
    frame = draw((40, 30), (100, 90), (104, 90))
    assert np.allclose(
        find_objects(frame[None], "Pong").ball_yx, [[_row(104), _column(91)]], atol=0.2
    )


def test_long_and_empty_clips_are_like_single_frames(draw):
    frames = np.array([draw((40, 30)), draw()] * 300)
    assert find_objects(frames, "Pong").num_balls.tolist() == [1, 0] * 300
    assert find_objects(frames[:0], "Pong").ball_yx.shape == (0, 2)


def test_frames_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"uint8 Pong frames \(N, 64, 64, 3\), got uint8 \(1, 84"):
        find_objects(np.zeros((1, 84, 84, 3), np.uint8), "Pong")


def test_the_objects_of_other_games_are_not_known():
    with pytest.raises(DataError, match=r"found in \['Breakout', 'Pong'\] alone, not in 'Boxing'"):
        find_objects(np.zeros((1, 64, 64, 3), np.uint8), "Boxing")
