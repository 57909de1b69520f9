import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from collectors import record
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import ConfigError, DataError
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.heldout import draw_rollouts, evaluate
from genie_gym.evaluation.object_figures import shows_ball
from genie_gym.evaluation.rollout import open_heldout
from genie_gym.models.world import World

SMALL = EvaluationConfig(
    num_windows=3,
    context_length=3,
    horizon=2,
    far_windows=1,
    far_horizon=5,
    long_windows=1,
    long_horizon=10,
    num_events=2,
    forced_windows=2,
    num_frames=20,
    num_maskgit_steps=1,
)


COLUMNS = ("episode_ids", "actions", "rewards", "terminations", "truncations")


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    folder = tmp_path_factory.mktemp("play")
    record("Pong", folder, steps=120, seed=1, policy="random", progress=False)
    return folder


@pytest.fixture(scope="module")
def heldout(world, pipeline):
    return open_heldout(world, pipeline.recording)


@pytest.fixture(scope="module")
def report(world, play):
    return evaluate(world, play, SMALL)


def test_the_report_has_every_section_and_no_nan(report, play):
    sections = "data config rollouts reconstruction control prediction objects rewards distances"
    assert list(report) == [*sections.split(), "bars"]
    assert report["data"] == {"recording": play.name, "frames": 121, "episodes": 1}
    assert report["config"]["num_windows"] == 3
    assert report["rollouts"]["near"]["windows"] >= 3
    assert list(report["prediction"]["by_step"]) == [1, 2, 5]
    assert list(report["objects"]["by_step"]) == [1, 2, 5]
    assert list(report["rewards"]["by_step"]) == [1, 2]
    assert report["objects"]["long"]["steps"] == 10
    json.dumps(report, allow_nan=False)


def test_shares_lie_between_0_and_1(report):
    for figures in report["objects"]["by_step"].values():
        for name in ("ball_within_2px", "ball_lost", "ball_doubled", "own_paddle_within_2px"):
            assert figures[name] is None or 0 <= figures[name] <= 1
    for part in (report["rewards"]["teacher_forced"], *report["rewards"]["by_step"].values()):
        assert 0 <= part["-1"]["recall"] <= 1
        assert 0 <= part["calibration"]["expected_calibration_error"] <= 1


def test_one_seed_gives_one_report(world, play, report):
    assert evaluate(world, play, SMALL) == report


def test_rollouts_too_long_for_the_recording_say_so(world, play):
    config = replace(SMALL, far_horizon=200, long_horizon=300, num_events=1, forced_windows=0)
    report = evaluate(world, play, config)
    assert list(report["prediction"]["by_step"]) == [1, 2]
    for name, length in {"far": 203, "long": 303}.items():
        size = report["rollouts"][name]
        assert size["windows"] == 0
        assert f"windows of {length} frames do not fit" in size["reason"]
    assert "windows of 303 frames do not fit" in report["objects"]["long"]["reason"]
    last_rows = {row["figure"]: row for row in report["bars"]}
    assert "303 frames" in last_rows["frames of long rollouts that are still Pong"]["reason"]


def test_windows_are_drawn_until_enough_show_the_ball(world, heldout):
    rollouts = draw_rollouts(world, heldout, 4, 2, replace(SMALL, context_length=5))
    shown = shows_ball(rollouts.context, "Pong")
    assert shown.sum() == 4 and shown[-1]
    assert not shown.all()  # contexts without a ball are play, too


def test_a_recording_without_a_ball_is_refused(world, heldout):
    empty = np.full((8, 64, 64, 3), (144, 72, 17), np.uint8)
    columns = {name: getattr(heldout.rows, name)[:8] for name in COLUMNS}
    rows = replace(heldout.rows, frames=empty, **columns)
    blind = replace(heldout, rows=rows, windows=EpisodeWindows(rows))
    with pytest.raises(DataError, match=r"no window of 5 frames shows the ball\. Record longer"):
        draw_rollouts(world, blind, 3, 2, SMALL)


def test_a_recording_that_is_too_short_is_refused(world, play):
    with pytest.raises(DataError, match="windows of 203 frames do not fit"):
        evaluate(world, play, replace(SMALL, horizon=200))


def test_play_of_another_game_is_refused(world, tmp_path):
    record("Breakout", tmp_path, steps=10, seed=1, policy="random", progress=False)
    with pytest.raises(DataError, match="recorded in 'ALE/Breakout-v5', but the world imagines"):
        evaluate(world, tmp_path, SMALL)


