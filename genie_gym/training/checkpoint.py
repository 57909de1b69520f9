"""Checkpoints of one stage: written whole or not at all, newest named by a small file."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genie_gym.errors import DataError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a stage after `step` optimizer steps."""

    step: int
    weights: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]]


class Checkpoints:
    """A folder of checkpoints; the two newest are kept.

    A checkpoint is written to a folder of another name, which is then renamed, so a kill at any
    moment leaves the older ones whole. Optimizer state is read without unpickling code.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder; it need not exist."""
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and drop all but the two newest."""
        name = f"step-{checkpoint.step:08d}"
        temporary, final = self.folder / f".{name}.part", self.folder / name
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        weights = {key: x.contiguous() for key, x in checkpoint.weights.items()}
        save_file(weights, temporary / "weights.safetensors")
        torch.save(checkpoint.optimizers, temporary / "optimizers.pt")
        (temporary / "state.json").write_text(json.dumps({"step": checkpoint.step}))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for old in self._folders()[:-2]:
            shutil.rmtree(old)

    def load_newest(self) -> Checkpoint | None:
        """Return the newest checkpoint, or None if there is none.

        Raises:
            DataError: it is damaged.
        """
        folders = self._folders()
        if not folders:
            return None
        folder = folders[-1]
        try:
            return Checkpoint(
                step=json.loads((folder / "state.json").read_text())["step"],
                weights=load_file(folder / "weights.safetensors"),
                optimizers=torch.load(
                    folder / "optimizers.pt", weights_only=True, map_location="cpu"
                ),
            )
        except Exception as error:
            raise DataError(
                f"checkpoint {folder} is damaged ({type(error).__name__}). Delete it to fall back "
                "to the one before"
            ) from error

    def is_empty(self) -> bool:
        """Return whether no checkpoint has been written yet."""
        return not self._folders()

    def clear(self) -> None:
        """Delete all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))
