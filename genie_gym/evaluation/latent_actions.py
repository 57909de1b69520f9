"""What the latent actions mean: do the networks heed them, and how do they match the true ones?"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from genie_gym.data.batch import to_float
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report, estimate, ratio
from genie_gym.evaluation.paddle import STILL, commands, way_between, why_unseen
from genie_gym.evaluation.pixels import psnr
from genie_gym.evaluation.rollout import Heldout
from genie_gym.models.world import World

PREDICTED = 2000
"""Transitions, at most, whose next frame the latent action model draws."""
CLIPS_AT_ONCE = 256
LABELS = (10, 30, 100, 300, 1000, 3000, 10_000)
"""Numbers of labelled transitions that an action map is fitted to."""
DRAWS = 20
"""Random choices of the labelled transitions."""
MIN_JUDGED = 100
"""Transitions that must be left to judge a map on."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """N transitions of held-out play with their latent actions, and classes to compare them to."""

    starts: Int64[np.ndarray, " N"]
    """First row of the clip that the latent action model sees; its last step is the transition."""
    clip_length: int
    """Frames of that clip."""
    codes: Int64[np.ndarray, "N steps"]
    """Latent actions of the clips; the last is the transition's."""
    classes: dict[str, Int64[np.ndarray, " N"]]
    """By target. `action`: the true one, unless this is a video. Where the paddle can be seen also
    `move`, where it went, and `command`, where the action sends it; both one of `WAYS`."""


def infer_transitions(world: World, heldout: Heldout, config: EvaluationConfig) -> Transitions:
    """Draw transitions of held-out play and name their latent actions.

    Raises:
        DataError: no episode is long enough.
        WorldError: the world has no latent action model.
    """
    lam = world.config.lam
    length = max(lam.encoder.temporal_window, lam.decoder.temporal_window) + 2
    starts = heldout.windows.valid_starts(length)
    rng = np.random.default_rng(config.seed)
    starts = rng.choice(starts, min(config.num_transitions, len(starts)), replace=False)
    codes = [
        world.infer_latent_actions(_clips(world, heldout, part, length)).cpu().numpy()
        for part in _parts(starts)
    ]
    frames, now = heldout.rows.frames, starts + length - 2
    classes = {}
    if heldout.rows.actions is not None:
        classes["action"] = heldout.rows.actions[now].astype(np.int64)
    if why_unseen(world) is None:
        moves = [way_between(frames[part], frames[part + 1]) for part in _parts(now)]
        # A paddle that is not seen in both frames went nowhere that anybody saw.
        classes["move"] = np.nan_to_num(np.concatenate(moves), nan=STILL).astype(np.int64)
        if "action" in classes:
            classes["command"] = commands(world)[classes["action"]]
    return Transitions(starts, length, np.concatenate(codes), classes)


def heeding(
    world: World, heldout: Heldout, transitions: Transitions, config: EvaluationConfig
) -> Report:
    """Return how much the latent action model's next frame owes to the code.

    `code_gain` is the squared error with codes shuffled between transitions over the error with
    the inferred ones; `gain_over_copy` how many dB the next frame lies above a copy of the last
    one, on the pixels that change.
    """
    starts, codes = transitions.starts[:PREDICTED], transitions.codes[:PREDICTED]
    shuffled = codes[np.random.default_rng(config.seed).permutation(len(codes))]
    errors = []
    for part in _parts(np.arange(len(starts))):
        clips = _clips(world, heldout, starts[part], transitions.clip_length)
        past, target = to_float(clips[:, :-1]), to_float(clips[:, -1])
        guess = _predict(world, past, codes[part]), _predict(world, past, shuffled[part])
        squared = [(x - target).square() for x in (*guess, past[:, -1])]
        is_changed = (past[:, -1] != target).any(-1, keepdim=True)
        whole = [x.mean((1, 2, 3)) for x in squared]
        # A frame without a changed pixel gives NaN.
        where = [
            (x * is_changed).sum((1, 2, 3)) / (3 * is_changed.sum((1, 2, 3)))
            for x in (squared[0], squared[2])
        ]
        errors.append(torch.stack([*whole, *where]).double().cpu().numpy())
    mse, shuffled_mse, copy_mse, changed_mse, changed_copy = np.concatenate(errors, axis=1)
    does_change = ~np.isnan(changed_mse)
    changed, copied = psnr(changed_mse[does_change]), psnr(changed_copy[does_change])
    return {
        "mse": estimate(mse),
        "shuffled_mse": estimate(shuffled_mse),
        "copy_mse": estimate(copy_mse),
        "code_gain": ratio(shuffled_mse, mse),
        "psnr_changed": estimate(changed),
        "copy_psnr_changed": estimate(copied),
        "gain_over_copy": estimate(changed - copied),
    }


