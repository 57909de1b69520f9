"""All that decides how a run goes on, in one file, so that a killed run can."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from genie_gym.agents.learner import Learner
from genie_gym.envs.slots import SlotsState
from genie_gym.errors import DataError
from genie_gym.files import replacing
from genie_gym.models.state import WorldState
from genie_gym.nn.draws import Streams

CHECKPOINT_VERSION = 1
NUM_KEPT = 2


class Checkpoints:
    """A folder of checkpoints; the two newest are kept, and no kill leaves half of one."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it need not exist."""
        self.folder = folder

    def save(self, learner: Learner, marks: dict[str, Any]) -> None:
        """Write where a run stands, between two rollouts.

        Args:
            learner: what learns.
            marks: plain values of its caller.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"version": CHECKPOINT_VERSION, "marks": json.dumps(marks)}
        with replacing(self.folder / f"step-{learner.num_steps:010d}.pt") as part:
            torch.save({**own, **learner.get_state()}, part)
        for old in self._files()[:-NUM_KEPT]:
            old.unlink()

    def restore_newest(self, learner: Learner) -> dict[str, Any] | None:
        """Put a fresh run where the newest checkpoint stands; return its marks.

        Returns:
            The marks that were saved; None if there is no checkpoint.

        Raises:
            DataError: it is damaged, of another version, or of a run of another shape.
        """
        files = self._files()
        if not files:
            return None
        try:
            content = torch.load(files[-1], weights_only=True, map_location="cpu")
            version = content.get("version", 1)  # the first saves did not say it
            if version != CHECKPOINT_VERSION:
                raise DataError(
                    f"checkpoint {files[-1]} has version {version}; this genie_gym reads "
                    f"{CHECKPOINT_VERSION}. Go on with the genie_gym that began the run, or take "
                    "another --out"
                )
            learner.set_state(content)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"checkpoint {files[-1]} is damaged, or of another run "
                f"({type(error).__name__}). Delete it to fall back to the one before"
            ) from error
        marks: dict[str, Any] = json.loads(content["marks"])
        return marks

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))


def slots_content(state: SlotsState) -> dict[str, Any]:
    """Return what `slots_state` makes the same games of: tensors and plain values."""
    return {
        "world": list(_tensors(state.world)),
        "streams": (state.streams.seeds, state.streams.num_drawn),
        "slot_randoms": json.dumps(state.np_randoms),
        "num_steps": torch.from_numpy(state.num_steps),
        "is_over": torch.from_numpy(state.is_over),
    }


def slots_state(content: dict[str, Any], like: WorldState) -> SlotsState:
    """Return games from what `slots_content` gave; `like` is any state of the same world."""
    device = like.tokens.device
    seeds, num_drawn = (x.to(device) for x in content["streams"])
    return SlotsState(
        world=_refilled(like, iter([x.to(device) for x in content["world"]])),
        streams=Streams(seeds, num_drawn),
        np_randoms=tuple(json.loads(content["slot_randoms"])),
        num_steps=content["num_steps"].numpy(),
        is_over=content["is_over"].numpy(),
    )


def _tensors(node: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples and dataclasses, in order."""
    if isinstance(node, Tensor):
        yield node
        return
    for child in _children(node):
        yield from _tensors(child)


def _refilled(node: Any, saved: Iterator[Shaped[Tensor, "..."]]) -> Any:
    """Return the same structure with other tensors in it."""
    if isinstance(node, Tensor):
        return next(saved)
    children = [_refilled(child, saved) for child in _children(node)]
    return tuple(children) if isinstance(node, tuple) else type(node)(*children)


def _children(node: Any) -> list[Any]:
    if isinstance(node, tuple):
        return list(node)
    return [getattr(node, field.name) for field in dataclasses.fields(node)]
