"""The four stages: which batches each part of the stack learns from, and is checked on."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from genie_gym.data.batch import Batch
from genie_gym.models.dynamics import Dynamics
from genie_gym.models.reward import RewardModel, class_shares
from genie_gym.nn.masking import random_mask
from genie_gym.training.config import StageConfig
from genie_gym.training.data import Windows
from genie_gym.training.loop import Metrics

NUM_VALIDATION_BATCHES = 8


class ClipStage:
    """Clips drawn evenly from the training episodes, as frames or as tokens."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        windows: Windows,
        config: StageConfig,
        *,
        seed: int,
    ) -> None:
        """Take a part of the stack and its clips."""
        self.name = name
        self.module = module
        self.windows = windows
        self.config = config
        self.seed = seed

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        return self.windows.clips(self.draw_starts(rng))

    def draw_starts(self, rng: np.random.Generator) -> Int[np.ndarray, " B"]:
        """Draw the first rows of a batch of clips."""
        return rng.choice(self.windows.training_starts, self.config.batch_size)

    def validate(self) -> Metrics:
        """Return mean metrics over fixed clips of the validation episodes."""
        totals: Metrics = {}
        device = next(self.module.parameters()).device
        for index in range(NUM_VALIDATION_BATCHES):
            rng = np.random.default_rng([self.seed, index])
            starts = rng.choice(self.windows.validation_starts, self.config.batch_size)
            loss, metrics = self.module(self.windows.clips(starts).to(device))
            for name, value in {"loss": loss.item(), **metrics}.items():
                totals[name] = totals.get(name, 0.0) + value / NUM_VALIDATION_BATCHES
        return totals


class RewardStage(ClipStage):
    """Token clips, a share of them laid around rewards and ends, some partly imagined.

    The rest of the clips are drawn evenly; the shift in class shares is measured once and undone
    in the model's logits.
    """

    def __init__(
        self,
        module: RewardModel,
        windows: Windows,
        config: StageConfig,
        *,
        seed: int,
        dynamics: Dynamics,
    ) -> None:
        """Take the reward model, its clips, and the dynamics that imagines tokens."""
        super().__init__("reward", module, windows, config, seed=seed)
        self.reward_model = module
        self.dynamics = dynamics.eval()
        rows = windows.data.rows
        assert rows.rewards is not None and rows.terminations is not None
        is_training = ~windows.data.is_validation
        rewarded = np.flatnonzero((rows.rewards != 0) & is_training)
        ended = np.flatnonzero(rows.terminations & is_training)
        self.kinds = [kind for kind in [*self._split_by_class(rewarded), ended] if len(kind)]
        self._correct_classes()

    def draw_starts(self, rng: np.random.Generator) -> Int[np.ndarray, " B"]:
        """Draw clips; `event_share` of them hold an event, every kind equally often."""
        starts = super().draw_starts(rng)
        if not self.kinds:
            return starts
        num_events = round(self.reward_model.config.event_share * len(starts))
        events = [rng.choice(self.kinds[index % len(self.kinds)]) for index in range(num_events)]
        around = self.windows.episodes.starts_around(
            np.array(events, dtype=np.int64), self.windows.clip_length, rng
        )
        starts[: len(around)] = around
        return starts

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step; half of its clips are partly imagined."""
        batch = super().batch_at(step)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return imagine_some(batch, self.dynamics, generator)

    def _split_by_class(self, rows: Int[np.ndarray, " rows"]) -> list[Int[np.ndarray, " rows"]]:
        rewards = self.windows.data.rows.rewards
        assert rewards is not None
        classes = self.reward_model.nearest_class(torch.from_numpy(rewards[rows])).numpy()
        return [rows[classes == index] for index in np.unique(classes)]

    def _correct_classes(self) -> None:
        data, model = self.windows.data, self.reward_model
        assert data.rows.rewards is not None and data.rows.terminations is not None
        shown = [super(RewardStage, self).batch_at(step) for step in range(200)]
        num_classes = len(model.config.reward_classes)
        assert data.rows.actions is not None
        is_step = (data.rows.actions >= 0) & ~data.is_validation

        def shares(rewards: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            classes = model.nearest_class(rewards)
            return class_shares(classes, num_classes), class_shares(ends, 2)

        model.correct_for(
            trained=shares(
                torch.cat([b.rewards for b in shown if b.rewards is not None]),
                torch.cat([b.terminations for b in shown if b.terminations is not None]),
            ),
            recorded=shares(
                torch.from_numpy(data.rows.rewards[is_step]),
                torch.from_numpy(data.rows.terminations[is_step]),
            ),
        )


@torch.no_grad()
def imagine_some(batch: Batch, dynamics: Dynamics, generator: torch.Generator) -> Batch:
    """Return the batch with some tokens of every second clip replaced by the dynamics' guesses."""
    assert batch.tokens is not None and batch.actions is not None
    device = next(dynamics.parameters()).device
    real = batch.tokens[::2]
    targets = real[:, 1:]
    hidden = random_mask(tuple(targets.shape), 0.5, generator)
    rows = dynamics.real_action_rows(batch.actions[::2])
    rows = nn.functional.pad(rows, (1, 0), value=0)
    arguments = (x.to(device) for x in (real[:, :-1], targets, hidden, rows))
    guesses = dynamics.two_stream_logits(*arguments).argmax(-1).to(targets.device)
    tokens = batch.tokens.clone()
    tokens[::2, 1:] = torch.where(hidden, guesses, targets)
    return replace(batch, tokens=tokens)