def code_use(codes: Int64[np.ndarray, " N"], num_codes: int) -> Report:
    """Return each code's share, the perplexity (number of codes in even use) and the dead ones."""
    usage = np.bincount(codes, minlength=num_codes) / len(codes)
    return {
        "usage": usage.tolist(),
        "perplexity": float(2 ** _entropy_bits(usage)),
        "dead": int((usage == 0).sum()),
    }


def correspondence(table: Int64[np.ndarray, "codes classes"]) -> Report:
    """Return how well codes and true classes match, from how often each pair occurs.

    `consistency` is the share of transitions whose class is the commonest one of their code, and
    `commonest` the share of the commonest class, which a single code for everything would score.
    The mutual information has Miller and Madow's correction of each entropy, (cells - 1) / (2 N)
    nats, so that classes drawn at random score about 0; it may come out slightly negative.

    Source:
        Miller 1955, "Note on the bias of information estimates".
    """
    total = table.sum()
    by_code, by_class = table.sum(axis=1), table.sum(axis=0)
    codes, classes, pairs = (_miller_madow_bits(counts) for counts in (by_code, by_class, table))
    share = float(table.max(axis=1).sum() / total)
    return {
        "consistency": share,
        "stderr": float((share * (1 - share) / total) ** 0.5),
        "commonest": float(by_class.max() / total),
        "mutual_information_bits": codes + classes - pairs,
        "entropy_bits": classes,
        "count": int(total),
    }


def majority_map(table: Int[np.ndarray, "codes classes"]) -> Int64[np.ndarray, " codes"]:
    """Return the commonest class of each code; of all labels together for a code without one."""
    is_labelled = table.sum(axis=1) > 0
    return np.asarray(
        np.where(is_labelled, table.argmax(axis=1), table.sum(axis=0).argmax()), np.int64
    )


def count_pairs(
    codes: Int64[np.ndarray, " N"], classes: Int64[np.ndarray, " N"], shape: tuple[int, int]
) -> Int64[np.ndarray, "codes classes"]:
    """Return how often each code meets each class."""
    counts = np.bincount(codes * shape[1] + classes, minlength=shape[0] * shape[1])
    return counts.reshape(shape)


def label_curve(
    codes: Int64[np.ndarray, " N"],
    classes: Int64[np.ndarray, " N"],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> dict[int, Report]:
    """Return, by number of labels, the accuracy of the map fitted to them on all other transitions.

    Mean and standard error over 20 draws of the labels. Numbers of labels that the recording does
    not have, with 100 transitions to spare, are left out.
    """
    whole = count_pairs(codes, classes, shape)
    curve = {}
    for num_labels in LABELS:
        if num_labels + MIN_JUDGED > len(codes):
            break
        accuracies = []
        for _ in range(DRAWS):
            chosen = rng.choice(len(codes), num_labels, replace=False)
            labelled = count_pairs(codes[chosen], classes[chosen], shape)
            rest = whole - labelled
            accuracies.append(rest[np.arange(shape[0]), majority_map(labelled)].sum() / rest.sum())
        curve[num_labels] = estimate(np.array(accuracies))
    return curve


def _parts(rows: Int64[np.ndarray, " N"]) -> list[Int64[np.ndarray, " part"]]:
    return np.array_split(rows, -(-len(rows) // CLIPS_AT_ONCE))


def _clips(
    world: World, heldout: Heldout, starts: Int64[np.ndarray, " B"], length: int
) -> UInt8[Tensor, "B T H W C"]:
    return torch.from_numpy(heldout.windows.clip(starts, length).frames).to(world.device)


@torch.inference_mode()
def _predict(
    world: World, past: Float[Tensor, "B T H W C"], codes: Int64[np.ndarray, "B T"]
) -> Float[Tensor, "B H W C"]:
    frames = world.stack.lam.predict(past, torch.from_numpy(codes).to(world.device))
    return frames[:, -1]


def _entropy_bits(shares: Float[np.ndarray, "*shape"]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log2(positive)).sum())


def _miller_madow_bits(counts: Int[np.ndarray, "*shape"]) -> float:
    total = counts.sum()
    correction = (np.count_nonzero(counts) - 1) / (2 * total)
    return _entropy_bits(counts / total) + float(correction / np.log(2))
