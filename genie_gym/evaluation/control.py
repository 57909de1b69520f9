"""Control: does what is played decide what is imagined, and what do the latent actions mean?"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Int64

from genie_gym.errors import DataError
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report, estimate, missing
from genie_gym.evaluation.latent_actions import (
    Transitions,
    code_use,
    correspondence,
    count_pairs,
    heeding,
    infer_transitions,
    label_curve,
    majority_map,
)
from genie_gym.evaluation.paddle import WAYS, hold, obedience, why_unseen
from genie_gym.evaluation.pixels import mse, psnr
from genie_gym.evaluation.rollout import Heldout, lacks, roll_out, why_no_rollouts
from genie_gym.models.world import ActionSource, World

DELTA_STEP = 4
"""Imagined step at which true and random actions are compared."""
MAP_LABELS = 200
"""Labelled transitions that tell what each code does to the paddle."""


def control(world: World, heldout: Heldout, config: EvaluationConfig) -> Report:
    """Return all figures of control; what cannot be measured is None and says why."""
    arguments = (world, heldout, config)
    no_play, no_lam = why_no_rollouts(world, heldout), lacks(world, "lam")
    no_step = lacks(world, "dynamics", "reward") or no_lam
    return {
        "delta_psnr": {
            "step": DELTA_STEP,
            "real": _unless(no_play, lambda: delta_psnr(*arguments, "real")),
            "latent": _unless(no_step, lambda: delta_psnr(*arguments, "latent")),
        },
        "paddle_obeys": _unless(no_play or why_unseen(world), lambda: obedience(*arguments)),
        "latent_actions": _unless(no_lam, lambda: latent_actions(*arguments)),
    }


def delta_psnr(
    world: World, heldout: Heldout, config: EvaluationConfig, source: ActionSource
) -> Report:
    """Return how many dB nearer the real frame lies under the true actions than under random ones.

    Both rollouts begin from the same real contexts and draw the same random numbers. The true
    actions are the recorded ones, or the codes that the latent action model infers from the real
    frames, those between context frames included; random ones are uniform. A world that ignores
    its actions scores 0 however good it is.

    Source:
        Bruce et al. 2024, "Genie", section 3.1, with t = 4. Ours: t counts imagined steps after
        several real frames, and real actions beside latent ones.
    """
    length = config.context_length + DELTA_STEP
    rng = np.random.default_rng(config.seed)
    starts = heldout.windows.valid_starts(length)
    starts = rng.choice(starts, min(config.num_windows, len(starts)), replace=False)
    clip = heldout.windows.clip(starts, length)
    actions, num_actions = clip.actions, world.num_actions
    if source == "latent":
        codes = world.infer_latent_actions(torch.from_numpy(np.asarray(clip.frames)))
        actions, num_actions = codes.cpu().numpy(), world.num_latent_actions
    assert actions is not None
    context, true = np.split(actions, [config.context_length - 1], axis=1)
    psnrs = []
    for played in (true, rng.integers(num_actions, size=true.shape)):
        rollouts = roll_out(
            world,
            heldout,
            starts,
            context_length=config.context_length,
            horizon=DELTA_STEP,
            seed=config.seed,
            actions=played,
            context_actions=context,
            source=source,
            temperature=config.temperature,
            num_maskgit_steps=config.num_maskgit_steps,
        )
        psnrs.append(psnr(mse(rollouts.imagined[:, -1], rollouts.real[:, -1])))
    return {**estimate(psnrs[0] - psnrs[1]), "true_psnr": estimate(psnrs[0])}


def latent_actions(world: World, heldout: Heldout, config: EvaluationConfig) -> Report:
    """Return use, effect and meaning of the latent actions of a world that has them."""
    transitions = infer_transitions(world, heldout, config)
    codes, num_codes = transitions.codes[:, -1], world.num_latent_actions
    rng = np.random.default_rng(config.seed)
    report = {
        **heeding(world, heldout, transitions, config),
        **code_use(codes, num_codes),
        "against_truth": {},
        "labels_needed": {},
        "latent_mode": _unless(
            why_no_rollouts(world, heldout) or why_unseen(world),
            lambda: latent_mode(world, heldout, transitions, config),
        ),
    }
    for target, classes in transitions.classes.items():
        shape = (num_codes, world.num_actions if target == "action" else len(WAYS))
        report["against_truth"][target] = correspondence(count_pairs(codes, classes, shape))
        report["labels_needed"][target] = label_curve(codes, classes, shape, rng)
    if reason := heldout.why_no_actions:
        report["against_truth"]["action"] = report["labels_needed"]["action"] = missing(reason)
    return report


def latent_mode(
    world: World, heldout: Heldout, transitions: Transitions, config: EvaluationConfig
) -> Report:
    """Return whether codes, played in the world, move the paddle as 200 labels say they do.

    The map takes each code to the way in which the paddle went most often in labelled
    transitions of that code. A code is then held for three steps and judged as commands are.
    `value` counts every code among the labels alike. Since it is easily high where most codes mean
    "still", `balanced` counts up, still and down alike, and a way that no code means as 0.
    `went` is where the paddle went under each code, whatever the map says, and `in_play` the map's
    accuracy on the other recorded transitions.
    """
    codes, moves = transitions.codes[:, -1], transitions.classes["move"]
    if len(codes) <= MAP_LABELS:
        return missing(f"the map needs {MAP_LABELS} labels and others to judge; record more play")
    shape = (world.num_latent_actions, len(WAYS))
    labelled = count_pairs(codes[:MAP_LABELS], moves[:MAP_LABELS], shape)
    way_of, known = majority_map(labelled), np.flatnonzero(labelled.sum(axis=1))
    held, went = hold(world, heldout, known, way_of[known], "latent", config)
    agrees = went == way_of[known][held]
    return {
        **even_mean(agrees, held, np.unique(held)),
        "balanced": even_mean(agrees, way_of[known][held], np.arange(len(WAYS))),
        "by_code": {
            code: {
                "way": WAYS[way_of[code]],
                **estimate(agrees[held == i]),
                "went": {name: float((went[held == i] == w).mean()) for w, name in enumerate(WAYS)},
            }
            for i, code in enumerate(known.tolist())
            if (held == i).any()
        },
        "labels": MAP_LABELS,
        "in_play": estimate(way_of[codes[MAP_LABELS:]] == moves[MAP_LABELS:]),
    }


def even_mean(
    values: Bool[np.ndarray, " N"],
    group_of: Int64[np.ndarray, " N"],
    groups: Int64[np.ndarray, " groups"],
) -> Report:
    """Return the mean of the groups' means, each with the same weight; an empty group counts 0."""
    parts = [estimate(values[group_of == group]) for group in groups]
    means = [part["value"] or 0.0 for part in parts]
    stderrs = [part.get("stderr") or 0.0 for part in parts]
    return {
        "value": float(np.mean(means)),
        "stderr": float(np.linalg.norm(stderrs)) / len(groups),
        "count": len(values),
    }


def _unless(reason: str | None, measure: Callable[[], Report]) -> Report:
    """Return what is measured, or why it cannot be."""
    if reason is not None:
        return missing(reason)
    try:
        return measure()
    except DataError as error:  # the recording is too short for this figure, maybe not for others
        return missing(str(error))
