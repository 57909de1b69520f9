"""An actor-critic that learns in the imagination of a world, on tokens, without pixels."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from genie_gym.agents.config import AgentConfig
from genie_gym.agents.dreamer_network import (
    TokenNetwork,
    TokenPolicy,
    action_log_probs,
    draw_actions,
)
from genie_gym.agents.imagination import Imagination
from genie_gym.agents.learner import world_with_rewards
from genie_gym.config import from_dict
from genie_gym.errors import ConfigError, DivergedError, PolicyError

SLOW_DECAY = 0.98
"""Decay of the slow critic, a moving average of the critic, per minibatch."""
RANGE_DECAY = 0.99
"""Decay of the range of returns, per update."""
MAX_GRAD_NORM = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DreamerConfig:
    """Options of the algorithm; they stand in `algo_options`."""

    horizon: int = 16
    """Steps that every game is imagined between two updates."""
    num_minibatches: int = 4
    """Parts of these steps that the weights are moved by, one after the other."""
    discount: float = 0.99
    """Worth of a reward one step later."""
    return_lambda: float = 0.95
    """How far returns trust what was imagined: 0 for one step, 1 for all of it."""
    entropy_scale: float = 1e-2
    """Reward for an undecided policy, beside returns brought to a range of 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("horizon", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"algo_options.{name} must be at least 1, got {getattr(self, name)}"
                )
        for name in ("discount", "return_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"algo_options.{name} must lie in [0, 1], got {getattr(self, name)}"
                )
        if not 0 <= self.entropy_scale < math.inf:
            raise ConfigError(
                f"algo_options.entropy_scale must be 0 or more, got {self.entropy_scale}"
            )


class Rollout(NamedTuple):
    """T imagined steps of B games."""

    tokens: Int[Tensor, "T B K S"]
    """What the actor saw."""
    actions: Int[Tensor, "T B"]
    rewards: Float[Tensor, "T B"]
    continuation: Float[Tensor, "T B"]
    is_over: Bool[Tensor, "T B"]
    next_values: Float[Tensor, "T B"]
    """The critic's word on what each step led to, before a game that is over is replaced."""


def lambda_returns(
    rewards: Float[Tensor, "T B"],
    continuation: Float[Tensor, "T B"],
    is_over: Bool[Tensor, "T B"],
    next_values: Float[Tensor, "T B"],
    *,
    discount: float,
    return_lambda: float,
) -> Float[Tensor, "T B"]:
    """Return what is earned from each step on, after the last imagined one as the critic says.

    Args:
        rewards: what each step earned.
        continuation: chance that the game went on after it.
        is_over: which steps were the last of their game; the next row is another game's.
        next_values: value of what each step led to.
        discount: worth of a reward one step later.
        return_lambda: share of the imagined return, against the value, at every step.

    Source:
        Hafner et al. 2023, "DreamerV3", section "Actor critic learning", equation of the
        lambda-return. That a game may be cut, and its value taken, is ours.
    """
    later, returns = next_values[-1], []
    for t in reversed(range(len(rewards))):
        later = torch.where(is_over[t], next_values[t], later)
        later = (1 - return_lambda) * next_values[t] + return_lambda * later
        later = rewards[t] + discount * continuation[t] * later
        returns.append(later)
    return torch.stack(returns[::-1])


