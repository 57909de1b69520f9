"""B imagined games side by side: the one place where a game starts, is stepped, and is drawn for.

The single environment is one slot and the vector environment many, so the two cannot differ. Every
slot has random numbers of its own; what other slots do never moves them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Bool, Float64, Int64, UInt8

from genie_gym.errors import ConfigError, WorldError, did_you_mean
from genie_gym.games import game_of
from genie_gym.models.bundle import CARD_FILE, find_bundle, load_world
from genie_gym.models.state import WorldState
from genie_gym.models.world import ActionSource, World
from genie_gym.nn.draws import Streams, uniform
from genie_gym.nn.masking import draw_codes

NUM_SHARED_WORLDS = 4
"""Worlds kept in memory for the next environment that asks for the same one."""
SMALL_RESET = 8
"""Resets of up to this many slots are computed together, whatever the number of slots."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldEnvConfig:
    """Options of the learned environments; all of them JSON-able."""

    game: str
    """Name of the ALE game."""
    world: str | None = None
    """Name, folder or hf:// repository of the world; the game's name in lower case by default."""
    device: str = "cpu"
    """Where the world runs: "cpu", "cuda", "cuda:1" or "auto"."""
    dtype: str = "float32"
    """Precision of dynamics and reward model: "float32" or "bfloat16"."""
    num_maskgit_steps: int | None = None
    """Refinement steps a frame; the world's own number by default."""
    temperature: float | None = None
    """Sampling temperature of the frames; the world's own by default; 0 takes the likeliest."""
    action_mode: Literal["ale", "latent"] = "ale"
    """Actions are indices of the game's minimal action set, or latent codes."""
    reward_mode: Literal["sampled", "expected"] = "sampled"
    """A step earns a drawn reward class, or the mean over the classes."""
    max_episode_steps: int | None = 1000
    """Steps after which an episode is truncated; None for no limit."""
    compile: bool = False
    """Whether the networks' steps go through `torch.compile`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_maskgit_steps", "max_episode_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"env.{name} must be at least 1, or None, got {value}")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"env.temperature must be a finite number of 0 or more, got {self.temperature}"
            )


@dataclass(frozen=True, slots=True)
class SlotsState:
    """Everything that decides how the games of some `Slots` go on."""

    world: WorldState
    """Where the games stand."""
    streams: Streams
    """Random numbers of frames and rewards."""
    np_randoms: tuple[dict[str, Any], ...]
    """States of the generators that draw starts, and seeds of the streams."""
    num_steps: Int64[np.ndarray, " B"]
    is_over: Bool[np.ndarray, " B"]

    @staticmethod
    def join(states: Sequence["SlotsState"]) -> "SlotsState":
        """Return the games of all states side by side, in order."""
        streams = [state.streams for state in states]
        return SlotsState(
            world=WorldState.join([state.world for state in states]),
            streams=Streams(
                torch.cat([one.seeds for one in streams]),
                torch.cat([one.num_drawn for one in streams]),
            ),
            np_randoms=tuple(one for state in states for one in state.np_randoms),
            num_steps=np.concatenate([state.num_steps for state in states]),
            is_over=np.concatenate([state.is_over for state in states]),
        )

    def split(self) -> list["SlotsState"]:
        """Return every game as a state of its own, in the memory of all; `clone` frees the rest."""
        rows = [slice(row, row + 1) for row in range(len(self.num_steps))]
        return [
            SlotsState(
                world=self.world.row(row.start),
                streams=Streams(self.streams.seeds[row], self.streams.num_drawn[row]),
                np_randoms=self.np_randoms[row],
                num_steps=self.num_steps[row],
                is_over=self.is_over[row],
            )
            for row in rows
        ]

    def clone(self) -> "SlotsState":
        """Return a copy that shares no memory."""
        return SlotsState(
            world=self.world.clone(),
            streams=self.streams.clone(),
            np_randoms=self.np_randoms,
            num_steps=self.num_steps.copy(),
            is_over=self.is_over.copy(),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step gave to every slot."""

    rewards: Float64[np.ndarray, " B"]
    terminated: Bool[np.ndarray, " B"]
    truncated: Bool[np.ndarray, " B"]
    expected_rewards: Float64[np.ndarray, " B"]
    terminated_probs: Float64[np.ndarray, " B"]


