"""The real game beside an imagined one, under the same actions."""

import numpy as np
from jaxtyping import UInt8

from genie_gym.agents.games import OPENING_STEPS, opening
from genie_gym.envs.real import RealEnv, frame_side

Frame = UInt8[np.ndarray, "H W C"]


class RealGame:
    """A real game that opens with no-ops, which the world is shown.

    Args:
        game: name of the ALE game.
        size: height and width of the world's frames.
        seed: of its reset.
    """

    def __init__(self, game: str, size: tuple[int, int], seed: int) -> None:
        self._env = RealEnv(game, frame_size=frame_side(*size))
        self._seed = seed
        self.opening = opening(self._env, seed)
        """The frames that the imagined game begins from."""
        self.num_opening_steps = OPENING_STEPS
        self.frame: Frame = self.opening[-1]
        self.reward = 0.0
        """What the last step earned."""
        self.score = 0.0
        self.is_over = False

    def step(self, action: int) -> None:
        """Play an action; a game that is over stays as it is."""
        self.reward = 0.0
        if not self.is_over:
            self.frame, self.reward, self.is_over, _, _ = self._env.step(action)
            self.score += self.reward

    def replay(self, actions: list[int]) -> None:
        """Go to where these actions lead from the opening: 5,000 of them take about a second."""
        self.frame = opening(self._env, self._seed)[-1]
        self.reward, self.score, self.is_over = 0.0, 0.0, False
        for action in actions:
            self.step(action)

    def close(self) -> None:
        """Close the emulator."""
        self._env.close()
