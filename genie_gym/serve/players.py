"""A policy at one game of a session."""

from typing import Any

from genie_gym.agents.policy import Policy
from genie_gym.serve.steps import unpack


class PolicyPlayer:
    """What a policy saw of one game, and what it makes of it.

    Args:
        policy: its network is shared; memory and random numbers are this game's own.
        shape: of a frame.
        seed: of its draws.
    """

    def __init__(self, policy: Policy, shape: tuple[int, int, int], seed: int) -> None:
        self._policy = Policy(policy.card, policy.network)
        self._policy.generator.manual_seed(seed)
        self._shape = shape
        self._memory: Any = None
        self._seen: bytes | None = None
        self._action = 0

    def act(self, before: bytes | None, newest: bytes) -> int:
        """Return an action at the newest of two packed frames; a second look draws nothing.

        Its memory begins anew where it did not see the frame before: after a rewind, or when it
        takes over.
        """
        if newest is not self._seen:
            follows = before is not None and before is self._seen
            frame = unpack(newest, self._shape)
            action, self._memory = self._policy.predict(frame, self._memory if follows else None)
            self._action, self._seen = int(action), newest
        return self._action

    def value(self, before: bytes | None, newest: bytes) -> float:
        """Return what its critic expects there."""
        self.act(before, newest)
        return float(self._policy.value(self._memory)[0])
