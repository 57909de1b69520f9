import cv2
import numpy as np
import pytest

from collectors.breakout_player import BreakoutPlayer
from genie_gym.envs.real import RealEnv
from genie_gym.evaluation.objects import find_objects

NUM_STEPS = 400
PADDLE_X, BALL_X, BALL_Y = 72, 99, 101  # addresses in the emulator's RAM
RED = (200, 72, 72)
BRICKS = (RED, (198, 108, 58), (180, 122, 48), (162, 162, 42), (72, 160, 72), (66, 72, 200))


def draw(*balls, paddle=None, missing=()):
    """Draw the field small; balls are given by raw top and left, bricks by row and column."""
    raw = np.zeros((210, 160, 3), np.uint8)
    raw[17:189] = 142
    raw[32:189, 8:152] = 0
    raw[189:196, :8], raw[189:195, 152:] = (66, 158, 130), RED
    for row, colour in enumerate(BRICKS):
        raw[57 + 6 * row : 63 + 6 * row, 8:152] = colour
    for row, column in missing:
        raw[57 + 6 * row : 63 + 6 * row, 8 + 8 * column : 16 + 8 * column] = 0
    for top, left in balls:
        for y in range(top, top + 4):
            raw[y, left : left + 2] = BRICKS[(y - 57) // 6] if 57 <= y < 93 else RED
    if paddle is not None:
        raw[189:193, paddle : min(paddle + 16, 152)] = RED
    return cv2.resize(raw, (64, 64), interpolation=cv2.INTER_AREA)


def _row(raw_y):
    return raw_y * 64 / 210 - 0.5


def _column(raw_x):
    return raw_x * 64 / 160 - 0.5


def find(*frames):
    return find_objects(np.array(frames), "Breakout")


@pytest.fixture(scope="module")
def play(step_with_ram):
    """400 steps of scripted play: frames, and the RAM behind each of the two raw frames merged."""
    env, player = RealEnv("Breakout"), BreakoutPlayer()
    obs, _ = env.reset(seed=5)
    player.reset(np.random.default_rng(5))
    frames, rams = [], []
    for _ in range(NUM_STEPS):
        action = player.act(obs)
        obs, ram = step_with_ram(env, action)
        frames.append(obs)
        rams.append(ram)
    env.close()
    return np.array(frames), np.array(rams).astype(float)


def is_drawn(rams):
    return (rams[:, :, BALL_Y] > 0) & (rams[:, :, BALL_Y] + 9 < 195)


def test_a_ball_is_seen_when_the_emulator_draws_one(play):
    frames, rams = play
    top = rams[:, :, BALL_Y] + 9
    drawn = is_drawn(rams)
    found = find_objects(frames, "Breakout")
    assert not found.ball_seen[~drawn.any(1)].any()
    assert 1 < (~drawn.any(1)).sum() < NUM_STEPS / 2  # both cases are tested
    is_clear = (drawn & (top >= 93) & (top + 4 < 187)).all(1)
    assert is_clear.sum() > NUM_STEPS / 2
    assert found.ball_seen[is_clear].all()
    assert found.num_balls.max() == 1


def test_ball_and_paddle_are_within_a_pixel_of_the_emulators(play):
    frames, rams = play
    found = find_objects(frames, "Breakout")
    # The ball's two raw columns start at RAM - 49, its four raw rows at RAM + 9.
    row = _row(rams[:, :, BALL_Y].mean(1) + 9 + 2)
    column = _column(rams[:, :, BALL_X].mean(1) - 49 + 1)
    error = np.abs(found.ball_yx - np.stack([row, column], 1))
    error = error[found.ball_seen & is_drawn(rams).all(1)]
    assert error.max() < 1
    assert np.median(error) < 0.1
    # The paddle's 16 columns start at RAM - 47; two raw frames are merged, the wall hides the rest.
    left = np.clip(rams[:, :, PADDLE_X] - 47, 8, 152).min(1)
    right = np.clip(rams[:, :, PADDLE_X] - 31, 8, 152).max(1)
    error = np.abs(found.paddles["own"] - _column((left + right) / 2))
    assert np.percentile(error, 98) < 0.2 and error.max() < 2


@pytest.mark.parametrize("noise", ["uniform", "extreme"])
def test_slight_noise_makes_no_balls_and_loses_few(play, noise):
    frames, rams = play
    generator = np.random.default_rng(0)
    choices = np.arange(-8, 9) if noise == "uniform" else np.array([-8, 8])
    noisy = np.clip(frames + generator.choice(choices, frames.shape), 0, 255).astype(np.uint8)
    clean, found = find_objects(frames, "Breakout"), find_objects(noisy, "Breakout")
    assert found.num_balls.max() == 1
    assert not found.ball_seen[~is_drawn(rams).any(1)].any()
    assert (found.num_balls == clean.num_balls).mean() >= 0.985
    assert np.nanmax(np.abs(found.ball_yx - clean.ball_yx)) < 0.5


@pytest.mark.parametrize("top", [33, 50, 94, 130, 180, 184])
@pytest.mark.parametrize("left", [8, 9, 63, 64, 149, 150])
def test_a_ball_is_found_wherever_it_is_also_above_the_paddle(top, left):
    found = find(draw((top, left), paddle=min(left, 136)))
    assert found.num_balls.tolist() == [1]
    assert np.allclose(found.ball_yx, [[_row(top + 2), _column(left + 1)]], atol=0.6)


def test_a_ball_where_a_brick_is_gone_is_found_in_the_colour_of_its_row():
    gap = [(row, column) for row in range(6) for column in (7, 8)]
    for top in (58, 64, 70, 76, 82, 88):
        found = find(draw((top, 71), missing=gap))
        assert found.num_balls.tolist() == [1]
        assert np.allclose(found.ball_yx, [[_row(top + 2), _column(72)]], atol=0.6)


def test_bricks_alone_are_no_balls_whichever_are_gone():
    cells = [(row, column) for row in range(6) for column in range(18)]
    rng = np.random.default_rng(0)
    for count in (0, 1, 30, 80, 107, 108):
        some = [cells[index] for index in rng.permutation(len(cells))[:count]]
        assert find(draw(paddle=70, missing=some)).num_balls.tolist() == [0]


@pytest.mark.parametrize("left", [8, 55, 100, 136, 143])
def test_the_paddle_is_found_up_to_the_walls_with_or_without_a_ball_beside_it(left):
    right = min(left + 16, 152)
    beside = (189, left - 20 if left > 80 else right + 20)
    found = find(draw(paddle=left), draw(beside, paddle=left), draw())
    middle = _column((left + right) / 2)
    assert np.allclose(found.paddles["own"], [middle, middle, np.nan], atol=0.2, equal_nan=True)
    assert found.num_balls.tolist() == [0, 1, 0]


def test_two_balls_are_counted():
    assert find(draw((120, 30), (150, 90)), draw((120, 30))).num_balls.tolist() == [2, 1]
