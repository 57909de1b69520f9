"""The real game as a model that a planner can roll out: an oracle, by cloning the emulator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ale_py
import gymnasium as gym
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genie_gym.envs.real import RealEnv
from genie_gym.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RealRoots:
    """Emulators as they stood; never changed."""

    emulators: tuple[ale_py.ALEState, ...]

    def expand(self, num_copies: int) -> "RealRoots":
        """Return every emulator `num_copies` times, copies side by side."""
        return RealRoots(tuple(one for one in self.emulators for _ in range(num_copies)))


class RealRollout(NamedTuple):
    """What N candidate plans of T steps earn, from B roots."""

    expected_reward: Float[Tensor, "B N T"]
    continuation: Float[Tensor, "B N T"]
    state: RealRoots
    """Emulators at the ends, candidates of one root side by side."""


class RealModel:
    """Real games from where they stand on: what a perfect model would say.

    Candidates are played in an emulator of its own, without screens; of the live games only copies
    are taken. With sticky actions the copies hold the emulator's random numbers, so the oracle
    foresees even those. A limit on the steps of an episode is not seen.

    Args:
        envs: the live games, all with the same settings; wrappers are looked through.

    Raises:
        ConfigError: a game cannot be cloned, or two differ in their settings.
    """

    action_bounds = None
    policy = None
    value = None

    def __init__(self, envs: Sequence[gym.Env[Any, Any]]) -> None:
        self._envs = [_real_env(env) for env in envs]
        settings = {(env.game, env.frame_skip, env.sticky) for env in self._envs}
        if len(settings) != 1:
            raise ConfigError(
                "one model plans in games of one kind: game, frame_skip and sticky must agree, got "
                f"{sorted(settings)}"
            )
        [(game, frame_skip, sticky)] = settings
        self._rehearsal = RealEnv(game, frame_skip=frame_skip, sticky=sticky)
        self.num_roots = len(self._envs)
        self.num_actions = len(self._envs[0].action_meanings)

    def snapshot(self) -> RealRoots:
        """Return copies of the live games as they stand now."""
        return RealRoots(tuple(env.ale.cloneState(include_rng=True) for env in self._envs))

    def rollout(self, state: RealRoots, actions: Int[Tensor, "B N T"]) -> RealRollout:
        """Return what each plan earns; after a game's end nothing is earned."""
        rewards, continuations = torch.zeros(actions.shape), torch.zeros(actions.shape)
        ends = []
        for root, plans in enumerate(actions.tolist()):
            for candidate, plan in enumerate(plans):
                earned, num_survived, end = self._play(state.emulators[root], plan)
                rewards[root, candidate, : len(earned)] = torch.tensor(earned)
                continuations[root, candidate, :num_survived] = 1
                ends.append(end)
        return RealRollout(rewards, continuations, RealRoots(tuple(ends)))

    def step(
        self, state: RealRoots, actions: Int[Tensor, " rows"]
    ) -> tuple[RealRoots, Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Return where one step leads, what it earns, and whether the games go on."""
        plans = actions[:, None, None]
        rollout = self.rollout(state, plans)
        return rollout.state, rollout.expected_reward[:, 0, 0], rollout.continuation[:, 0, 0]

    def _play(
        self, emulator: ale_py.ALEState, plan: list[int]
    ) -> tuple[list[float], int, ale_py.ALEState]:
        """Return the steps' rewards until the end, how many were survived, and where they lead."""
        ale, earned, num_survived = self._rehearsal.ale, [], 0
        ale.restoreState(emulator)
        for action in plan:
            if ale.game_over(with_truncation=False):
                break
            reward, is_over = self._rehearsal.hold(action)
            earned.append(reward)
            num_survived += not is_over
        return earned, num_survived, ale.cloneState(include_rng=True)


def _real_env(env: gym.Env[Any, Any]) -> RealEnv:
    real = env.unwrapped
    if not isinstance(real, RealEnv):
        raise ConfigError(
            f"{env} cannot be cloned, which planning in the real game needs: make it with RealEnv "
            "(genie_gym.envs.real), or plan in a learned world (genie_gym.envs.planning.WorldModel)"
        )
    return real
