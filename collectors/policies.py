"""Policies that play the real game while it is recorded."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float32, UInt8

from collectors.agent_player import AgentPlayer, agent_sha256
from collectors.breakout_player import BreakoutPlayer
from collectors.freeway_player import FreewayPlayer
from collectors.human_player import HumanPlayer, PlayableEnv
from collectors.pong_player import PongPlayer
from collectors.sb3_player import Sb3Player, model_sha256
from collectors.settings import GYM_PREFIX
from genie_gym.errors import ConfigError, GameError, did_you_mean
from genie_gym.games import game_of

Action = int | Float32[np.ndarray, " A"]
POLICIES = ("random", "repeat", "scripted", "mixed", "human")
SCRIPTED: dict[str, Callable[[], "Policy"]] = {
    "Breakout": BreakoutPlayer,
    "Freeway": FreewayPlayer,
    "Pong": PongPlayer,
}
DEFAULT_SHARES = {"Pong": {"scripted": 0.5, "repeat": 0.3, "random": 0.2}}
OTHER_SHARES = {"repeat": 0.6, "random": 0.4}
NOISE_LEVELS = (0.0, 0.1, 0.3, 0.6)
SHA256 = {"sb3": model_sha256, "agent": agent_sha256}
"""Kinds of policies that lie in files, and what tells which files played."""


@runtime_checkable
class Policy(Protocol):
    """What the recorder asks: an action for a frame. All state is set anew by `reset`."""

    @property
    def description(self) -> str:
        """What plays in this episode, as the recording states it."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; every random number of it comes from `rng`."""

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> Action:
        """Return the action to take on seeing a frame."""


class RepeatPolicy:
    """Keeps its last action with some probability, else draws uniformly; 0 is uniform play.

    Args:
        actions: number of discrete actions, or a bounded Box.
        repeat_prob: probability of keeping the action.
    """

    def __init__(self, actions: int | Box, *, repeat_prob: float = 0.9) -> None:
        self.description = f"repeat({repeat_prob:g})" if repeat_prob else "random"
        self._actions = actions
        self._repeat_prob = repeat_prob

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode with a fresh uniform action."""
        self._rng = rng
        self._action = self._draw()

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> Action:
        """Return the action; the frame is not looked at."""
        if self._rng.random() >= self._repeat_prob:
            self._action = self._draw()
        return self._action

    def _draw(self) -> Action:
        if isinstance(self._actions, Box):
            return self._rng.uniform(self._actions.low, self._actions.high).astype(np.float32)
        return int(self._rng.integers(self._actions))


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

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> Action:
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

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> Action:
        """Return the drawn policy's action."""
        return self._policy.act(obs)


def make_policy(
    name: str,
    game: str,
    actions: int | Box,
    *,
    frame_shape: tuple[int, ...] = (64, 64, 3),
    env: PlayableEnv | None = None,
) -> Policy:
    """Return a policy by name.

    Args:
        name: "random" (uniform), "repeat" (keeps its action nine times in ten; "repeat:0.8" eight
            times), "scripted" (plays to win; Breakout, Freeway and Pong), "human" (a person at the
            keyboard), "agent:PATH" (a policy that genie-gym trained), "sb3:PATH" (a model that
            Stable-Baselines3 saved), or "mixed" (draws one of these per episode, the scripted one
            at four levels of noise).
            "mixed:scripted=0.6,random=0.4" names the shares, which need not add up to 1.
        game: name or id of an ALE game, or "gym:ENV_ID".
        actions: size of the action space, or a bounded Box.
        frame_shape: height, width and 3 channels of the frames that the policy will see.
        env: what a person plays in; no other policy needs it.

    Raises:
        ConfigError: no policy has this name, a share is no number, a model does not fit, or a
            person has no screen or environment.
        GameError: the policy does not play this game.
        PolicyError: there is no such trained policy, or it learned something else.
    """
    if not game.startswith(GYM_PREFIX):
        game = game_of(game)
    kind, _, rest = name.partition(":")
    if kind == "mixed":
        default = DEFAULT_SHARES.get(game, OTHER_SHARES)
        shares = default if name == "mixed" else _read_shares(name, rest)
        choices: list[tuple[Policy, float]] = []
        for part, share in shares.items():
            levels = _levels(part, game, actions, frame_shape, env)
            choices += [(level, share / len(levels)) for level in levels]
        return MixedPolicy(choices)
    if kind == "sb3":
        return Sb3Player(rest, actions, frame_shape)
    if kind == "agent":
        return AgentPlayer(rest, game, actions, frame_shape)
    if name == "scripted":
        return _scripted(game)
    if name == "human":
        if env is None:
            raise ConfigError("policy 'human' plays only while genie-gym collect records")
        return HumanPlayer(env)
    if name == "random":
        return RepeatPolicy(actions, repeat_prob=0.0)
    if kind == "repeat":
        return RepeatPolicy(actions, repeat_prob=_read_prob(name, rest) if rest else 0.9)
    raise ConfigError(
        f"unknown policy {name!r}.{did_you_mean(name, POLICIES)} Known: {list(POLICIES)}, "
        "mixed:POLICY=SHARE,POLICY=SHARE, agent:PATH and sb3:PATH"
    )


def models_sha256(name: str) -> str | None:
    """Return the SHA-256 of every saved model in a policy's name, commas between; None for none.

    Raises:
        ConfigError: there is no such file, or a share is no number.
        PolicyError: there is no such trained policy, or it is damaged.
    """
    kind, is_written, rest = name.partition(":")
    parts = _read_shares(name, rest) if kind == "mixed" and is_written else [name]
    named = [part.partition(":") for part in parts]
    return ",".join(SHA256[kind](path) for kind, _, path in named if kind in SHA256) or None


def _levels(
    name: str,
    game: str,
    actions: int | Box,
    frame_shape: tuple[int, ...],
    env: PlayableEnv | None,
) -> list[Policy]:
    """Return the policies that share one part of a mixture."""
    if name != "scripted":
        return [make_policy(name, game, actions, frame_shape=frame_shape, env=env)]
    # Levels from a sure win to a sure loss: a world must know both sides of every point.
    players = [(_scripted(game), noise) for noise in NOISE_LEVELS]
    assert isinstance(actions, int)  # as in every game that has a scripted player
    return [NoisyPolicy(player, actions, noise=noise) for player, noise in players]


def _scripted(game: str) -> Policy:
    if game not in SCRIPTED:
        raise GameError(
            f"policy 'scripted' plays only {', '.join(SCRIPTED)}, got game {game!r}. "
            "Take 'mixed', 'repeat' or 'random'"
        )
    return SCRIPTED[game]()


def _read_prob(name: str, text: str) -> float:
    """Read the 0.8 of "repeat:0.8"."""
    try:
        prob = float(text)
    except ValueError:
        prob = np.nan
    if not 0 <= prob < 1:
        raise ConfigError(
            "repeat:P keeps the last action with probability P, at least 0 and below 1, got "
            f"{name!r}"
        )
    return prob


def _read_shares(name: str, text: str) -> dict[str, float]:
    """Read "scripted=0.6,random=0.4"."""
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        shares = {policy: float(share) for policy, _, share in parts}
    except ValueError:
        shares = {}
    is_readable = len(shares) == len(parts) and all(0 < share < np.inf for share in shares.values())
    if not is_readable or any(policy.startswith("mixed") for policy in shares):
        raise ConfigError(
            "a mixture is written mixed:POLICY=SHARE,POLICY=SHARE, each of random, repeat, "
            "scripted, human, agent:PATH and sb3:PATH at most once and with a share above 0, got "
            f"{name!r}"
        )
    return shares
