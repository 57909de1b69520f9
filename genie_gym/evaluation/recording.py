"""What a recording holds, for people: a card in text, a contact sheet and a short film."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genie_gym.data.hdf5 import Recording
from genie_gym.data.invariants import ATTRIBUTES, OPTIONAL_ATTRIBUTES
from genie_gym.evaluation.video import captioned, contact_sheet, write_video

NUM_STILLS = 32
FILM_FRAMES = 300


def recording_card(recording: Recording) -> str:
    """Return size, origin and settings, and how often each action and reward occurs."""
    height, width, _ = recording.frame_shape
    num_bytes = sum(shard.stat().st_size for shard in recording.shards)
    facts = {
        "recording": recording.path,
        "rows": recording.num_frames,
        "episodes": recording.num_episodes,
        "shards": len(recording.shards),
        "frame size": f"{height} x {width}",
        "bytes": f"{num_bytes}, {num_bytes / recording.num_frames:.0f} a frame",
        **{
            key: recording.attributes[key]
            for key in (*ATTRIBUTES, *OPTIONAL_ATTRIBUTES)
            if key in recording.attributes
        },
    }
    lines = [f"{key:<12} {value}" for key, value in facts.items()]
    if recording.has_actions and recording.action_meanings:
        lines += ["", *_action_table(recording)]
    return "\n".join([*lines, "", recording.class_table()])


def write_pictures(recording: Recording, folder: Path) -> tuple[Path, Path]:
    """Write `recording.png`, stills from all over the recording, and `recording.mp4`, its start.

    Below each frame stand its action and the reward which that action earned.
    """
    sheet, film = folder / "recording.png", folder / "recording.mp4"
    captions = _captions(recording)
    count = min(NUM_STILLS, recording.num_frames)
    chosen = np.linspace(0, recording.num_frames - 1, count).round().astype(int).tolist()
    # One by one: a recording need not fit into memory.
    stills = [captioned(recording.load_frames(i, i + 1)[0], captions[i]) for i in chosen]
    contact_sheet(sheet, np.stack(stills), labels=[f"row {i}" for i in chosen], scale=1)

    frames = recording.load_frames(0, min(FILM_FRAMES, recording.num_frames))
    pictures = [captioned(frame, text) for frame, text in zip(frames, captions, strict=False)]
    write_video(film, np.stack(pictures), fps=recording.attributes.get("fps", 15), scale=1)
    return sheet, film


def _action_table(recording: Recording) -> list[str]:
    actions = recording.load_column("actions")
    taken = actions[actions >= 0]
    counts = np.bincount(taken, minlength=len(recording.action_meanings or ()))
    names = _names(recording, range(len(counts)))
    lines = ["action            steps   share"]
    return lines + [
        f"{name:<12} {count:>10} {count / max(len(taken), 1):>7.2%}"
        for name, count in zip(names, counts, strict=True)
    ]


def _captions(recording: Recording) -> list[str]:
    if not recording.has_actions:
        return [""] * recording.num_frames
    actions, rewards = recording.load_column("actions"), recording.load_column("rewards")
    if actions.ndim == 1:
        names = _names(recording, actions.tolist())
    else:
        names = [" ".join(f"{x:.1f}" for x in action) for action in actions]
    return [f"{name} {reward:+g}" for name, reward in zip(names, rewards, strict=True)]


def _names(recording: Recording, actions: Sequence[int]) -> list[str]:
    meanings = dict(enumerate(recording.action_meanings or ())) | {-1: "END"}
    return [meanings.get(action, str(action)) for action in actions]
