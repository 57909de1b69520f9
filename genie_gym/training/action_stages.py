"""The stages that learn what actions are: which transitions they see, and which of them tell."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int

from genie_gym.data.batch import Batch
from genie_gym.errors import DataError
from genie_gym.models.action_map import ActionMap
from genie_gym.models.latent_action import LatentActionModel
from genie_gym.training.config import StageConfig
from genie_gym.training.data import Windows
from genie_gym.training.stages import ClipStage

LABELLED_SHARE = 0.25
"""Share of the latent action model's clips that hold a labelled transition, if there are any."""


def choose_labels(
    part: str, num_labels: int, windows: Windows, *, seed: int
) -> Int[np.ndarray, " labels"]:
    """Return the rows of the training episodes whose actions are told to a part of the stack.

    Raises:
        DataError: the training episodes do not hold as many clips.
    """
    starts = windows.training_starts
    if num_labels > len(starts):
        raise DataError(
            f"stack.{part}.num_labels is {num_labels}, but the training episodes hold "
            f"{len(starts)} clips of {windows.clip_length} frames. Lower it, or record more"
        )
    return np.random.default_rng(seed).choice(starts, num_labels, replace=False)


class LatentActionStage(ClipStage):
    """Frame clips in which only the labelled transitions tell their action; -1 for the others."""

    def __init__(
        self, module: LatentActionModel, windows: Windows, config: StageConfig, *, seed: int
    ) -> None:
        """Take the model and its clips, and choose the labelled transitions.

        Raises:
            DataError: the training episodes do not hold as many as are to be labelled.
        """
        super().__init__("lam", module, windows, config, seed=seed)
        self.labelled = choose_labels("lam", module.config.num_labels, windows, seed=seed)

    def draw_starts(
        self, rng: np.random.Generator, *, is_validation: bool
    ) -> Int[np.ndarray, " B"]:
        """Draw clips evenly; in training a share of them hold a labelled transition, if any do."""
        starts = super().draw_starts(rng, is_validation=is_validation)
        if is_validation or not len(self.labelled):
            return starts
        events = rng.choice(self.labelled, round(LABELLED_SHARE * len(starts)))
        around = self.windows.episodes.starts_around(events, self.windows.clip_length, rng)
        starts[: len(around)] = around
        return starts

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step, without the actions that are not told."""
        rng = np.random.default_rng([self.seed, step])
        starts = self.draw_starts(rng, is_validation=False)
        batch = self.windows.training_clips(starts, rng)
        assert batch.actions is not None
        rows = starts[:, None] + np.arange(self.windows.clip_length - 1)
        is_told = torch.from_numpy(np.isin(rows, self.labelled))
        return replace(batch, actions=torch.where(is_told, batch.actions, -1))


class ActionMapStage(ClipStage):
    """Transitions with their codes; in training the same few, whose actions count as labels."""

    def __init__(
        self, module: ActionMap, windows: Windows, config: StageConfig, *, seed: int
    ) -> None:
        """Take the map and its clips, and choose the labelled ones.

        Raises:
            DataError: the training episodes do not hold as many as the map is to learn from.
        """
        super().__init__("action_map", module, windows, config, seed=seed)
        self.labelled = choose_labels("action_map", module.config.num_labels, windows, seed=seed)

    def draw_starts(
        self, rng: np.random.Generator, *, is_validation: bool
    ) -> Int[np.ndarray, " B"]:
        """Draw validation clips from all episodes kept for it, training ones from the labels."""
        if is_validation:
            return super().draw_starts(rng, is_validation=True)
        return rng.choice(self.labelled, self.config.batch_size)
