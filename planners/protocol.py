"""What a planner needs of a model: tensors in, tensors out, batched over roots and candidates."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


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
class Model(Protocol):
    """A model that can be rolled out without touching the game it was taken from."""

    num_actions: int

    def snapshot(self) -> Any:
        """Return the states to plan from, a batch of B roots."""

    def rollout(self, state: Any, actions: Int[Tensor, "B N T"]) -> RolloutLike:
        """Return what each candidate plan earns; `state` is left as it is."""