def test_play_of_another_size_is_refused(world, tmp_path):
    record("Pong", tmp_path, steps=10, policy="random", frame_size=48, progress=False)
    with pytest.raises(DataError, match=r"cannot enter it\. Record with --frame-size 64"):
        evaluate(world, tmp_path, SMALL)


def test_actions_that_the_world_does_not_have_are_refused(world, play, tmp_path):
    strange = without(play, tmp_path / "strange.h5")
    with h5py.File(strange, "r+") as file:
        file["actions"][7] = 17
    with pytest.raises(DataError, match=r"holds actions that are none of the world's 6"):
        open_heldout(world, strange)


def without(play, target, *keys):
    """Copy a recording without some of its columns."""
    [shard] = play.glob("*.h5")
    copied = shutil.copy(shard, target)
    with h5py.File(copied, "r+") as file:
        for key in keys:
            del file[key]
    return copied


def test_of_a_video_all_is_measured_that_needs_no_actions(world, play, report, tmp_path):
    video = without(play, tmp_path / "video.h5", "actions", "rewards", *COLUMNS[3:])
    found = evaluate(world, video, SMALL, out=tmp_path / "report")
    assert found["reconstruction"] == report["reconstruction"]
    latent, same = found["control"]["latent_actions"], report["control"]["latent_actions"]
    for name in ("usage", "perplexity", "dead", "code_gain", "gain_over_copy"):
        assert latent[name] == same[name]
    assert latent["against_truth"]["move"] == same["against_truth"]["move"]
    assert found["control"]["delta_psnr"]["latent"] == report["control"]["delta_psnr"]["latent"]

    reason = "video.h5 is a video: it does not say which actions were taken"
    for name in ("prediction", "objects", "rewards", "distances"):
        assert found[name] == {"reason": reason}
    assert {size["reason"] for size in found["rollouts"].values()} == {reason}
    control = found["control"]
    missing = {"value": None, "reason": reason}
    assert control["delta_psnr"]["real"] == control["paddle_obeys"] == missing
    assert latent["latent_mode"] == latent["against_truth"]["action"] == missing
    bars = {row["figure"]: row for row in found["bars"]}
    assert bars["ball within 2 px at step 20"]["reason"] == reason
    assert reason in (tmp_path / "report" / "report.html").read_text()
    json.dumps(found, allow_nan=False)


def test_without_rewards_the_rest_is_measured(world, play, report, tmp_path):
    silent = without(play, tmp_path / "silent.h5", "rewards")
    found = evaluate(world, silent, SMALL, out=tmp_path / "report")
    assert found["rewards"] == {"reason": "silent.h5 has no rewards"}
    for name in ("reconstruction", "prediction", "control", "distances", "rollouts"):
        assert found[name] == report[name]
    assert found["objects"]["by_step"] == report["objects"]["by_step"]
    assert found["objects"]["long"]["real_still_pong"] is None


def test_without_rewards_and_ends_both_are_named(world, play, tmp_path):
    silent = without(play, tmp_path / "silent.h5", "rewards", "terminations", "truncations")
    reason = "silent.h5 has no rewards and no terminations"
    assert open_heldout(world, silent).why_no_rewards == reason


def test_a_world_without_a_reward_model_is_judged_on_the_rest(world, play, report):
    parts = frozenset({"tokenizer", "lam", "dynamics"})
    some = World(world.stack, world.starts, parts=parts, card=world.card)
    found = evaluate(some, play, SMALL)
    assert found["reconstruction"] == report["reconstruction"]
    assert "no trained ['reward']" in found["prediction"]["reason"]


def test_an_empty_set_is_refused(world, play, tmp_path):
    empty = without(play, tmp_path / "empty.h5", "frames")
    with h5py.File(empty, "r+") as file:
        file.create_dataset("frames", (0, 64, 64, 3), np.uint8)
    with pytest.raises(DataError, match="and at least one"):
        evaluate(world, empty, SMALL)
    video = tmp_path / "video.h5"
    with h5py.File(video, "w") as file:
        file["frames"] = np.zeros((0, 64, 64, 3), np.uint8)
    with pytest.raises(DataError, match=r"frames must be .* got uint8 \(0, 64, 64, 3\)"):
        evaluate(world, video, SMALL)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no closed shard"):
        evaluate(world, tmp_path / "folder", SMALL)


@pytest.mark.parametrize("name", ["num_windows", "context_length", "horizon", "num_frames"])
def test_a_measurement_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        replace(SMALL, **{name: 0})


def test_less_than_no_long_rollouts_are_refused():
    with pytest.raises(ConfigError, match="long_windows must be at least 0, got -1"):
        replace(SMALL, long_windows=-1)
