from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from collectors import record
from genie_gym.evaluation.pictures import (
    choose_windows,
    expected_rewards,
    film_frames,
    last_frame_mse,
    write_film,
    write_pictures,
)
from genie_gym.evaluation.rollout import Rollouts, open_heldout, roll_out
from genie_gym.models.world import World

ENLARGED = 3  # 64 pixels to at least 160
GAP, STRIP = 6, 20


@pytest.fixture(scope="module")
def heldout(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heldout")
    record("Pong", folder, steps=60, seed=1, policy="random", progress=False)
    return open_heldout(world, folder)


def rollouts_with_errors(*levels):
    """Return black play of two steps in which the world's last frames are grey to these levels."""
    count = len(levels)
    black = np.zeros((count, 2, 64, 64, 3), np.uint8)
    imagined = black.copy()
    imagined[:, 1] = np.array(levels, np.uint8)[:, None, None, None]
    return Rollouts(
        starts=np.arange(count),
        context=black[:, :1],
        actions=np.tile([2, 0], (count, 1)),
        real=black,
        imagined=imagined,
        tokens=np.zeros((count, 2, 16), np.int64),
        rewards=np.tile(np.array([0, 1], np.float32), (count, 1)),
        terminations=np.tile([False, True], (count, 1)),
        reward_probs=np.tile(np.array([0.5, 0.25, 0.25], np.float32), (count, 2, 1)),
        terminated_prob=np.full((count, 2), 0.125, np.float32),
    )


def test_the_error_is_that_of_the_last_frame_alone():
    errors = last_frame_mse(rollouts_with_errors(0, 51, 255))
    np.testing.assert_allclose(errors, [0, 0.04, 1])


def test_windows_are_chosen_by_the_rule():
    chosen = choose_windows(rollouts_with_errors(30, 20, 50, 10, 40))
    assert chosen == {"first": 0, "best": 3, "worst": 2}  # the median is the first one
    chosen = choose_windows(rollouts_with_errors(50, 20, 30, 10, 40))
    assert chosen == {"first": 0, "best": 3, "median": 2}
    assert choose_windows(rollouts_with_errors(7)) == {"first": 0}


def test_the_expected_reward_is_the_mean_of_the_classes(world):
    np.testing.assert_allclose(expected_rewards(world, rollouts_with_errors(0)), [[-0.25, -0.25]])


def test_a_film_shows_real_imagined_and_difference_above_captions(world):
    rollouts = rollouts_with_errors(100)
    rollouts.real[0, 1, :32] = 220
    frames = film_frames(world, rollouts, 0)
    side = 64 * ENLARGED
    assert frames.shape == (2, side + STRIP, 3 * side + 2 * GAP, 3)
    columns = [frames[:, :side, k * (side + GAP) :][:, :, :side] for k in range(3)]
    real, imagined, difference = columns
    assert (real[1, : side // 2] == 220).all() and (real[1, side // 2 :] == 0).all()
    assert (imagined[0] == 0).all() and (imagined[1] == 100).all()
    assert (difference[1, : side // 2] == 120).all() and (difference[1, side // 2 :] == 100).all()
    for k in range(3):  # something is printed below each
        assert frames[0, side:, k * (side + GAP) :][:, :side].any()


def test_captions_tell_action_reward_and_end(world):
    rollouts = rollouts_with_errors(0)
    other = replace(rollouts, rewards=rollouts.rewards * 0)
    side = 64 * ENLARGED
    one, two = (film_frames(world, some, 0)[:, side:, :side] for some in (rollouts, other))
    assert (one[0] == two[0]).all() and not (one[1] == two[1]).all()


def test_a_film_has_a_frame_for_every_step_in_a_codec_that_browsers_play(world, tmp_path):
    film = write_film(world, rollouts_with_errors(9, 0), 0, "first", tmp_path)
    with av.open(str(film.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in container.decode(stream)) == 2
    assert film.last_frame.shape == (64 * ENLARGED + STRIP, 3 * 64 * ENLARGED + 2 * GAP, 3)
    assert "2 imagined steps from row 0" in film.text and "0.0012" in film.text


def test_all_pictures_of_a_world(world, heldout, tmp_path):
    rollouts = roll_out(world, heldout, np.array([5, 20]), context_length=4, horizon=3)
    pictures = write_pictures(world, heldout, rollouts, tmp_path)
    assert [picture.path.name for picture in pictures[-2:]] == [
        "attention.png",
        "latent-actions.png",
    ]
    assert {picture.path for picture in pictures} == set(tmp_path.iterdir())
    # Steps 1 and 2 fit into the horizon; with the start, three rows of four codes.
    with Image.open(tmp_path / "latent-actions.png") as panels:
        assert panels.size == (4 * (128 + 4) + 4, 3 * (128 + 14 + 4) + 4)


def test_without_latent_actions_there_is_the_reason(world, heldout, tmp_path):
    parts = world.parts - {"lam"}
    plain = World(world.stack, world.starts, parts=parts, card=world.card)
    rollouts = roll_out(plain, heldout, np.array([5]), context_length=4, horizon=1)
    *_, last = write_pictures(plain, heldout, rollouts, tmp_path)
    assert last.path is None
    assert last.text.endswith("Train it: genie-gym train --stage lam")
