import numpy as np
import pytest
import torch
from torch import nn

from genie_gym.errors import ConfigError
from genie_gym.evaluation.distances import distances, frechet_distance
from genie_gym.evaluation.rollout import Rollouts


def gaussian(seed, dim):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim))
    return rng.normal(size=dim), root @ root.T


def rollouts(real, imagined, context=0):
    """Return rollouts of plain frames: one grey level a window, frames (N, T) of 4 x 4 pixels."""
    nothing = np.zeros(np.shape(real))

    def paint(levels):
        return np.tile(np.uint8(levels)[..., None, None, None], (1, 1, 4, 4, 3))

    return Rollouts(
        starts=np.arange(len(nothing)),
        context=paint(np.full((len(nothing), 1), context)),
        actions=nothing.astype(np.int64),
        real=paint(real),
        imagined=paint(imagined),
        tokens=nothing.astype(np.int64)[..., None],
        rewards=nothing.astype(np.float32),
        terminations=nothing.astype(bool),
        reward_probs=nothing.astype(np.float32)[..., None],
        terminated_prob=nothing.astype(np.float32),
    )


def levels(rows, num_steps=16):
    return np.tile(np.array(rows)[:, None], (1, num_steps))


class FirstAndLast(nn.Module):
    """Grey levels of a clip's first and last frame, or of an image's first and last pixel."""

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:
        """Return (N, 2); the flags of the file convention must all be set, if one is."""
        assert return_features
        assert rescale == resize
        assert x.dtype == torch.uint8
        assert (x.dim() == 5) == rescale, "clips come with all flags"
        flat = x[:, 0].flatten(1).double()
        return torch.stack([flat[:, 0], flat[:, -1]], dim=1)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "network.pt"
    torch.jit.script(FirstAndLast()).save(path)
    return path


def test_in_one_dimension_it_is_the_distance_of_means_and_of_spreads():
    [m, n], [s, t] = (3.0, -1.0), (2.0, 0.5)
    found = frechet_distance(np.array([m]), np.array([[s**2]]), np.array([n]), np.array([[t**2]]))
    assert found == pytest.approx((m - n) ** 2 + (s - t) ** 2)


def test_diagonal_covariances_add_up_over_the_axes():
    s, t = np.array([1.0, 3.0, 0.0]), np.array([2.0, 0.5, 1.0])
    mean = np.zeros(3)
    found = frechet_distance(mean, np.diag(s**2), mean + 1, np.diag(t**2))
    assert found == pytest.approx(3 + ((s - t) ** 2).sum())


def test_a_gaussian_is_at_no_distance_from_itself():
    mean, covariance = gaussian(0, dim=6)
    assert frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-9)


def test_turning_both_gaussians_or_swapping_them_changes_nothing():
    (m, a), (n, b) = gaussian(1, dim=5), gaussian(2, dim=5)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))
    plain = frechet_distance(m, a, n, b)
    assert frechet_distance(n, b, m, a) == pytest.approx(plain)
    assert frechet_distance(turn @ m, turn @ a @ turn.T, turn @ n, turn @ b @ turn.T) == (
        pytest.approx(plain)
    )


def test_a_singular_covariance_gives_a_finite_distance():
    """Fewer clips than features are the rule: here a rank-one covariance against another."""
    one, other = np.outer([1.0, 0], [1.0, 0]), np.outer([0, 2.0], [0, 2.0])
    mean = np.zeros(2)
    assert frechet_distance(mean, one, mean, other) == pytest.approx(1 + 4)


def test_fvd_and_fid_of_a_torchscript_file_are_those_computed_by_hand(script):
    # Levels 0, 20 against 10, 30: means 10 apart on both features, spreads alike.
    found = distances(
        rollouts(levels([0, 20]), levels([10, 30]), context=10),
        frame_network=script,
        clip_network=script,
    )
    assert found["fvd"]["value"] == pytest.approx(200)
    assert (found["fvd"]["count"], found["fvd"]["features"]) == (2, 2)
    # The copy is level 10 throughout: the right mean, no spread. var(0, 20) = 200 a feature.
    assert found["fvd"]["copy"] == pytest.approx(400)
    assert found["fid"]["value"] == pytest.approx(200)
    assert found["fid"]["count"] == 32


def test_a_module_from_python_gets_the_frames_alone_and_time_runs_along_the_third_axis():
    class Module(nn.Module):
        def forward(self, clips):
            assert clips.shape[1:] == (3, 16, 4, 4)
            return clips[:, 0, :, 0, 0].double()

    moving = np.stack([np.arange(16), np.arange(16) + 2])
    found = distances(rollouts(moving, moving[:, ::-1]), clip_network=Module())["fvd"]
    assert found["value"] == pytest.approx(((np.arange(16) - np.arange(16)[::-1]) ** 2).sum())


def test_without_a_network_the_rows_say_what_to_pass():
    report = distances(rollouts(levels([0, 1]), levels([0, 1])))
    for name, example in {"fid": "Inception", "fvd": "I3D"}.items():
        assert report[name]["value"] is None
        assert "no feature network: pass one for" in report[name]["reason"]
        assert example in report[name]["reason"]


def test_rollouts_of_fewer_than_sixteen_steps_have_no_fvd(script):
    short = rollouts(levels([0, 1], 10), levels([0, 1], 10))
    found = distances(short, frame_network=script, clip_network=script)
    assert "only 10 steps were imagined" in found["fvd"]["reason"]
    assert found["fid"]["value"] == pytest.approx(0)


def test_a_single_window_has_no_covariance(script):
    found = distances(rollouts(levels([0]), levels([0])), clip_network=script)
    assert "needs two windows" in found["fvd"]["reason"]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (torch.zeros(2), r"must return \(N, features\) for N items, got \(2,\) for 2"),
        ([1, 2], r"got list for 2"),
        (torch.full((2, 3), torch.nan), "must return finite features"),
    ],
)
def test_a_network_of_another_shape_is_refused(output, text):
    class Module(nn.Module):
        def forward(self, clips):
            return output

    with pytest.raises(ConfigError, match=text):
        distances(rollouts(levels([0, 1]), levels([0, 1])), clip_network=Module())


def test_a_file_that_is_no_torchscript_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text("weights")
    with pytest.raises(ConfigError, match=r"is no TorchScript file.*torch\.jit\.script"):
        distances(rollouts(levels([0, 1]), levels([0, 1])), clip_network=path)


def test_a_file_that_takes_no_flags_is_refused(tmp_path):
    path = tmp_path / "plain.pt"
    torch.jit.script(nn.Flatten()).save(path)
    with pytest.raises(ConfigError, match=r"cannot be called as network.*Pass an nn\.Module"):
        distances(rollouts(levels([0, 1]), levels([0, 1])), frame_network=path)
