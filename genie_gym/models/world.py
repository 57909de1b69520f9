"""The whole stack behind a few calls: start or encode, step, decode; all batched, all tensors."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from genie_gym.data.batch import to_float, to_uint8
from genie_gym.errors import InvalidActionError, WorldError
from genie_gym.models.history import History
from genie_gym.models.reward import RewardPrediction
from genie_gym.models.sampling import FrameSampler
from genie_gym.models.stack import GenieStack
from genie_gym.models.state import Starts, WorldState
from genie_gym.nn.draws import Draws, Streams, uniform

ActionSource = Literal["real", "latent"]


@dataclass(frozen=True, slots=True)
class Imagined:
    """One imagined step of B games."""

    state: WorldState
    prediction: RewardPrediction


class World:
    """A trained stack that can be stepped like a game, without pixels.

    Source:
        The Genie paper (Bruce et al. 2024) plays its world frame by frame in the same way; reward
        and end are ours.
    """

    def __init__(
        self, stack: GenieStack, starts: Starts, *, parts: frozenset[str], card: dict[str, Any]
    ) -> None:
        """Take a stack and its start contexts.

        Args:
            stack: trained networks, on the device and in the dtype to run in.
            starts: contexts on the same device.
            parts: which parts of the stack are trained; the others may not be used.
            card: provenance and measured figures, for people.
        """
        self.stack = stack.eval().requires_grad_(False)
        self.config = stack.config
        self.starts = starts
        self.parts = parts
        self.card = card
        self.sampler = FrameSampler(self.stack.dynamics)
        self._reward_table = self.stack.reward.code_embeddings()
        reward_table = self._reward_table if "reward" in parts else None
        self._history = History(self.stack, self.sampler, reward_table)

    @property
    def device(self) -> torch.device:
        """Where the world runs."""
        return self.starts.tokens.device

    @property
    def num_actions(self) -> int:
        """Size of the game's minimal action set."""
        return self.config.num_actions

    @property
    def num_latent_actions(self) -> int:
        """Number of latent actions."""
        return self.config.lam.quantizer.num_codes

    @property
    def reward_classes(self) -> Float[Tensor, " classes"]:
        """Rewards a step can earn."""
        return self.stack.reward.classes.float()

    @torch.inference_mode()
    def start(self, indices: Int[Tensor, " B"], generator: Draws | None = None) -> WorldState:
        """Return states at bundled start contexts.

        Args:
            indices: which context each row begins from; -1 draws one.
            generator: draws the contexts of rows that ask for it; one for all or a stream a row.

        Raises:
            WorldError: there is no index, one lies outside the bundled contexts, one is to be
                drawn without a generator, or there are more or fewer streams than indices.
        """
        if len(indices) == 0:
            raise WorldError("start needs at least one index of a context, got none")
        _check_draws(generator, len(indices))
        low, high = int(indices.min()), int(indices.max())
        if low < -1 or high >= len(self.starts):
            raise WorldError(
                f"start index must lie in [0, {len(self.starts)}) or be -1 for any, got "
                f"{low if low < -1 else high}"
            )
        if low == -1:
            if generator is None:
                raise WorldError("start index -1 draws a context and needs a generator")
            draws = uniform((), len(indices), generator, indices.device)
            indices = torch.where(indices < 0, (draws * len(self.starts)).long(), indices)
        indices = indices.to(self.device)
        rows, played = self._past(self.starts.actions[indices], "real")
        return self._history.replay(self.starts.tokens[indices], rows, played)

    @torch.inference_mode()
    def encode(
        self,
        frames: UInt8[Tensor, "B T H W C"],
        actions: Int[Tensor, "B T-1"],
        source: ActionSource = "real",
    ) -> WorldState:
        """Return states after real frames and the actions between them; any T >= 1.

        Raises:
            WorldError: the frames are not uint8, or have another size than the world's.
            InvalidActionError: an action lies outside the action set.
        """
        self._check_frames(frames, "B", "T")
        num_actions = frames.shape[1] - 1
        if actions.shape != (len(frames), num_actions):
            raise WorldError(
                f"{frames.shape[1]} frames have {num_actions} actions between them, got actions of "
                f"shape {tuple(actions.shape)}"
            )
        rows, played = self._past(actions, source)
        return self._history.encode(frames.to(self.device), rows, played)

    @torch.inference_mode()
    def observe(
        self,
        state: WorldState,
        actions: Int[Tensor, " B"],
        frames: UInt8[Tensor, "B H W C"],
        source: ActionSource = "real",
    ) -> WorldState:
        """Return states after one more real frame: what `encode` gives for the longer games.

        Args:
            state: where the games stood; left as it is. Frames that were imagined, and those of
                bundled starts, the tokenizer has not seen: it remembers real ones alone.
            actions: what led to the frames.
            frames: newest frame of every game.
            source: which set `actions` index.

        Raises:
            WorldError: the frames are not uint8 or of the world's size, or there are more or fewer
                frames or actions than games.
            InvalidActionError: an action lies outside the action set.
        """
        self._check_frames(frames, "B")
        num_games = len(state.tokens)
        if len(frames) != num_games:
            raise WorldError(f"{num_games} games show {num_games} frames, got {len(frames)}")
        _check_one_each(actions, num_games)
        rows, played = self._past(actions, source)
        return self._history.observe(state, rows, played, frames.to(self.device))

    @torch.inference_mode()
    def imagine(
        self,
        state: WorldState,
        actions: Int[Tensor, " B"],
        generator: Draws | None = None,
        *,
        source: ActionSource = "real",
        num_maskgit_steps: int | None = None,
        temperature: float | None = None,
    ) -> Imagined:
        """Return the next states with the chances of each reward class and of the end.

        Args:
            state: where the games stand; left as it is.
            actions: indices of the real action set, or of the latent codes.
            generator: one for all or a stream a row; without one the likeliest tokens are taken.
            source: which of the two `actions` are.
            num_maskgit_steps: refinement steps; the bundle's by default.
            temperature: sampling temperature; the bundle's by default.

        Raises:
            InvalidActionError: an action lies outside its set.
            WorldError: the bundle lacks a part that the step needs, or there are more or fewer
                actions or streams than games.
        """
        self._require("reward", "step")
        _check_one_each(actions, len(state.tokens))
        _check_draws(generator, len(state.tokens))
        config = self.config.dynamics
        num_steps = config.num_maskgit_steps if num_maskgit_steps is None else num_maskgit_steps
        if num_steps < 1:
            raise WorldError(f"num_maskgit_steps must be at least 1, got {num_steps}")
        temperature = config.temperature if temperature is None else temperature
        if not 0 <= temperature < math.inf:
            raise WorldError(f"temperature must be a finite number of 0 or more, got {temperature}")
        rows, real_actions = self.action_rows(actions, source), self._real_actions(actions, source)
        tokens, dynamics = self.sampler.sample(
            state.tokens,
            state.led_by,
            rows,
            state.dynamics,
            num_steps=num_steps,
            temperature=temperature,
            generator=generator,
        )
        prediction, reward = self.stack.reward.step(
            tokens, state.tokens, real_actions, state.reward, self._reward_table
        )
        next_state = WorldState(
            tokens=tokens,
            led_by=rows,
            dynamics=dynamics,
            reward=reward,
            decoder=self._history.remember_decoded(state),
            encoder=state.encoder,
        )
        return Imagined(next_state, prediction)

    def step(
        self,
        state: WorldState,
        actions: Int[Tensor, " B"],
        generator: Draws | None = None,
        **options: Any,
    ) -> tuple[WorldState, Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return the next states, the expected rewards, and the chances that the game ended.

        Takes the arguments of `imagine`.
        """
        imagined = self.imagine(state, actions, generator, **options)
        expected = (imagined.prediction.reward_probs * self.reward_classes).sum(-1)
        return imagined.state, expected.float(), imagined.prediction.terminated_prob.float()

    @torch.inference_mode()
    def uncertainty(
        self, state: WorldState, actions: Int[Tensor, " B"], source: ActionSource = "real"
    ) -> Float[Tensor, "B S"]:
        """Return how unsure each token of the next frame is: its entropy, in bits.

        Of the first guess, before anything is drawn, at the bundle's temperature (at 1 if that is
        0): what training smooths over near codes is no doubt.

        Raises:
            InvalidActionError: an action lies outside its set.
            WorldError: the bundle lacks a part that such actions need.
        """
        logits = self.sampler.first_logits(
            state.tokens, state.led_by, self.action_rows(actions, source), state.dynamics
        )
        log_probs = (logits.float() / (self.config.dynamics.temperature or 1)).log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1) / math.log(2)

    @torch.inference_mode()
    def decode(self, state: WorldState) -> UInt8[Tensor, "B H W C"]:
        """Return the newest frame of every game."""
        frames, _ = self.stack.tokenizer.decode_step(state.tokens, state.decoder, is_kept=False)
        return to_uint8(frames.float())

    @torch.inference_mode()
    def infer_latent_actions(self, frames: UInt8[Tensor, "B T H W C"]) -> Int[Tensor, "B T-1"]:
        """Name the latent action of every transition of real frames."""
        self._require("lam", "naming latent actions")
        return self.stack.lam.infer(to_float(frames.to(self.device)))

    def action_rows(
        self, actions: Int[Tensor, "*batch"], source: ActionSource = "real"
    ) -> Int[Tensor, "*batch"]:
        """Return the rows of the dynamics' action table that stand for actions.

        They are checked where they lie: a step by actions on the CPU never waits for a GPU.

        Raises:
            InvalidActionError: an action lies outside its set.
            WorldError: the bundle lacks a part that such actions need.
        """
        self._check_actions(actions, source)
        actions = actions.to(self.device)
        if source == "real" and not self._needs_map:
            return self.stack.dynamics.real_action_rows(actions)
        if source == "real":
            self._require("action_map", "a step by real actions")
            actions = self.stack.action_map.codes(actions)
        return self.stack.dynamics.latent_action_rows(actions)

    def _past(
        self, actions: Int[Tensor, "*batch"], source: ActionSource
    ) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
        """Return table rows of past actions for the dynamics, and the real ones, -1 if unknown."""
        self._check_actions(actions, source)
        played = self._real_actions(actions, source)
        if source == "real" and self._needs_map and "action_map" not in self.parts:
            return torch.zeros_like(played), played  # such a past is not known
        return self.action_rows(actions, source), played

    @property
    def _needs_map(self) -> bool:
        """Whether the dynamics has met latent actions alone."""
        return self.config.dynamics.latent_prob == 1

    def _real_actions(
        self, actions: Int[Tensor, "*batch"], source: ActionSource
    ) -> Int[Tensor, "*batch"]:
        actions = actions.to(self.device)
        return actions if source == "real" else torch.full_like(actions, -1)  # not known

    def _check_frames(self, frames: Shaped[Tensor, "..."], *axes: str) -> None:
        if frames.dtype != torch.uint8:
            raise WorldError(f"frames must be uint8 in [0, 255], got {frames.dtype}")
        size = (self.config.height, self.config.width, 3)
        if tuple(frames.shape[len(axes) :]) != size:
            raise WorldError(
                f"frames must be ({', '.join(map(str, axes + size))}), got {tuple(frames.shape)}. "
                "Resize them to the world's size"
            )

    def _check_actions(self, actions: Int[Tensor, "*batch"], source: ActionSource) -> None:
        if source == "latent":
            self._require("lam", "a step by latent actions")
        limit = self.num_actions if source == "real" else self.num_latent_actions
        if actions.numel() and not (0 <= int(actions.min()) and int(actions.max()) < limit):
            wrong = actions[(actions < 0) | (actions >= limit)][0].item()
            raise InvalidActionError(
                f"action must be an index of the {limit} {source} actions, in [0, {limit}), got "
                f"{wrong}"
            )

    def _require(self, part: str, purpose: str) -> None:
        if part not in self.parts:
            raise WorldError(
                f"this world has no trained {part!r} part, which {purpose} needs; it has "
                f"{sorted(self.parts)}. Train it: genie-gym train --stage {part}, then export"
            )


def _check_one_each(actions: Int[Tensor, "..."], num_games: int) -> None:
    if actions.shape != (num_games,):
        raise WorldError(
            f"{num_games} games take {num_games} actions, got actions of shape "
            f"{tuple(actions.shape)}"
        )


def _check_draws(generator: Draws | None, num_games: int) -> None:
    if not isinstance(generator, Draws | None):
        raise WorldError(
            "generator must be a torch.Generator, or None, got "
            f"{type(generator).__name__}: for random numbers of its own a game, take Streams "
            "(genie_gym.nn.draws)"
        )
    if isinstance(generator, Streams) and len(generator) != num_games:
        raise WorldError(
            f"{num_games} games take one generator, or {num_games} streams; got "
            f"{len(generator)} streams"
        )
