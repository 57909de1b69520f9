"""A policy that genie-gym trained, as a policy of the recorder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import UInt8

from genie_gym.errors import PolicyError


class AgentPlayer:
    """Plays what a trained policy draws, on the CPU.

    Loading it runs no code: a policy is a folder of safetensors and JSON.

    Args:
        path: what `genie_gym.load_policy` takes: a policy's folder, a run's, or a shipped name.
        game: name of the recorded ALE game, or "gym:" and the id of another environment.
        actions: size of the game's action space, or its Box.
        frame_shape: height, width and 3 channels of a frame.

    Raises:
        PolicyError: there is no such policy, it is damaged, or it learned another game, frames of
            another size or another set of actions.
    """

    def __init__(
        self, path: str, game: str, actions: int | Box, frame_shape: tuple[int, ...]
    ) -> None:
        self._policy = _load(path)
        card = self._policy.card
        if card.game != game:
            raise PolicyError(
                f"policy agent:{path} learned {card.game}, but {game} is recorded. Name a policy "
                "that was trained in this game"
            )
        action_space = actions if isinstance(actions, Box) else Discrete(actions)
        self._policy.check_spaces(Box(0, 255, frame_shape, np.uint8), action_space)
        # The folder may change behind its name: the recording says which one played.
        self.description = f"agent:{Path(path).name}({str(card.weights_hash)[:12]})"

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; everything it draws comes from `rng`."""
        self._policy.generator.manual_seed(int(rng.integers(2**63)))
        self._state: Any = None

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return a drawn action for the newest frames."""
        with _one_thread():
            action, self._state = self._policy.predict(obs, self._state)
        return int(action)


def agent_sha256(path: str) -> str:
    """Return the SHA-256 of a policy's weights, in hexadecimal.

    Raises:
        PolicyError: there is no such policy, or it is damaged.
    """
    return str(_load(path).card.weights_hash)


def _load(path: str) -> Any:
    from genie_gym.agents.policy import load_policy  # brings torch, which few policies need

    return load_policy(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Add up in one order: a sum that is shared out may end in another last bit, and action."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