class Dreamer:
    """Learns by imagining: `num_envs` games, `horizon` steps on, then an update, and so forth.

    Args:
        config: what to train; `algo_options` are those of `DreamerConfig`.

    Raises:
        ConfigError: an option is unknown or out of its range.
        WorldError: there is no such world, or it is another game's, or lacks a reward model.
        DeviceError: the device is not there.

    Source:
        Hafner et al. 2023, "DreamerV3", section "Actor critic learning": lambda-returns, an actor
        that learns by REINFORCE from returns scaled by their 5th to 95th percentile, an entropy
        bonus, a critic held to its own moving average. Ours: the world is trained before and stands
        still, games go on over many horizons instead of beginning anew from replayed states, the
        critic gives one number by squared error instead of classes of a symlog scale, a rollout is
        used in minibatches, the discount is 0.99 (theirs 0.997), and the entropy bonus is 30 times
        theirs, because batches are small and the policy would settle on noise.
    """

    def __init__(self, config: AgentConfig) -> None:
        self.options = from_dict(DreamerConfig, config.algo_options, "algo_options")
        self.num_steps = 0
        self.world = world_with_rewards(config.env)
        self._config = config
        self._generator = torch.Generator().manual_seed(config.seed)
        num_frames = config.network.num_frames
        self.games = Imagination(
            config.env, num_games=config.num_envs, num_frames=num_frames, seed=config.seed
        )
        with torch.random.fork_rng(devices=[]):  # initial weights come from torch's own numbers
            torch.manual_seed(config.seed)
            tokenizer = self.world.stack.tokenizer
            self.actor = TokenNetwork(config.network, tokenizer, self.world.num_actions)
            self.critic = TokenNetwork(config.network, tokenizer, 1)
        seen = rearrange(self.world.starts.tokens, "N T S -> (N T) S")
        for network in (self.actor, self.critic):
            network.to(self.world.device).measure(tokenizer.quantizer.codebook, seen)
        self._slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self._parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, eps=1e-5)
        self._return_range = 0.0

    def learn(
        self,
        num_steps: int,
        logger: Logger,
        *,
        on_rollout: Callable[[], None],
        on_steps: Callable[[int], object],
    ) -> None:
        """Learn until `num_steps` imagined steps are done, or a rollout's rest more.

        Raises:
            DivergedError: a loss is not finite.
        """
        first, last = self._config.learning_rate, self._config.min_learning_rate
        while self.num_steps < num_steps:
            on_rollout()
            rate = first + (last - first) * self.num_steps / num_steps
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            rollout = self._imagine(on_steps)
            for name, value in self._update(rollout).items():
                logger.record(f"dreamer/{name}", value)
            self.num_steps += rollout.rewards.numel()
            logger.dump(self.num_steps)

    def begin_with(self, network: nn.Module) -> None:
        """Take a policy's actor; no critic comes with it.

        Raises:
            PolicyError: it reads the tokens of another world.
        """
        assert isinstance(network, TokenPolicy)
        codebook = network.actor.codebook.to(self.actor.codebook)
        if not torch.equal(codebook, self.actor.codebook):
            raise PolicyError(
                "init_from: that policy reads the tokens of another tokenizer than this world's. "
                "Take a world with the same tokenizer, or begin without init_from"
            )
        self.actor.load_state_dict(network.actor.state_dict())

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights of a `TokenPolicy`."""
        return TokenPolicy(self.world.stack.tokenizer, self.actor).state_dict()

    def get_state(self) -> dict[str, Any]:
        """Return all that decides how learning goes on."""
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "slow_critic": self._slow_critic.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "num_steps": self.num_steps,
            "return_range": self._return_range,
            "games": self.games.get_state(),
            "random": self._generator.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self._slow_critic.load_state_dict(state["slow_critic"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.num_steps, self._return_range = state["num_steps"], state["return_range"]
        self.games.set_state(state["games"])
        self._generator.set_state(state["random"])

    @torch.no_grad()
    def _imagine(self, on_steps: Callable[[int], object]) -> Rollout:
        steps = []
        for _ in range(self.options.horizon):
            tokens = self.games.tokens
            actions = draw_actions(action_log_probs(self.actor, tokens), self._generator)
            step = self.games.step(actions)
            next_values = self.critic(step.reached)[:, 0]
            steps.append((tokens, actions.to(tokens.device), *step[:3], next_values))
            on_steps(len(actions))
        return Rollout(*(torch.stack(values) for values in zip(*steps, strict=True)))

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Move the weights by a rollout; return figures of it."""
        options = self.options
        discount, share = options.discount, options.return_lambda
        returns = lambda_returns(*rollout[2:], discount=discount, return_lambda=share)
        scale = self._scale(returns)
        steps = "T B ... -> (T B) ..."
        tokens, actions, targets = (
            rearrange(x, steps) for x in (rollout.tokens, rollout.actions, returns)
        )
        figures = []
        order = torch.randperm(len(targets), generator=self._generator).to(targets.device)
        for part in order.chunk(options.num_minibatches):
            rows = (tokens[part], actions[part], targets[part])
            loss, critic_loss, entropy = self._loss(*rows, scale)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"loss is {loss.item()} after {self.num_steps} imagined steps. Take a lower "
                    "learning_rate"
                )
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
            self._optimizer.step()
            self._follow()
            figures.append((critic_loss, entropy))
        critic_loss, entropy = torch.tensor(figures).mean(0).tolist()
        return {
            "critic_loss": critic_loss,
            "entropy": entropy,
            "points_per_1000_steps": 1000 * rollout.rewards.mean().item(),
            "explained_variance": 1 - critic_loss / max(returns.var().item(), 1e-8),
            "return_range": self._return_range,
        }

    def _loss(
        self,
        tokens: Int[Tensor, "rows K S"],
        actions: Int[Tensor, " rows"],
        targets: Float[Tensor, " rows"],
        scale: float,
    ) -> tuple[Float[Tensor, ""], float, float]:
        """Return the loss, and of it the critic's part and the policy's entropy."""
        log_probs, values = action_log_probs(self.actor, tokens), self.critic(tokens)[:, 0]
        slow_values = self._slow_critic(tokens)[:, 0]
        advantages = (targets - values.detach()) / scale
        taken = log_probs.gather(1, actions[:, None])[:, 0]
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        actor_loss = -(taken * advantages).mean() - self.options.entropy_scale * entropy
        critic_loss = F.mse_loss(values, targets)
        loss = actor_loss + critic_loss + F.mse_loss(values, slow_values)
        return loss, critic_loss.item(), entropy.item()

    def _scale(self, returns: Float[Tensor, "T B"]) -> float:
        """Return what to divide returns by: their range so far, but never less than 1."""
        low, high = returns.flatten().quantile(returns.new_tensor([0.05, 0.95])).tolist()
        decay = RANGE_DECAY if self.num_steps else 0.0
        self._return_range = decay * self._return_range + (1 - decay) * (high - low)
        return max(1.0, self._return_range)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the slow critic towards the critic."""
        slow_and_fast = (self._slow_critic.parameters(), self.critic.parameters())
        for slow, fast in zip(*slow_and_fast, strict=True):
            slow.lerp_(fast, 1 - SLOW_DECAY)
