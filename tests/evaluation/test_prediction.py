from dataclasses import replace

import numpy as np
import pytest
import torch

from genie_gym.data.batch import to_float
from genie_gym.evaluation.prediction import divide, prediction
from genie_gym.evaluation.reward_figures import STEP_FIELDS
from genie_gym.evaluation.rollout import open_heldout, roll_out


@pytest.fixture(scope="module")
def rollouts(world, pipeline):
    """Six rollouts of five steps from the middle of play."""
    heldout = open_heldout(world, pipeline.recording)
    return roll_out(world, heldout, 100 + 60 * np.arange(6), context_length=3, horizon=5)


def encode(world, frames):
    with torch.inference_mode():
        return world.stack.tokenizer.encode(to_float(torch.from_numpy(frames))).numpy()


def test_a_world_that_knows_the_future_makes_no_error(world, rollouts):
    tokens = encode(world, np.concatenate([rollouts.context, rollouts.real], axis=1))[:, 3:]
    report = prediction(world, [replace(rollouts, imagined=rollouts.real, tokens=tokens)])
    assert list(report["by_step"]) == [1, 2, 5]
    for figures in report["by_step"].values():
        assert figures["scored"] == 6
        for name, best in {"psnr": 100, "psnr_changed": 100, "ssim": 1, "skill": 1}.items():
            assert figures[name] == pytest.approx({"mean": best, "p10": best, "p90": best})
        assert figures["token_accuracy_changed"]["mean"] == 1
        assert figures["copy_psnr"]["mean"] < 60


def test_a_world_that_copies_scores_what_copying_scores(world, rollouts):
    last = np.repeat(rollouts.context[:, -1:], 5, axis=1)
    tokens = np.repeat(encode(world, rollouts.context)[:, -1:], 5, axis=1)
    report = prediction(world, [replace(rollouts, imagined=last, tokens=tokens)])
    for figures in report["by_step"].values():
        for name in ("psnr", "ssim", "psnr_changed"):
            assert figures[name] == figures[f"copy_{name}"]
        assert figures["skill"] == pytest.approx({"mean": 0, "p10": 0, "p90": 0})
        assert figures["token_accuracy_changed"]["mean"] == 0


def test_the_mean_skill_is_of_the_pooled_errors(world, rollouts):
    """Copying errs by 2 levels and by 20 on one pixel, the world by 4 and by 0."""
    real = np.repeat(rollouts.context[:, -1:], 5, axis=1)
    some = replace(
        rollouts, context=rollouts.context.copy(), real=real.copy(), imagined=real.copy()
    )
    some.context[:, :, 0, 0], some.real[:, :, 0, 0], some.imagined[:, :, 0, 0] = 100, 100, 100
    some.real[0, 0, 0, 0], some.imagined[0, 0, 0, 0] = 102, 106
    some.real[1, 0, 0, 0], some.imagined[1, 0, 0, 0] = 120, 120
    skill = prediction(world, [some])["by_step"][1]["skill"]
    assert skill["mean"] == pytest.approx(1 - 16 / 404)
    assert skill["p10"] == pytest.approx(-3 + 0.1 * 4)


def test_where_nothing_changes_there_is_no_skill_and_a_reason(world, rollouts):
    still = np.repeat(rollouts.context[:, -1:], 5, axis=1)
    some = replace(rollouts, context=still[:, :3], real=still)
    figures = prediction(world, [some])["by_step"][5]
    for name in ("psnr_changed", "skill", "token_accuracy_changed"):
        assert figures[name]["mean"] is None
        assert figures[name]["reason"] == "nothing changed after the last real frame"


def test_a_step_is_measured_on_the_shortest_rollouts_that_reach_it(rollouts):
    further = replace(
        rollouts, **{name: np.repeat(getattr(rollouts, name), 5, axis=1) for name in STEP_FIELDS}
    )
    (_, near), (_, far) = divide([rollouts, further])
    assert (near, far) == ([1, 2, 5], [10, 20, 25])
