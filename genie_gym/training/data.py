"""What the stages learn from: a recording, split by episode, as frames or as tokens."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from genie_gym.data.augment import Augmentation, AugmentConfig
from genie_gym.data.batch import Batch
from genie_gym.data.hdf5 import Recording, Rows
from genie_gym.data.windows import Clip, EpisodeWindows
from genie_gym.errors import ConfigError, DataError
from genie_gym.games import game_of
from genie_gym.models.stack import StackConfig


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Tokens and latent actions of every row of a recording."""

    tokens: Int[np.ndarray, "rows S"]
    latent_actions: Int[np.ndarray, " rows"]
    """Latent action taken on seeing the row's frame; -1 on an episode's last row."""


class TrainingData:
    """Recordings whose episodes are split into training and validation ones."""

    def __init__(
        self,
        paths: Path | Sequence[Path],
        config: StackConfig,
        *,
        validation_share: float,
        memory_gib: float = math.inf,
    ) -> None:
        """Load recordings into memory, or leave their frames on disk if they take more GiB.

        Raises:
            DataError: a recording is missing or damaged, or holds no actions, or two differ.
            ConfigError: their frames or actions are not those of the config.
        """
        self.paths = [paths] if isinstance(paths, Path) else list(paths)
        self.recording = recording = open_fitting(self.paths, config)
        num_bytes = recording.num_frames * math.prod(recording.frame_shape)
        self.rows: Rows = recording.load(in_memory=num_bytes <= memory_gib * 2**30)
        num_validation = max(1, round(validation_share * recording.num_episodes))
        if num_validation >= recording.num_episodes:
            raise DataError(
                f"{self.name} holds {recording.num_episodes} episode(s); training needs at least "
                "2, so that one can be kept for validation. Record more steps"
            )
        # Spread over the whole recording, so that every kind of policy is among them.
        chosen = np.linspace(0, recording.num_episodes - 1, num_validation).round().astype(int)
        validation_ids = [recording.episodes[index].episode_id for index in chosen]
        self.is_validation = np.isin(self.rows.episode_ids, validation_ids)

    @property
    def name(self) -> str:
        """The recordings' paths, as messages name them."""
        return ", ".join(map(str, self.paths))

    @property
    def fingerprint(self) -> str:
        """A hash of all actions and a thousand frames, to tell recordings apart."""
        digest = hashlib.sha256(self.rows.episode_ids.tobytes())
        assert self.rows.actions is not None
        digest.update(self.rows.actions.tobytes())
        digest.update(self.rows.frames[:: max(len(self.rows.frames) // 1000, 1)].tobytes())
        return digest.hexdigest()[:16]


class Windows:
    """Clips of one length, drawn from the training or the validation episodes."""

    def __init__(
        self,
        data: TrainingData,
        clip_length: int,
        tokens: TokenRows | None = None,
        augment: AugmentConfig | None = None,
    ) -> None:
        """Index the clips; with `tokens` they hold those instead of frames.

        Raises:
            ConfigError: `augment` asks for a mirror that the game does not allow.
            DataError: no training episode, or no validation episode, is that long.
        """
        self.data = data
        self.clip_length = clip_length
        self._tokens = tokens
        self._augmentation: Augmentation | None = None
        self._training_span = clip_length
        if augment and augment.changed_keys:
            assert tokens is None and data.recording.action_meanings is not None
            self._augmentation = Augmentation(
                augment,
                game=str(data.recording.attributes["env_id"]),
                action_meanings=data.recording.action_meanings,
            )
            self._training_span = self._augmentation.span(clip_length)
        rows = data.rows if tokens is None else replace(data.rows, frames=tokens.tokens)
        self.episodes = EpisodeWindows(rows)
        self.training_starts = self._starts(self._training_span, is_validation=False)
        self.validation_starts = self._starts(clip_length, is_validation=True)

    def clips(self, starts: Int[np.ndarray, " B"]) -> Batch:
        """Return the clips that begin at these rows, as they were recorded."""
        return self._to_batch(self.episodes.clip(starts, self.clip_length), starts)

    def training_clips(
        self, starts: Int[np.ndarray, " B"], generator: np.random.Generator
    ) -> Batch:
        """Return the clips that begin at these rows, changed at random where `augment` says so."""
        if self._augmentation is None:
            return self.clips(starts)
        clip = self.episodes.clip(starts, self._training_span)
        return self._to_batch(self._augmentation(clip, self.clip_length, generator), starts)

    def _starts(self, span: int, *, is_validation: bool) -> Int[np.ndarray, " starts"]:
        starts: Int[np.ndarray, " starts"] = self.episodes.valid_starts(span)
        starts = starts[self.data.is_validation[starts] == is_validation]
        if len(starts) == 0:
            raise DataError(
                f"{self.data.name}: no {'validation' if is_validation else 'training'} episode has "
                f"{span} frames. Record longer episodes, or lower clip_length or augment.max_stride"
            )
        return starts

    def _to_batch(self, clip: Clip, starts: Int[np.ndarray, " B"]) -> Batch:
        between = {
            name: torch.from_numpy(values)
            for name in ("actions", "rewards", "terminations")
            if (values := getattr(clip, name)) is not None
        }
        frames = torch.from_numpy(clip.frames)
        if self._tokens is None:
            return Batch(frames=frames, **between)
        steps = starts[:, None] + np.arange(self.clip_length - 1)
        latent_actions = torch.from_numpy(self._tokens.latent_actions[steps])
        return Batch(tokens=frames.long(), latent_actions=latent_actions.long(), **between)


def open_fitting(paths: Sequence[Path], config: StackConfig) -> Recording:
    """Open recordings as one.

    Raises:
        DataError: a recording is missing or damaged, or holds no actions, or two differ.
        ConfigError: their frames or actions are not those of the config.
    """
    recording = Recording.join([Recording.open(path) for path in paths])
    _check_fits(recording, config, ", ".join(map(str, paths)))
    return recording


def _check_fits(recording: Recording, config: StackConfig, name: str) -> None:
    expected = (config.height, config.width, 3)
    if recording.frame_shape != expected:
        raise ConfigError(
            f"{name} holds frames of shape {recording.frame_shape}, but stack.height and "
            f"stack.width make {expected}. Set them to the recording's size"
        )
    if not recording.has_actions or recording.action_meanings is None:
        raise DataError(f"{name} is a video without actions; train from a recording of a game")
    if "env_id" not in recording.attributes:
        raise DataError(
            f"{recording.shards[0]} has no attribute 'env_id', which names its game. Add it, such "
            f"as 'ALE/{game_of(config.game)}-v5', or record again with genie-gym collect"
        )
    game = game_of(str(recording.attributes["env_id"]))
    if game != game_of(config.game):
        raise ConfigError(
            f"{name} was recorded in {game}, but stack.game is {config.game!r}. Set it to {game!r}"
        )
    if len(recording.action_meanings) != config.num_actions:
        raise ConfigError(
            f"{name} was recorded with {len(recording.action_meanings)} actions, but "
            f"stack.num_actions is {config.num_actions}. Set it to "
            f"{len(recording.action_meanings)}"
        )
