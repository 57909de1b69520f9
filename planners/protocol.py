"""What a planner needs of a model: tensors in, tensors out, batched over roots and candidates."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Actions = Int[Tensor, "B N T"] | Float[Tensor, "B N T dims"]
"""Candidate plans: indices of a discrete set, or vectors."""


class Rollout(NamedTuple):
    """What N candidate plans of T steps lead to, from B roots."""

    expected_reward: Float[Tensor, "B N T"]
    """Mean reward of each step."""
    continuation: Float[Tensor, "B N T"]
    """Chance that the game goes on after each step."""
    state: Any
    """Model states at the ends, candidates of one root side by side."""


@runtime_checkable
class RolloutLike(Protocol):
    """Anything with the fields of a `Rollout`: a model need not import this package."""

    @property
    def expected_reward(self) -> Float[Tensor, "B N T"]:
        """Mean reward of each step."""

    @property
    def continuation(self) -> Float[Tensor, "B N T"]:
        """Chance that the game goes on after each step."""

    @property
    def state(self) -> Any:
        """Model states at the ends."""


@runtime_checkable
class StateLike(Protocol):
    """States of some games; opaque but for this."""

    def expand(self, num_copies: int) -> Any:
        """Return every state `num_copies` times, copies side by side."""


Policy = Callable[[Any], Float[Tensor, "rows actions"]]
"""Chances of the discrete actions in each state."""
Value = Callable[[Any], Float[Tensor, " rows"]]
"""Discounted return that is still to be expected in each state."""


@runtime_checkable
class Model(Protocol):
    """A model that can be rolled out without touching the game it was taken from."""

    @property
    def num_roots(self) -> int:
        """How many games are planned for at once."""

    @property
    def num_actions(self) -> int | None:
        """Size of the discrete action set; None where actions are vectors."""

    @property
    def action_bounds(self) -> Float[Tensor, "two dims"] | None:
        """Lowest and highest action vector; None where actions are discrete."""

    @property
    def policy(self) -> Policy | None:
        """Proposes candidates; None if there is none."""

    @property
    def value(self) -> Value | None:
        """Judges the ends of plans; None if there is none."""

    def snapshot(self) -> StateLike:
        """Return the states to plan from, a batch of B roots."""

    def rollout(self, state: Any, actions: Actions) -> RolloutLike:
        """Return what each candidate plan earns; `state` is left as it is."""

    def step(
        self, state: Any, actions: Int[Tensor, " rows"] | Float[Tensor, "rows dims"]
    ) -> tuple[StateLike, Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Return the next states, the mean rewards, and the chances that the games go on."""
