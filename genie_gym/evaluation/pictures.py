"""A world's rollouts for the eye: films beside the real game, attention, latent actions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8

from genie_gym.evaluation.attention_maps import attention_maps, choose_position, draw_attention
from genie_gym.evaluation.rollout import Heldout, Rollouts, roll_out
from genie_gym.evaluation.video import captioned, contact_sheet, write_video
from genie_gym.models.world import World

FILM_FPS = 5
"""A third of the game's speed: captions can be read."""
PANEL_STEPS = (1, 2, 4, 8)
"""Imagined steps that a latent-action panel shows."""
_GAP = 6
"""Pixels between the columns of a film."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that a report shows, or the reason why there is none."""

    title: str
    text: str
    """What it shows, or why there is none; stands in for the picture where it cannot be seen."""
    path: Path | None
    """PNG or mp4."""
    last_frame: UInt8[np.ndarray, "H W C"] | None = None
    """Of a film: what is shown of it before it plays, and on paper."""


def write_pictures(
    world: World, heldout: Heldout, rollouts: Rollouts, folder: Path, *, seed: int = 0
) -> list[Picture]:
    """Write films of some rollouts, one attention map and the latent-action panels.

    Panels are sampled as the bundle says.

    Args:
        world: the world.
        heldout: where the rollouts' windows lie.
        rollouts: over the longest horizon there is, under the recorded actions.
        folder: where the files go.
        seed: draws the samples of the panels.
    """
    films = [
        write_film(world, rollouts, index, name, folder)
        for name, index in choose_windows(rollouts).items()
    ]
    attention = draw_first_step(world, heldout, rollouts, folder)
    return [*films, attention, draw_latent_actions(world, heldout, rollouts, folder, seed=seed)]


def choose_windows(rollouts: Rollouts) -> dict[str, int]:
    """Return the first window drawn, and the best, median and worst by the last frame's error.

    Chosen by rule, not by taste; a window that several rules name is shown for the first of them.
    """
    order = np.argsort(last_frame_mse(rollouts), kind="stable")
    ruled = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    chosen = {"first": 0}
    for name, index in ruled.items():
        if index not in chosen.values():
            chosen[name] = int(index)
    return chosen


def last_frame_mse(rollouts: Rollouts) -> Float64[np.ndarray, " N"]:
    """Return each window's mean squared error of its last frame, pixels in [0, 1]."""
    difference = rollouts.imagined[:, -1] / 255 - rollouts.real[:, -1] / 255
    return np.asarray(np.square(difference).mean(axis=(1, 2, 3)))


def write_film(world: World, rollouts: Rollouts, index: int, name: str, folder: Path) -> Picture:
    """Write a rollout as a film of three columns."""
    frames = film_frames(world, rollouts, index)
    film = folder / f"rollout-{name}.mp4"
    write_video(film, frames, fps=FILM_FPS, scale=1)
    rule = "drawn" if name == "first" else f"of {len(rollouts.starts)} by its last frame"
    return Picture(
        title=f"Rollout: the {name} {rule}",
        text=f"{len(frames)} imagined steps from row {rollouts.starts[index]} of the recording; "
        f"MSE of the last frame {last_frame_mse(rollouts)[index]:.2g}.",
        path=film,
        last_frame=frames[-1],
    )


def film_frames(
    world: World, rollouts: Rollouts, index: int
) -> UInt8[np.ndarray, "T height width C"]:
    """Return one rollout as real | imagined | difference, with what happened printed below."""
    real, imagined = rollouts.real[index], rollouts.imagined[index]
    difference = np.maximum(real, imagined) - np.minimum(real, imagined)
    expected = expected_rewards(world, rollouts)[index]
    names = dict(enumerate(world.card.get("action_meanings", ())))
    frames = []
    for step, action in enumerate(rollouts.actions[index].tolist()):
        end_prob = rollouts.terminated_prob[index, step]
        earned = "" if rollouts.rewards is None else f" {rollouts.rewards[index, step]:+g}"
        is_end = rollouts.terminations is not None and rollouts.terminations[index, step]
        ended = " END" if is_end else ""
        columns = [
            captioned(real[step], f"real: {names.get(action, action)}{earned}{ended}"),
            captioned(imagined[step], f"world: {expected[step]:+.2f}, end {end_prob:.2f}"),
            captioned(difference[step], f"difference, step {step + 1}"),
        ]
        gap = np.zeros((len(columns[0]), _GAP, 3), np.uint8)
        frames.append(np.concatenate([columns[0], gap, columns[1], gap, columns[2]], axis=1))
    return np.stack(frames)


def expected_rewards(world: World, rollouts: Rollouts) -> Float32[np.ndarray, "N T"]:
    """Return the mean of each step's reward distribution."""
    classes = world.reward_classes.float().cpu().numpy()
    return np.asarray(rollouts.reward_probs @ classes, np.float32)


def draw_first_step(world: World, heldout: Heldout, rollouts: Rollouts, folder: Path) -> Picture:
    """Draw where the dynamics looks while it imagines the first window's first frame."""
    context, after = rollouts.context[0], rollouts.imagined[0, 0]
    clip = heldout.windows.clip(rollouts.starts[:1], len(context))
    assert clip.actions is not None
    state = world.encode(torch.from_numpy(clip.frames), torch.from_numpy(clip.actions))
    maps = attention_maps(world, state, torch.from_numpy(rollouts.actions[0, :1]))
    position, reason = choose_position(world, context[-1], after)
    path = folder / "attention.png"
    draw_attention(path, world, maps, position, context, after)
    return Picture(
        title="Attention",
        text=f"Where the dynamics looks from the outlined place ({reason}) while it imagines one "
        "frame: in that frame (top row), and at the same place in the frames before it (a row for "
        "each layer); bright is much. Mean over the heads, first window drawn, first pass over a "
        "frame that is wholly hidden. It shows what a layer reads, not what decides.",
        path=path,
    )


def draw_latent_actions(
    world: World, heldout: Heldout, rollouts: Rollouts, folder: Path, *, seed: int
) -> Picture:
    """Draw what every latent action makes of the first window's context."""
    title = "Latent actions"
    if "lam" not in world.parts:
        text = "The world has no trained latent action model. Train it: genie-gym train --stage lam"
        return Picture(title=title, text=text, path=None)
    context_length, horizon = rollouts.context.shape[1], rollouts.real.shape[1]
    steps = [step for step in PANEL_STEPS if step <= horizon]
    num_codes = world.num_latent_actions
    codes = np.arange(num_codes)[:, None].repeat(steps[-1], axis=1)
    panels = roll_out(
        world,
        heldout,
        rollouts.starts[:1].repeat(num_codes),
        context_length=context_length,
        horizon=steps[-1],
        seed=seed,
        actions=codes,
        source="latent",
    )
    rows = [panels.context[:, -1]] + [panels.imagined[:, step - 1] for step in steps]
    labels = [
        f"code {code}, {f'step {step}' if step else 'start'}"
        for step in [0, *steps]
        for code in range(num_codes)
    ]
    path = folder / "latent-actions.png"
    contact_sheet(path, np.concatenate(rows), columns=num_codes, labels=labels, scale=2)
    return Picture(
        title=title,
        text=f"One column per latent action, held from the same start (the first window drawn) "
        f"for steps {', '.join(map(str, steps))}. Columns that differ show what a code means; "
        "equal columns are codes that the dynamics does not heed.",
        path=path,
    )
