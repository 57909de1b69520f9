"""The stages: which batches each part of the stack learns from, and is checked on."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import nn

from genie_gym.data.batch import Batch
from genie_gym.models.dynamics import Dynamics
from genie_gym.models.reward import RewardModel, class_shares
from genie_gym.models.tokenizer import Metrics
from genie_gym.training.config import StageConfig
from genie_gym.training.data import Windows
from genie_gym.training.loop import mean_metrics

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
        return self.windows.training_clips(self.draw_starts(rng, is_validation=False), rng)

    def draw_starts(
        self, rng: np.random.Generator, *, is_validation: bool
    ) -> Int[np.ndarray, " B"]:
        """Draw the first rows of a batch of clips of the training or the validation episodes."""
        windows = self.windows
        starts = windows.validation_starts if is_validation else windows.training_starts
        return rng.choice(starts, self.config.batch_size)

    def validate(self) -> Metrics:
        """Return mean metrics over fixed clips of the validation episodes."""
        return mean_metrics([self.judge(index) for index in range(NUM_VALIDATION_BATCHES)])

    def judge(self, index: int) -> Metrics:
        """Return the metrics of one batch of the validation episodes."""
        loss, metrics = self.module(self.validation_batch(index))
        return {"loss": loss.item(), **metrics}

    def validation_batch(self, index: int) -> Batch:
        """Return a batch of the validation episodes, on the module's device."""
        rng = np.random.default_rng([self.seed, index])
        starts = self.draw_starts(rng, is_validation=True)
        return self.windows.clips(starts).to(next(self.module.parameters()).device)


class DynamicsStage(ClipStage):
    """Token clips; validation also looks at a rollout on the network's own frames."""

    def __init__(
        self, module: Dynamics, windows: Windows, config: StageConfig, *, seed: int
    ) -> None:
        """Take the dynamics and its clips."""
        super().__init__("dynamics", module, windows, config, seed=seed)
        self.dynamics = module

    def validate(self) -> Metrics:
        """Return mean metrics over fixed clips, and the errors of rollouts of the first batch."""
        return super().validate() | rollout_errors(self.validation_batch(0), self.dynamics)


class RewardStage(ClipStage):
    """Token clips, a share of them laid around rewards and ends, half of them imagined.

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
        is_validation = windows.data.is_validation
        self.training_events = self._events_by_kind(~is_validation)
        self.validation_events = self._events_by_kind(is_validation)
        self._correct_classes()

    def draw_starts(
        self, rng: np.random.Generator, *, is_validation: bool
    ) -> Int[np.ndarray, " B"]:
        """Draw clips; `event_share` of them hold an event, every kind equally often."""
        starts = super().draw_starts(rng, is_validation=is_validation)
        kinds = self.validation_events if is_validation else self.training_events
        if not kinds:
            return starts
        num_events = round(self.reward_model.config.event_share * len(starts))
        # In pairs, of which `imagine_some` takes one: every kind is seen real and imagined.
        events = [rng.choice(kinds[index // 2 % len(kinds)]) for index in range(num_events)]
        around = self.windows.episodes.starts_around(
            np.array(events, dtype=np.int64), self.windows.clip_length, rng
        )
        starts[: len(around)] = around
        return starts

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step; half of its clips are imagined."""
        return imagine_some(super().batch_at(step), self.dynamics)

    def _events_by_kind(self, is_chosen: Bool[np.ndarray, " rows"]) -> list[Int[np.ndarray, " _"]]:
        """Return the chosen rows that earned each reward class, and those that ended a game."""
        rows = self.windows.data.rows
        assert rows.rewards is not None and rows.terminations is not None
        rewarded = np.flatnonzero((rows.rewards != 0) & is_chosen)
        classes = self.reward_model.nearest_class(torch.from_numpy(rows.rewards[rewarded])).numpy()
        kinds = [rewarded[classes == index] for index in np.unique(classes)]
        kinds.append(np.flatnonzero(rows.terminations & is_chosen))
        return [kind for kind in kinds if len(kind)]

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


def known_action_rows(batch: Batch, dynamics: Dynamics) -> Int[torch.Tensor, "B T"]:
    """Return the table rows of the actions that led to each frame; 0, not known, for the first.

    They are real actions, or latent ones where the dynamics has met no others.
    """
    assert batch.actions is not None and batch.latent_actions is not None
    if dynamics.config.latent_prob < 1:
        rows = dynamics.real_action_rows(batch.actions)
    else:
        rows = dynamics.latent_action_rows(batch.latent_actions)
    return nn.functional.pad(rows, (1, 0), value=0)


@torch.no_grad()
def imagine_some(batch: Batch, dynamics: Dynamics) -> Batch:
    """Return the batch with every second clip replaced by what the dynamics guesses step by step.

    Each frame is guessed in parallel from the real ones before it; a clip's first stays.
    """
    assert batch.tokens is not None
    device = next(dynamics.parameters()).device
    real = batch.tokens[::2].to(device)
    rows = known_action_rows(batch, dynamics)[::2].to(device)
    past, targets = real[:, :-1], real[:, 1:]
    hidden = torch.ones_like(targets, dtype=torch.bool)
    guesses = dynamics.two_stream_logits(past, targets, hidden, rows).argmax(-1)
    tokens = batch.tokens.clone()
    tokens[::2, 1:] = guesses.to(tokens.device)
    return replace(batch, tokens=tokens)


@torch.no_grad()
def rollout_errors(batch: Batch, dynamics: Dynamics) -> Metrics:
    """Return the share of wrong tokens in the last frame, reached in one step and in several.

    `forced_error` is that of a step from real frames, `free_error` that of `free_steps` steps on
    the network's own frames, from the first half of the clip on. The likeliest tokens are taken. A
    clip of fewer than four frames leaves no room for a second step.
    """
    assert batch.tokens is not None
    tokens, num_frames = batch.tokens, batch.tokens.shape[1]
    if num_frames < 4:
        return {}
    rows = known_action_rows(batch, dynamics)

    def error_after(num_real: int) -> float:
        cache = dynamics.empty_cache(len(tokens))
        for time in range(num_frames):
            if time < num_real:
                frame = tokens[:, time]
            else:
                frame = dynamics.sample(
                    frame,
                    rows[:, time],
                    cache,
                    num_steps=dynamics.config.num_maskgit_steps,
                    temperature=0.0,
                    generator=None,
                )
            cache = dynamics.append(frame, rows[:, time], cache)
        return (frame != tokens[:, -1]).float().mean().item()

    num_free = num_frames - num_frames // 2
    return {
        "forced_error": error_after(num_frames - 1),
        "free_error": error_after(num_frames - num_free),
        "free_steps": float(num_free),
    }
