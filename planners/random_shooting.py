"""Random shooting: draw plans, roll them out, take the first action of the best."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from planners.protocol import Model, RolloutLike


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomShootingConfig:
    """How many plans, how long, and how restless."""

    num_samples: int = 64
    """Candidate plans a root."""
    horizon: int = 12
    """Steps of a plan."""
    repeat_prob: float = 0.7
    """Chance that a step repeats the action before it: plans that jitter go nowhere."""
    discount: float = 0.99
    """Weight of a reward one step later."""


class Plan(NamedTuple):
    """The best candidate of each root."""

    actions: Int[Tensor, "B T"]
    score: Float[Tensor, " B"]
    num_rejected: Int[Tensor, " B"]
    """Candidates whose score was not finite; they lose."""


class RandomShooting:
    """Plans by scoring random action sequences in a model.

    Source:
        Sticky candidates are the categorical counterpart of correlated noise in iCEM (Pinneri et
        al. 2020).
    """

    def __init__(self, config: RandomShootingConfig, *, generator: torch.Generator) -> None:
        """Take the settings and the generator that draws candidates."""
        self.config = config
        self.generator = generator

    def plan(self, model: Model, num_roots: int) -> Plan:
        """Return the best of the drawn plans for each root; the model's game is not moved."""
        candidates = self._draw(num_roots, model.num_actions)
        scores = score(model.rollout(model.snapshot(), candidates), self.config.discount)
        is_finite = scores.isfinite()
        scores = scores.masked_fill(~is_finite, -torch.inf)
        best = scores.cpu().argmax(dim=1)
        roots = torch.arange(num_roots)
        return Plan(candidates[roots, best], scores.cpu()[roots, best], (~is_finite).sum(dim=1))

    def _draw(self, num_roots: int, num_actions: int) -> Int[Tensor, "B N T"]:
        shape = (num_roots, self.config.num_samples, self.config.horizon)
        fresh = torch.randint(num_actions, shape, generator=self.generator)
        is_repeat = torch.rand(shape, generator=self.generator) < self.config.repeat_prob
        is_repeat[..., 0] = False
        # The index of the last fresh draw at or before each step.
        steps = torch.arange(shape[-1]).expand(shape).masked_fill(is_repeat, 0)
        return fresh.gather(-1, steps.cummax(-1).values)


def score(rollout: RolloutLike, discount: float) -> Float[Tensor, "B N"]:
    """Return discounted expected reward, each step weighted by the chance of getting there."""
    alive = torch.cumprod(rollout.continuation, dim=-1)
    alive = torch.cat([torch.ones_like(alive[..., :1]), alive[..., :-1]], dim=-1)
    steps = torch.arange(alive.shape[-1], device=alive.device)
    return (alive * rollout.expected_reward * discount**steps).sum(-1)
