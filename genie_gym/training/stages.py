"""The stages: which batches each part of the stack learns from, and is checked on."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor, nn

from genie_gym.data.batch import Batch
from genie_gym.models.dynamics import Dynamics
from genie_gym.models.reward import RewardModel, class_shares
from genie_gym.models.sampling import FrameSampler
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

    def lay_around(
        self,
        starts: Int[np.ndarray, " B"],
        events: list[Int[np.ndarray, " _"]],
        share: float,
        rng: np.random.Generator,
    ) -> Int[np.ndarray, " B"]:
        """Return clips of which the first ones, a share, hold an event; each kind equally often."""
        if not events:
            return starts
        # In pairs, of which `imagine_some` takes one: every kind is seen real and imagined.
        drawn = [rng.choice(events[index // 2 % len(events)]) for index in range(len(starts))]
        drawn = drawn[: round(share * len(starts))]
        around = self.windows.episodes.starts_around(
            np.array(drawn, dtype=np.int64), self.windows.clip_length, rng
        )
        return np.concatenate([around, starts[len(around) :]])

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
    """Token clips, a share of them laid around rewards and ends in training.

    Validation also looks at a rollout on the network's own frames.
    """

    def __init__(
        self, module: Dynamics, windows: Windows, config: StageConfig, *, seed: int
    ) -> None:
        """Take the dynamics and its clips."""
        super().__init__("dynamics", module, windows, config, seed=seed)
        self.dynamics = module
        rewards = windows.data.rows.rewards
        kinds = np.zeros(0) if rewards is None else np.sign(rewards)
        self.events = events_by_kind(windows, kinds, ~windows.data.is_validation)

    def draw_starts(
        self, rng: np.random.Generator, *, is_validation: bool
    ) -> Int[np.ndarray, " B"]:
        """Draw clips; in training `event_share` of them hold an event."""
        starts = super().draw_starts(rng, is_validation=is_validation)
        if is_validation:
            return starts
        return self.lay_around(starts, self.events, self.dynamics.config.event_share, rng)

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
        self.sampler = FrameSampler(dynamics.eval())
        rewards, is_validation = windows.data.rows.rewards, windows.data.is_validation
        assert rewards is not None
        classes = module.nearest_class(torch.from_numpy(rewards)).numpy()
        kinds = np.where(rewards == 0, 0, classes + 1)
        self.training_events = events_by_kind(windows, kinds, ~is_validation)
        self.validation_events = events_by_kind(windows, kinds, is_validation)
        self._correct_classes()

    def draw_starts(
        self, rng: np.random.Generator, *, is_validation: bool
    ) -> Int[np.ndarray, " B"]:
        """Draw clips; `event_share` of them hold an event, every kind equally often."""
        starts = super().draw_starts(rng, is_validation=is_validation)
        events = self.validation_events if is_validation else self.training_events
        return self.lay_around(starts, events, self.reward_model.config.event_share, rng)

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step; half of its clips end in imagined frames."""
        draw = np.random.default_rng([self.seed, step, 1]).integers(2**63)
        generator = torch.Generator().manual_seed(int(draw))
        return imagine_some(super().batch_at(step), self.sampler, generator)

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


def events_by_kind(
    windows: Windows, kinds: Real[np.ndarray, " rows"], is_chosen: Bool[np.ndarray, " rows"]
) -> list[Int[np.ndarray, " _"]]:
    """Return the chosen rows of each kind but 0, and those that ended a game; none from a video."""
    terminations = windows.data.rows.terminations
    if terminations is None:
        return []
    chosen = [np.flatnonzero((kinds == kind) & is_chosen) for kind in np.unique(kinds[kinds != 0])]
    chosen.append(np.flatnonzero(terminations & is_chosen))
    return [rows for rows in chosen if len(rows)]


def known_action_rows(batch: Batch, dynamics: Dynamics) -> Int[Tensor, "B T"]:
    """Return the table rows of the actions that led to each frame; 0, not known, for the first.

    They are real actions, or latent ones where the dynamics has met no others.
    """
    if dynamics.config.latent_prob < 1:
        assert batch.actions is not None
        rows = dynamics.real_action_rows(batch.actions)
    else:
        assert batch.latent_actions is not None
        rows = dynamics.latent_action_rows(batch.latent_actions)
    return nn.functional.pad(rows, (1, 0), value=0)


@torch.no_grad()
def play_on(
    tokens: Int[Tensor, "B T S"],
    rows: Int[Tensor, "B T"],
    sampler: FrameSampler,
    num_real: int,
    *,
    num_steps: int,
    temperature: float,
    generator: torch.Generator | None,
) -> Int[Tensor, "B T S"]:
    """Return clips whose frames after the first `num_real` are imagined, each from the one before.

    Args:
        tokens: recorded clips.
        rows: rows of the dynamics' action table that led to each frame.
        sampler: plays the dynamics.
        num_real: frames that stay.
        num_steps: refinement steps a frame.
        temperature: sampling temperature; 0 takes the likeliest tokens.
        generator: draws the tokens; None takes the likeliest ones.
    """
    device = sampler.dynamics.codebook.device
    played, rows = tokens.to(device).clone(), rows.to(device)
    cache = sampler.dynamics.empty_cache(len(tokens))
    for time in range(1, tokens.shape[1]):
        last, led_by = played[:, time - 1], rows[:, time - 1]
        if time < num_real:
            cache = sampler.append(last, led_by, cache)
        else:
            played[:, time], cache = sampler.sample(
                last,
                led_by,
                rows[:, time],
                cache,
                num_steps=num_steps,
                temperature=temperature,
                generator=generator,
            )
    return played


def imagine_some(batch: Batch, sampler: FrameSampler, generator: torch.Generator) -> Batch:
    """Return the batch with the second half of every second clip imagined, as in use."""
    assert batch.tokens is not None
    config = sampler.dynamics.config
    tokens = batch.tokens.clone()
    tokens[::2] = play_on(
        batch.tokens[::2],
        known_action_rows(batch, sampler.dynamics)[::2],
        sampler,
        batch.tokens.shape[1] // 2,
        num_steps=config.num_maskgit_steps,
        temperature=config.temperature,
        generator=generator,
    ).to(tokens)
    return replace(batch, tokens=tokens)


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
    sampler, num_steps = FrameSampler(dynamics), dynamics.config.num_maskgit_steps

    def error_after(num_real: int) -> float:
        played = play_on(
            tokens,
            rows,
            sampler,
            num_real,
            num_steps=num_steps,
            temperature=0.0,
            generator=None,
        )
        return (played[:, -1] != tokens[:, -1]).float().mean().item()

    num_real = num_frames // 2
    return {
        "forced_error": error_after(num_frames - 1),
        "free_error": error_after(num_real),
        "free_steps": float(num_frames - num_real),
    }
