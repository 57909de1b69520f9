"""A trained policy in the world's model: its chances propose plans, its value scores their ends."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt8
from torch import Tensor

from genie_gym.agents.dreamer_network import TokenPolicy, action_log_probs
from genie_gym.agents.observations import grey
from genie_gym.agents.policy import Policy
from genie_gym.envs.planning import WorldModel
from genie_gym.errors import PolicyError
from genie_gym.models.state import WorldState
from genie_gym.models.world import World

Seen = Shaped[Tensor, "B K ..."]
"""The frames that a policy sees at once, oldest first: grey ones, or their tokens."""


@dataclass(frozen=True, slots=True)
class GuidedState(WorldState):
    """Where imagined games stand, and what a policy sees of them."""

    seen: Seen

    @staticmethod
    def of(state: WorldState, seen: Seen) -> "GuidedState":
        """Put what is seen beside a state."""
        names = (field.name for field in dataclasses.fields(WorldState))
        return GuidedState(**{name: getattr(state, name) for name in names}, seen=seen)

    def push(self, state: WorldState, newest: Shaped[Tensor, "B ..."]) -> "GuidedState":
        """Return a later state; `newest` is what is seen of its newest frames."""
        return GuidedState.of(state, torch.cat([self.seen[:, 1:], newest[:, None]], dim=1))


class PixelGuide:
    """A policy that reads grey frames: each imagined frame is decoded for it."""

    def __init__(self, policy: Policy, world: World) -> None:
        self.num_frames = policy.card.network.num_frames
        self._network = policy.network
        self._world = world

    def look(
        self, state: WorldState, frames: UInt8[np.ndarray, "B H W C"] | None = None
    ) -> UInt8[Tensor, "B H W"]:
        """Return the newest frames in grey; imagined ones, which are not at hand, are decoded."""
        if frames is None:
            frames = self._world.decode(state).cpu().numpy()
        return torch.from_numpy(grey(frames)).to(state.tokens.device)

    @torch.no_grad()
    def chances(self, seen: Seen) -> Float[Tensor, "B actions"]:
        """Return the chances of the actions."""
        probs: Tensor = self._network.get_distribution(seen).distribution.probs
        return probs

    @torch.no_grad()
    def value(self, seen: Seen) -> Float[Tensor, " B"]:
        """Return the rewards, discounted, that the critic expects from here on."""
        values: Tensor = self._network.predict_values(seen)
        return values[:, 0]


class TokenGuide:
    """A policy that reads the world's own tokens: no frame is decoded. It has no critic."""

    value = None

    def __init__(self, policy: Policy) -> None:
        self.num_frames = policy.card.network.num_frames
        self._actor = policy.network.actor

    def look(
        self, state: WorldState, frames: UInt8[np.ndarray, "B H W C"] | None = None
    ) -> Int[Tensor, "B S"]:
        """Return the tokens of the newest frames."""
        return state.tokens

    @torch.no_grad()
    def chances(self, seen: Seen) -> Float[Tensor, "B actions"]:
        """Return the chances of the actions."""
        return action_log_probs(self._actor, seen).exp()


Guide = PixelGuide | TokenGuide
"""A policy as planning asks it: `look` gives what it sees, `chances` and `value` what it says."""


def make_guide(policy: Policy, world: World) -> Guide:
    """Return a policy as planning in a world asks it.

    Raises:
        PolicyError: it has no chances of actions, remembers more than its last frames, or reads
            the tokens of another world.
    """
    algo = policy.card.algo
    if algo in ("ppo", "a2c"):
        return PixelGuide(policy, world)
    if algo != "dreamer":
        why = "gives no chances" if algo == "dqn" else "remembers more than its last frames"
        raise PolicyError(
            f"planning takes a policy of ppo, a2c or dreamer, got one of {algo!r}, which {why}"
        )
    assert isinstance(policy.network, TokenPolicy)
    mine, theirs = world.stack.tokenizer.state_dict(), policy.network.tokenizer.state_dict()
    if mine.keys() != theirs.keys() or any(not torch.equal(mine[k], theirs[k]) for k in mine):
        raise PolicyError(
            "this policy reads the tokens of another world than the one to plan in: it was trained "
            f"in {policy.card.world!r}. Plan in that one, or take a policy of pixels (ppo, a2c)"
        )
    return TokenGuide(policy)


class GuidedModel(WorldModel):
    """A world from some states on, and a policy that has seen the games up to there.

    Args:
        world: a trained world with a reward model.
        state: the roots.
        guide: the policy.
        options: others of `WorldModel`.
    """

    def __init__(self, world: World, state: GuidedState, guide: Guide, **options: Any) -> None:
        value = guide.value
        super().__init__(
            world,
            state,
            policy=lambda state: guide.chances(_guided(state).seen),
            value=None if value is None else lambda state: value(_guided(state).seen),
            **options,
        )
        self._guide = guide

    def step(
        self, state: WorldState, actions: Int[Tensor, " rows"]
    ) -> tuple[GuidedState, Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Return the next states, the expected rewards, and the chances that the games go on."""
        later, reward, continuation = super().step(state, actions)
        return _guided(state).push(later, self._guide.look(later)), reward, continuation


def _guided(state: WorldState) -> GuidedState:
    assert isinstance(state, GuidedState)  # states keep their kind
    return state


class GuidedFollower:
    """Follows games for a world and a policy at once.

    Args:
        follow: gives the world's model of the games as they stand.
        world: that world.
        guide: the policy.
        options: those of `WorldModel`.
    """

    def __init__(
        self, follow: Callable[..., WorldModel], world: World, guide: Guide, **options: Any
    ) -> None:
        self._follow = follow
        self._world = world
        self._guide = guide
        self._options = options
        self._state: GuidedState | None = None

    def __call__(
        self,
        obs: UInt8[np.ndarray, "B H W C"],
        actions: Int64[np.ndarray, " B"] | None,
        is_first: Bool[np.ndarray, " B"],
    ) -> GuidedModel:
        """Take the newest frames, and return the model of the games; arguments of `WorldFollower`.

        The policy sees what it sees when it plays: the first frame of a game, repeated, and then
        one more at each step.
        """
        state = self._follow(obs, actions, is_first).snapshot()
        newest = self._guide.look(state, obs)
        begun = GuidedState.of(state, repeat(newest, "B ... -> B K ...", K=self._guide.num_frames))
        if self._state is None or actions is None:
            guided = begun
        else:
            is_new = torch.tensor(is_first, device=newest.device)
            guided = _guided(self._state.push(state, newest).where(is_new, begun))
        self._state = guided
        return GuidedModel(self._world, guided, self._guide, **self._options)
