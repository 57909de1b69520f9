"""SB3's rollout buffer with its arrays on the device that learns."""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor

FIELDS = ("observations", "actions", "values", "log_probs", "advantages", "returns")
"""What a batch holds, in the order of `RolloutBufferSamples`."""


class DeviceRolloutBuffer(RolloutBuffer):
    """A rollout that crosses to the device once, when it is played.

    SB3's own buffer lies in NumPy arrays: values and chances come back from the device at every
    step, and every epoch sends all frames there again. What it gives is the same, down to the order
    of its batches.

    Source:
        `RolloutBuffer` of Stable-Baselines3 2.9; generalized advantages after Schulman et al. 2016.
    """

    def reset(self) -> None:
        """Make room for a new rollout."""
        self.pos, self.full = 0, False
        self._rollout: dict[str, Tensor] = {}

    def add(
        self,
        obs: Shaped[np.ndarray, "B ..."],
        action: Shaped[np.ndarray, "B ..."],
        reward: Shaped[np.ndarray, " B"],
        episode_start: Shaped[np.ndarray, " B"],
        value: Float[Tensor, "B ..."],
        log_prob: Float[Tensor, " B"],
    ) -> None:
        """Add a step of all games."""
        step: dict[str, Any] = {
            "observations": obs,
            # As SB3 hands them over: floats, each an axis of its own.
            "actions": action.reshape(self.n_envs, self.action_dim).astype(np.float32),
            "rewards": reward.astype(np.float32),
            "episode_starts": episode_start.astype(np.float32),
            "values": value.flatten(),
            "log_probs": log_prob,
        }
        for name, values in step.items():
            row = torch.as_tensor(values, device=self.device)
            if name not in self._rollout:
                self._rollout[name] = row.new_empty(self.buffer_size, *row.shape)
            self._rollout[name][self.pos] = row
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(
        self, last_values: Float[Tensor, "B ..."], dones: Bool[np.ndarray, " B"]
    ) -> None:
        """Compute advantages and returns, given the values of the frames after the last step."""
        rewards, values = self._rollout["rewards"], self._rollout["values"]
        is_over = torch.as_tensor(dones, device=self.device).float()
        next_starts = [*self._rollout["episode_starts"][1:], is_over]
        next_values = [*values[1:], last_values.flatten()]
        advantages = torch.empty_like(rewards)
        advantage = torch.zeros_like(is_over)
        for step in reversed(range(self.buffer_size)):
            goes_on = 1.0 - next_starts[step]
            error = rewards[step] + self.gamma * next_values[step] * goes_on - values[step]
            advantage = error + self.gamma * self.gae_lambda * goes_on * advantage
            advantages[step] = advantage
        self._rollout |= {"advantages": advantages, "returns": advantages + values}
        # PPO and A2C report from these how much of the returns the values explain.
        self.values = values.cpu().numpy()
        self.returns = self._rollout["returns"].cpu().numpy()

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the rollout in batches, in a random order; in one if no size is given."""
        assert self.full, "a rollout is learned from when it is whole"
        num_steps = self.buffer_size * self.n_envs
        order = torch.from_numpy(np.random.permutation(num_steps)).to(self.device)
        games = [rearrange(self._rollout[name], "T B ... -> (B T) ...") for name in FIELDS]
        for rows in torch.split(order, batch_size or num_steps):
            yield RolloutBufferSamples(*(values[rows] for values in games))
