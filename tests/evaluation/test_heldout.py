from dataclasses import replace

import numpy as np
import pytest
import torch

from collectors import record
from genie_gym.data.hdf5 import Recording, Rows
from genie_gym.errors import ConfigError, DataError, WorldError
from genie_gym.evaluation.heldout import (
    EvaluationConfig,
    evaluate,
    events,
    imagine,
    latent_actions,
    reconstruction,
    rollouts,
)
from genie_gym.evaluation.objects import find_objects
from genie_gym.models.world import World

SMALL = EvaluationConfig(
    num_windows=4, context_length=3, horizon=2, num_frames=20, num_maskgit_steps=1
)


@pytest.fixture(scope="module")
def rows(pipeline):
    return Recording.open(pipeline.recording).load()


@pytest.fixture(scope="module")
def rally(rows):
    """Find a row from which the ball is seen for 20 frames and no point is made."""
    seen = find_objects(rows.frames[:900]).ball_seen & (rows.rewards[:900] == 0)
    runs = np.convolve(seen, np.ones(20), mode="valid") == 20
    return int(runs.argmax())


def cut(rows, start, length, rewarded=None):
    """Return an episode of its own, cut from real rows; one of its actions may earn a point."""
    part = slice(start, start + length)
    rewards = np.zeros(length, np.float32)
    if rewarded is not None:
        rewards[rewarded] = -1
    actions = rows.actions[part].copy()
    actions[-1] = -1
    return rows.frames[part], actions, rewards


def join(episodes):
    frames, actions, rewards = (np.concatenate(parts) for parts in zip(*episodes, strict=True))
    ids = np.repeat(np.arange(len(episodes)), [len(episode[0]) for episode in episodes])
    nothing = np.zeros(len(frames), bool)
    return Rows(
        frames=frames,
        actions=actions,
        rewards=rewards,
        terminations=nothing,
        truncations=nothing,
        episode_ids=ids,
    )


class CopyWorld(World):
    """Shows the last real frame for ever."""

    def encode(self, frames, actions, source="real"):
        """Remember the newest frames."""
        self.shown = frames[:, -1]
        return super().encode(frames, actions, source)

    def decode(self, state):
        """Return them."""
        return self.shown


class OracleWorld(CopyWorld):
    """Knows the clips it will be asked about, and shows their next frame."""

    def know(self, clips):
        """Take clips and the number of real frames before the first imagined one."""
        self.clips = clips

    def encode(self, frames, actions, source="real"):
        """Count from the end of the context on."""
        self.place = frames.shape[1] - 1
        return super().encode(frames, actions, source)

    def decode(self, state):
        """Return the true frame."""
        self.place += 1
        return self.clips[:, self.place]


def same_parts(kind, world):
    return kind(world.stack, world.starts, parts=world.parts, card=world.card)


def test_the_report_has_every_figure_in_its_range(world, tmp_path):
    record("Pong", tmp_path, steps=120, seed=1, policy="random", progress=False)
    report = evaluate(world, tmp_path, SMALL)
    assert set(report) == {"data", "reconstruction", "rollout", "events", "latent_actions"}
    assert report["data"] == {"recording": tmp_path.name, "frames": 121, "episodes": 1}
    assert report["rollout"]["windows"] == 4
    assert list(report["rollout"]["by_step"]) == [1, 2]
    for figures in report["rollout"]["by_step"].values():
        assert 0 <= figures["scored"] <= 4
        for name in ("ball_within_2px", "ball_lost", "ball_doubled", "own_paddle_within_2px"):
            assert figures[name] is None or 0 <= figures[name] <= 1
        assert 0 < figures["psnr"] <= 100
    assert report["events"]["reward_-1"]["events"] > 0
    assert 0 <= report["events"]["reward_-1"]["recall"] <= 1
    assert abs(report["events"]["quiet"]["bias"]) <= 1
    assert sum(report["latent_actions"]["usage"]) == pytest.approx(1)


def test_the_reconstruction_error_is_that_of_the_tokenizer_frame_by_frame(world, rows):
    some = join([cut(rows, 0, 40)])
    report = reconstruction(world, some, replace(SMALL, num_frames=40))
    single = torch.from_numpy(some.frames).float()[:, None] / 255
    tokenizer = world.stack.tokenizer
    with torch.inference_mode():
        rebuilt = tokenizer.decode(tokenizer.encode(single))
    rebuilt = (rebuilt * 255).round() / 255
    assert report["mse"] == pytest.approx((rebuilt - single).square().mean().item(), rel=1e-4)
    assert report["frames"] == 40
    assert report["frames_with_ball"] == find_objects(some.frames).ball_seen.sum()


