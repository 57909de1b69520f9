"""Policies that play the real game while it is recorded."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from collectors.pong_player import PongPlayer
from genie_gym.errors import ConfigError, GameError, did_you_mean
from genie_gym.games import game_of


@runtime_checkable
class Policy(Protocol):
    """What the recorder asks: an action for a frame. All state is set anew by `reset`."""

    @property
    def description(self) -> str:
        """What plays in this episode, as the recording states it."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; every random number of it comes from `rng`."""

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the action to take on seeing a frame."""


class RepeatPolicy:
    """Keeps its last action with some probability, else draws uniformly; 0 is uniform play."""

    def __init__(self, num_actions: int, *, repeat_prob: float = 0.9) -> None:
        self.description = f"repeat({repeat_prob:g})" if repeat_prob else "random"
        self._num_actions = num_actions
        self._repeat_prob = repeat_prob

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode with a fresh uniform action."""
        self._rng = rng
        self._action = int(rng.integers(self._num_actions))

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the action; the frame is not looked at."""
        if self._rng.random() >= self._repeat_prob:
            self._action = int(self._rng.integers(self._num_actions))
        return self._action


class NoisyPolicy:
    """Plays another policy's actions, interrupted by bursts of one random action held for a while.

    Args:
        policy: the policy that plays between the bursts; it sees every frame.
        num_actions: size of the action space.
        noise: share of steps that lie in a burst, in [0, 1).
        mean_burst: mean length of a burst in steps; lengths are geometric.
    """

    def __init__(
        self, policy: Policy, num_actions: int, *, noise: float, mean_burst: float = 6.0
    ) -> None:
        self.description = f"{policy.description}(noise={noise:g})"
        self._policy = policy
        self._num_actions = num_actions
        self._end_prob = 1.0 / mean_burst
        # Share in a burst = start / (start + end) for a chain with these two probabilities.
        self._start_prob = self._end_prob * noise / (1.0 - noise)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode outside any burst."""
        self._rng = rng
        self._policy.reset(rng)
        self._burst_action: int | None = None

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the burst's action, or else the policy's."""
        action = self._policy.act(obs)
        if self._burst_action is not None and self._rng.random() < self._end_prob:
            self._burst_action = None
        elif self._burst_action is None and self._rng.random() < self._start_prob:
            self._burst_action = int(self._rng.integers(self._num_actions))
        return action if self._burst_action is None else self._burst_action


class MixedPolicy:
    """Draws one of several policies for each episode.

    Args:
        choices: (policy, share) pairs; shares are normalized.
    """

    def __init__(self, choices: list[tuple[Policy, float]]) -> None:
        self._policies = [policy for policy, _ in choices]
        shares = np.array([share for _, share in choices])
        self._shares = shares / shares.sum()
        self._policy = self._policies[0]

    @property
    def description(self) -> str:
        """What plays in this episode."""
        return self._policy.description

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the episode's policy and begin with it."""
        self._policy = self._policies[rng.choice(len(self._policies), p=self._shares)]
        self._policy.reset(rng)

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the drawn policy's action."""
        return self._policy.act(obs)


def _scripted(game: str, num_actions: int) -> Policy:
    if game != "Pong":
        raise GameError(
            f"policy 'scripted' plays only Pong, got game {game!r}. "
            "Take 'mixed', 'repeat' or 'random'"
        )
    return PongPlayer()


def _mixed(game: str, num_actions: int) -> Policy:
    held = RepeatPolicy(num_actions)
    uniform = RepeatPolicy(num_actions, repeat_prob=0.0)
    if game != "Pong":
        return MixedPolicy([(held, 0.6), (uniform, 0.4)])
    # Levels from a sure win to a sure loss: a world must know both sides of every point.
    skilled: list[tuple[Policy, float]] = [
        (NoisyPolicy(PongPlayer(), num_actions, noise=noise), 0.5 / 4)
        for noise in (0.0, 0.1, 0.3, 0.6)
    ]
    return MixedPolicy([*skilled, (held, 0.3), (uniform, 0.2)])


POLICIES: dict[str, Callable[[str, int], Policy]] = {
    "random": lambda game, num_actions: RepeatPolicy(num_actions, repeat_prob=0.0),
    "repeat": lambda game, num_actions: RepeatPolicy(num_actions),
    "scripted": _scripted,
    "mixed": _mixed,
}


def make_policy(name: str, game: str, num_actions: int) -> Policy:
    """Return a policy by name.

    Args:
        name: "random" (uniform), "repeat" (keeps its action nine times in ten), "scripted"
            (Pong only: plays to win), or "mixed" (draws one of these per episode, the scripted
            one at four levels of noise).
        game: name or id of an ALE game.
        num_actions: size of the game's action space.

    Raises:
        ConfigError: no policy has this name.
        GameError: the policy does not play this game.
    """
    if name not in POLICIES:
        raise ConfigError(
            f"unknown policy {name!r}.{did_you_mean(name, POLICIES)} Known: {sorted(POLICIES)}"
        )
    return POLICIES[name](game_of(game), num_actions)
