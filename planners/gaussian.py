"""Plans of action vectors: one Gaussian a step, and noise that is coloured over time."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from planners.errors import PlannerError
from planners.protocol import Model
from planners.scoring import best_plans
from planners.search import SearchConfig, SequencePlanner, check_box, shift


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianConfig(SearchConfig):
    """How plans of action vectors are drawn, and how fast the distribution follows them."""

    num_iterations: int = 4
    """Iterations of a search that has no budget."""
    noise_exponent: float = 2.0
    """Power of the frequency by which noise falls: 0 is white, 2 walks like a drunkard."""
    first_std: float = 0.5
    """Spread of the first iteration, as a share of half the range of an action."""
    min_std: float = 0.05
    """Least spread, as the same share."""
    momentum: float = 0.1
    """Share of the old mean and spread in the new ones."""
    num_kept: int = 4
    """Best plans that go on into the next iteration, and into the next search."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        SearchConfig.__post_init__(self)
        if not 0 <= self.momentum <= 1:
            raise PlannerError(f"momentum must lie in [0, 1], got {self.momentum}")
        if not 0 <= self.noise_exponent <= 4:
            raise PlannerError(f"noise_exponent must lie in [0, 4], got {self.noise_exponent}")
        if not 0 < self.first_std < math.inf:
            raise PlannerError(f"first_std must be a finite number above 0, got {self.first_std}")
        if not 0 <= self.min_std <= self.first_std:
            raise PlannerError(
                f"min_std must lie in [0, first_std], got {self.min_std} and {self.first_std}"
            )
        if not 0 <= self.num_kept < self.num_samples:
            raise PlannerError(
                f"num_kept must lie in [0, num_samples), got {self.num_kept} and {self.num_samples}"
            )


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and spread of every step, and the best plans so far."""

    bounds: Float[Tensor, "two dims"]
    first_std: Float[Tensor, " dims"]
    mean: Float[Tensor, "B T dims"]
    std: Float[Tensor, "B T dims"]
    kept: Float[Tensor, "B kept T dims"]
    has_kept: Bool[Tensor, " B"]
    """Whether the root has kept plans; if not, `kept` means nothing there."""

    def advance(self, is_first: Bool[Tensor, " B"], num_steps: int = 1) -> "Gaussian":
        """Return it so many steps later: the mean moves on, and the spread is wide again.

        Source:
            Pinneri et al. 2020, section 3.2: the last step is repeated.
        """
        middle = self.bounds.mean(0)
        mean, kept = shift(self.mean, num_steps, dim=1), shift(self.kept, num_steps, dim=2)
        return replace(
            self,
            mean=torch.where(is_first[:, None, None], middle, mean),
            std=self.first_std.expand_as(self.std),
            kept=kept,
            has_kept=self.has_kept & ~is_first,
        )


GaussianConfigT = TypeVar("GaussianConfigT", bound=GaussianConfig)


class GaussianPlanner(SequencePlanner[GaussianConfigT, Gaussian]):
    """Draws plans of vectors from step-wise Gaussians and fits these to what scored well.

    One candidate of each iteration is the mean: what has been learned is also tried.
    """

    @abstractmethod
    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """Return how much each candidate counts, in sum 1."""

    def _check(self, model: Model) -> None:
        check_box(model, type(self).__name__)

    def _begin(self, model: Model, state: Any, warm_start: Gaussian | None) -> Gaussian:
        if warm_start is not None:
            return warm_start
        bounds, config = check_box(model, type(self).__name__), self.config
        shape = (model.num_roots, config.horizon, bounds.shape[1])
        first_std = config.first_std * (bounds[1] - bounds[0]) / 2
        return Gaussian(
            bounds=bounds,
            first_std=first_std,
            mean=bounds.mean(0).expand(shape),
            std=first_std.expand(shape),
            kept=repeat(bounds.mean(0), "d -> B N T d", B=shape[0], N=config.num_kept, T=shape[1]),
            has_kept=torch.zeros(model.num_roots, dtype=torch.bool),
        )

    def _draw(self, proposal: Gaussian, iteration: int) -> Float[Tensor, "B N T dims"]:
        config, num_kept = self.config, self.config.num_kept
        noise = coloured_noise(
            (config.num_samples, config.horizon, proposal.bounds.shape[1]),
            config.noise_exponent,
            self.generator,
        )
        # The same noise serves every root.
        plans = proposal.mean[:, None] + proposal.std[:, None] * noise
        has_kept = proposal.has_kept[:, None, None, None]
        plans[:, :num_kept] = torch.where(has_kept, proposal.kept, plans[:, :num_kept])
        plans[:, -1] = proposal.mean
        return plans.clamp(*proposal.bounds)

    def _refit(
        self,
        proposal: Gaussian,
        candidates: Float[Tensor, "B N T dims"],
        scores: Float[Tensor, "B N"],
    ) -> Gaussian:
        config, weights = self.config, self._weights(scores)
        mean = torch.einsum("bn, bntd -> btd", weights, candidates)
        spread = (candidates - mean[:, None]).square()
        std = torch.einsum("bn, bntd -> btd", weights, spread).sqrt()
        least = proposal.first_std * config.min_std / config.first_std
        proposal = replace(
            proposal,
            mean=torch.lerp(mean, proposal.mean, config.momentum),
            std=torch.lerp(std, proposal.std, config.momentum).maximum(least),
        )
        if candidates.shape[1] < config.num_kept:
            return proposal
        kept = best_plans(candidates, scores, config.num_kept)
        return replace(proposal, kept=kept, has_kept=torch.ones_like(proposal.has_kept))


def coloured_noise(
    shape: tuple[int, int, int], exponent: float, generator: torch.Generator
) -> Float[Tensor, "N T dims"]:
    """Return noise of unit variance whose power falls with frequency to the `exponent`.

    Args:
        shape: plans, steps, dimensions of an action; each plan and dimension has its own noise.
        exponent: 0 is white.
        generator: draws it.

    Source:
        Timmer and Koenig 1995, "On generating power law noise". The variance is exact here.
    """
    num_plans, num_steps, num_dims = shape
    frequencies = torch.fft.rfftfreq(num_steps)
    frequencies[0] = 1 / num_steps
    scale = frequencies ** (-exponent / 2)
    # The mean, and the fastest wave of an even number of steps, have no phase.
    is_real = torch.zeros_like(scale, dtype=torch.bool)
    is_real[0] = True
    is_real[-1] |= num_steps % 2 == 0
    drawn = torch.randn(2, num_plans, num_dims, len(scale), generator=generator) * scale
    real = torch.where(is_real, drawn[0] * 2**0.5, drawn[0])
    imaginary = drawn[1].masked_fill(is_real, 0.0)
    variance = (torch.where(is_real, 2.0, 4.0) * scale.square()).sum() / num_steps**2
    noise = torch.fft.irfft(torch.complex(real, imaginary), n=num_steps) / variance.sqrt()
    plans: Tensor = rearrange(noise, "N dims T -> N T dims")
    return plans