def test_a_world_that_shows_what_it_saw_rebuilds_it_exactly(world, rows):
    report = reconstruction(same_parts(CopyWorld, world), rows, replace(SMALL, num_frames=50))
    assert (report["mse"], report["ball_within_1px"], report["ball_false"]) == (0, 1, 0)


def test_a_world_that_copies_scores_what_copying_scores(world, rows):
    config = replace(SMALL, num_windows=6)
    report = rollouts(same_parts(CopyWorld, world), rows, config)
    for figures in report["by_step"].values():
        assert figures["psnr"] == figures["copy_psnr"] < 100


def test_a_world_that_knows_the_future_makes_no_error(world, rows, rally):
    length = SMALL.context_length + 5
    known = join([cut(rows, rally, length)])
    oracle = same_parts(OracleWorld, world)
    oracle.know(torch.from_numpy(known.frames)[None])
    report = rollouts(oracle, known, replace(SMALL, horizon=5))
    assert report["windows"] == 1
    for figures in report["by_step"].values():
        assert figures["psnr"] == pytest.approx(100)
        assert figures["ball_median_error"] == 0
        assert (figures["ball_within_2px"], figures["ball_lost"]) == (1, 0)


def test_windows_with_a_point_before_the_scored_step_are_not_scored(world, rows, rally):
    context, horizon = 5, 5
    # The action at row context - 1 leads to the first imagined frame.
    rewarded = [None, context - 2, context - 1, context, context + 3]
    episodes = [cut(rows, rally, context + horizon, row) for row in rewarded]
    config = replace(SMALL, context_length=context, horizon=horizon, num_windows=5)
    report = rollouts(world, join(episodes), config)
    assert report["windows"] == 5
    scored = {step: figures["scored"] for step, figures in report["by_step"].items()}
    # A point inside the context does not count; the others drop out at steps 1, 2 and 5.
    assert scored == {1: 4, 2: 3, 5: 2}


def test_a_step_at_which_nothing_is_scored_has_no_figures(world, rows, rally):
    config = replace(SMALL, context_length=4, horizon=2)
    known = join([cut(rows, rally, 6, rewarded=3)])
    report = rollouts(world, known, config)
    assert report["by_step"][1] == {"scored": 0, "psnr": None, "copy_psnr": None}


def test_a_recording_without_a_ball_is_refused(world, rows):
    empty = (np.full((8, 64, 64, 3), (144, 72, 17), np.uint8), np.zeros(8, np.int16))
    known = join([(*empty, np.zeros(8, np.float32))])
    with pytest.raises(DataError, match=r"no window of 5 frames shows the ball\. Record longer"):
        rollouts(world, known, SMALL)


def test_a_recording_that_is_too_short_is_refused(world, rows, rally):
    with pytest.raises(DataError, match="windows of 5 frames do not fit"):
        rollouts(world, join([cut(rows, rally, 4)]), SMALL)


def test_imagined_frames_follow_the_recorded_actions_and_the_seed(world, rows):
    frames = rows.frames[None, :5]
    actions = rows.actions[None, :4].astype(np.int64)
    first, second = (imagine(world, frames, actions, SMALL) for _ in range(2))
    assert first.shape == (1, 2, 64, 64, 3)
    np.testing.assert_array_equal(first, second)


def test_a_step_is_predicted_from_the_frames_of_its_own_episode(world, rows, rally):
    """Two recordings that differ only in an earlier episode give the same figures."""
    config = replace(SMALL, temperature=0.0)
    last = cut(rows, rally, 6, rewarded=2)
    reports = [
        events(world, join([cut(rows, start, 3), last]), config)["reward_-1"]
        for start in (0, rally + 5)
    ]
    assert reports[0] == reports[1]
    assert reports[0]["events"] == 1


def test_the_last_row_of_an_episode_is_no_step(world, rows, rally):
    known = join([cut(rows, rally, 3), cut(rows, rally, 4)])
    report = events(world, known, SMALL)
    assert report["quiet"]["steps"] == 2 + 3
    assert report["reward_+1"] == {"events": 0}


def test_the_code_gain_is_the_ratio_of_the_two_errors(world, rows):
    report = latent_actions(world, rows, SMALL)
    assert report["code_gain"] == pytest.approx(report["shuffled_mse"] / report["mse"])
    assert len(report["usage"]) == world.num_latent_actions


def test_frames_of_another_size_are_refused(world, rows):
    small = replace(rows, frames=rows.frames[:, ::2, ::2].copy())
    with pytest.raises(WorldError, match="Resize them to the world's size"):
        reconstruction(world, small, SMALL)


@pytest.mark.parametrize("name", ["num_windows", "context_length", "horizon", "num_frames"])
def test_a_measurement_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        replace(SMALL, **{name: 0})