class Slots:
    """B games of one world, each with its own random numbers and its own count of steps."""

    def __init__(
        self, config: WorldEnvConfig, num_slots: int, *, world: World | None = None
    ) -> None:
        """Take the world that the config names.

        Args:
            config: options of all games.
            num_slots: how many games.
            world: the world of that name, where the caller holds it.

        Raises:
            GameError: there is no such game.
            WorldError: there is no such world, or it is another game's.
            DeviceError: the device is not there.
        """
        self.config = config
        self.num_slots = num_slots
        self.world = shared_world(config) if world is None else world
        self.max_episode_steps = config.max_episode_steps
        self.np_randoms: list[np.random.Generator] = []
        """One a slot; set by the environment, which seeds them, before a reset."""
        self.num_steps = np.zeros(num_slots, np.int64)
        self.is_over = np.ones(num_slots, np.bool_)
        zeros = torch.zeros(num_slots, dtype=torch.int64, device=self.world.device)
        self._streams = Streams(zeros, zeros)
        self._state: WorldState | None = None

    @property
    def state(self) -> WorldState:
        """Where the games stand.

        Raises:
            gymnasium.error.ResetNeeded: they have not begun.
        """
        if self._state is None:
            raise ResetNeeded("the episode has not begun: call reset() first")
        return self._state

    @property
    def source(self) -> ActionSource:
        """Which set the actions index."""
        return "real" if self.config.action_mode == "ale" else "latent"

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Frames of one slot."""
        shape = (self.world.config.height, self.world.config.width, 3)
        return gym.spaces.Box(0, 255, shape, np.uint8)

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Actions of one slot."""
        is_real = self.source == "real"
        size = self.world.num_actions if is_real else self.world.num_latent_actions
        return gym.spaces.Discrete(size)

    def reset(
        self, is_reset: Bool[np.ndarray, " B"], starts: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " B"]:
        """Begin the marked games anew; return the start contexts they got.

        Args:
            is_reset: which games to begin.
            starts: start context of each; -1 draws one.
        """
        high = len(self.world.starts)
        wrong = starts[(starts < -1) | (starts >= high)]
        if len(wrong):
            raise WorldError(f"options['start'] must lie in [0, {high}), got {wrong[0]}")

        if not is_reset.all():
            _ = self.state  # some games go on, so all must have begun
        starts = np.where(starts < 0, self._reseed(is_reset), starts)
        rows = is_reset.nonzero()[0]
        # Few sizes of batch, because the size can move the last bit of a result.
        size = min(SMALL_RESET if len(rows) <= SMALL_RESET else self.num_slots, self.num_slots)
        begun = self.world.start(torch.from_numpy(np.resize(starts[rows], size)))
        if is_reset.all():
            self._state = begun
        else:
            places = torch.from_numpy(is_reset.cumsum() - is_reset).to(self.world.device)
            mask = torch.from_numpy(is_reset).to(self.world.device)
            self._state = self.state.where(mask, begun.gather(places.clamp(max=size - 1)))
        return starts

    def reset_to(self, begun: WorldState) -> None:
        """Begin all games anew from states of the world, one a slot."""
        self._reseed(np.ones(self.num_slots, np.bool_))
        self._state = begun

    def step(self, actions: Int64[np.ndarray, " B"]) -> Outcome:
        """Play one action in every slot; what happens in a game that is over means nothing."""
        imagined = self.world.imagine(
            self.state,
            torch.from_numpy(actions),
            self._streams,
            source=self.source,
            num_maskgit_steps=self.config.num_maskgit_steps,
            temperature=self.config.temperature,
        )
        self._state = imagined.state
        probs = imagined.prediction.reward_probs.double().cpu()
        classes = self.world.reward_classes.double().cpu()
        # Drawn in both reward modes, so that the frames are the same in both.
        draws = uniform((), self.num_slots, self._streams, probs.device)
        drawn = draw_codes(probs.log(), draws, 1.0)
        sampled, expected = classes[drawn].numpy(), (probs * classes).sum(-1).numpy()

        terminated_probs = imagined.prediction.terminated_prob.double().cpu().numpy()
        terminated = terminated_probs > 0.5
        self.num_steps += 1
        limit = self.max_episode_steps
        truncated = self.num_steps >= (math.inf if limit is None else limit)
        self.is_over = terminated | truncated
        rewards = sampled if self.config.reward_mode == "sampled" else expected.copy()
        return Outcome(rewards, terminated, truncated, expected, terminated_probs)

    def frames(self) -> UInt8[np.ndarray, "B H W C"]:
        """Return the newest frame of every slot, in memory that nobody else holds."""
        return self.world.decode(self.state).cpu().numpy()

    def get_state(self) -> SlotsState:
        """Return all that decides the future."""
        return SlotsState(
            world=self.state,
            streams=self._streams.clone(),
            np_randoms=tuple(dict(one.bit_generator.state) for one in self.np_randoms),
            num_steps=self.num_steps.copy(),
            is_over=self.is_over.copy(),
        )

    def set_state(self, state: SlotsState) -> None:
        """Go back to a state of the same world.

        Raises:
            ConfigError: the state is of another number of games, or of a world of another shape.
        """
        mine = (self.num_slots, self.world.stack.tokenizer.num_tokens)
        if (theirs := tuple(state.world.tokens.shape)) != mine:
            raise ConfigError(
                f"the state must be of {mine[0]} games of {mine[1]} tokens, got {theirs[0]} of "
                f"{theirs[1]}: take one that get_state() of such an environment gave"
            )
        self._state = state.world
        self._streams = state.streams.clone()
        for np_random, saved in zip(self.np_randoms, state.np_randoms, strict=True):
            np_random.bit_generator.state = saved
        self.num_steps, self.is_over = state.num_steps.copy(), state.is_over.copy()

    def _reseed(self, is_reset: Bool[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """Give the marked slots new random streams; return a drawn start context for each."""
        drawn, seeds = np.zeros((2, self.num_slots), np.int64)
        for row in is_reset.nonzero()[0]:
            seeds[row] = self.np_randoms[row].integers(2**63 - 1)
            drawn[row] = self.np_randoms[row].integers(len(self.world.starts))
        device, old = self.world.device, self._streams
        is_new = torch.from_numpy(is_reset).to(device)
        self._streams = Streams(
            torch.where(is_new, torch.from_numpy(seeds).to(device), old.seeds),
            torch.where(is_new, 0, old.num_drawn),
        )
        self.num_steps[is_reset] = 0
        self.is_over[is_reset] = False
        return drawn


def shared_world(config: WorldEnvConfig) -> World:
    """Return the config's world; environments that ask for the same one share its weights.

    Raises:
        GameError: there is no such game.
        WorldError: there is no such world, or it is another game's.
        DeviceError: the device is not there.
    """
    game = game_of(config.game)
    folder = find_bundle(config.world if config.world is not None else game.lower())
    # A world that was exported again is another world.
    changed = (folder / CARD_FILE).stat().st_mtime_ns
    world = _load_once(folder.resolve(), changed, config.device, config.dtype, config.compile)
    if world.config.game.lower() != game.lower():
        raise WorldError(
            f"{folder} is a world of {world.config.game}, not of {game}. "
            f"Make GenieWorld-{world.config.game}-v0, or name a world of {game}"
        )
    return world


@lru_cache(maxsize=NUM_SHARED_WORLDS)
def _load_once(folder: Path, changed: int, device: str, dtype: str, is_compiled: bool) -> World:
    return load_world(folder, device, dtype, is_compiled=is_compiled)


def check_option_names(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the reset options, or none.

    Raises:
        ConfigError: one of them is unknown.
    """
    for name in options or {}:
        if name not in known:
            suggestion = did_you_mean(str(name), known)
            raise ConfigError(
                f"reset options: unknown key {name!r}.{suggestion} Known: {list(known)}"
            )
    return options or {}


def to_starts(start: Any, num_slots: int) -> Int64[np.ndarray, " B"]:
    """Return one start context a slot from what a caller gave: None, an int, or one int a slot.

    Raises:
        ConfigError: it is something else.
    """
    if start is None:
        return np.full(num_slots, -1, np.int64)
    starts = np.asarray(start)
    if starts.dtype.kind not in "iu" or starts.shape not in ((), (num_slots,)) or starts.min() < 0:
        raise ConfigError(
            "options['start'] must be the index of a start context, 0 or more"
            f"{f', or {num_slots} of them' if num_slots > 1 else ''}, got {start!r}"
        )
    return np.broadcast_to(starts, num_slots).astype(np.int64)
