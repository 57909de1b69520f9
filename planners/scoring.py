"""From rollouts to scores, and from scores to what candidates count."""

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from planners.protocol import RolloutLike, Value


def score(
    rollout: RolloutLike, discount: float, value: Value | None = None
) -> Float[Tensor, "B N"]:
    """Return the discounted expected reward of every plan, and the value of where it ends.

    Each step is weighted by the chance of getting there, so what a model says of the time after
    a certain end is not looked at.
    """
    alive = torch.cumprod(rollout.continuation, dim=-1)
    reached = torch.cat([torch.ones_like(alive[..., :1]), alive[..., :-1]], dim=-1)
    steps = torch.arange(alive.shape[-1], device=alive.device)
    earned = reached * rollout.expected_reward * discount**steps
    total = earned.masked_fill(reached == 0, 0.0).sum(-1)
    if value is not None:
        ends = rearrange(value(rollout.state), "(B N) -> B N", N=alive.shape[1]).to(alive)
        bootstrap = alive[..., -1] * ends * discount ** alive.shape[-1]
        total = total + bootstrap.masked_fill(alive[..., -1] == 0, 0.0)
    return total.cpu()


def elite_weights(
    scores: Float[Tensor, "B N"], num_elites: int, tie_width: float = 0.0
) -> Float[Tensor, "B N"]:
    """Return equal weights, in sum 1, of the best candidates.

    Whoever ties with the last of them, or is no more than `tie_width` worse, counts too: where
    nothing was earned at all, nobody is an elite by the accident of its place.
    """
    last = scores.topk(min(num_elites, scores.shape[1]), dim=1).values[:, -1:]
    is_elite = (scores >= last - tie_width) & scores.isfinite()
    return _normalised(is_elite.float())


def softmax_weights(scores: Float[Tensor, "B N"], temperature: float) -> Float[Tensor, "B N"]:
    """Return weights, in sum 1, that fall by a factor of e for each `temperature` of score."""
    best = scores.amax(dim=1, keepdim=True)
    weights = ((scores - best) / temperature).exp()
    return _normalised(weights.masked_fill(~scores.isfinite(), 0.0))


def _normalised(weights: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Divide by the sum; a root without any candidate that counts lets all of them count."""
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights / total, 1 / weights.shape[1])


def best_plans(
    candidates: Shaped[Tensor, "B N *plan"], scores: Float[Tensor, "B N"], count: int
) -> Shaped[Tensor, "B count *plan"]:
    """Return the plans that scored best at each root, the best first; of equals the earlier."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return candidates[torch.arange(len(order))[:, None], order]
