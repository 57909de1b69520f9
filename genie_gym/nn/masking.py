"""MaskGIT: which tokens training hides, spoils and scores, and in which order sampling reveals.

Source:
    Chang et al. 2022, "MaskGIT", sections 3.1 and 3.2.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

STILL_SHARE = 0.125
"""Share of unchanged tokens that are scored in training; logits are a third of a step's cost."""
RARE_CHANGE = 0.01
"""Rate of change, per place and step, below which a change is not weighted up any more."""
BLOCK = 32
"""Codes that are drawn from together; the square root of a usual codebook's size."""


def random_mask(
    shape: tuple[int, ...], min_rate: float, generator: torch.Generator
) -> Bool[Tensor, "*shape"]:
    """Hide tokens at random, each frame (all axes but the last) at its own rate in [min_rate, 1].

    At least one token of every frame is hidden, so every frame has something to learn.
    """
    device = generator.device
    rate = min_rate + (1 - min_rate) * torch.rand(
        *shape[:-1], 1, generator=generator, device=device
    )
    draws = torch.rand(shape, generator=generator, device=device)
    return (draws < rate) | (draws == draws.amin(-1, keepdim=True))


def corrupt(
    tokens: Int[Tensor, "B T S"],
    near_codes: Int[Tensor, "codes near"],
    max_rate: float,
    generator: torch.Generator,
) -> Int[Tensor, "B T S"]:
    """Replace some tokens by a near code or by another clip's token at the same place.

    Every clip has its own rate, drawn from 0 to `max_rate`.

    Source:
        Wrong past tokens against drift: 1X's world model challenge code.
    """

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(tokens.device)

    rate, draws = draw(len(tokens), 1, 1) * max_rate, draw(*tokens.shape)
    pick = torch.randint(near_codes.shape[1], tokens.shape, generator=generator)
    near = near_codes[tokens].gather(-1, pick.to(tokens.device)[..., None])[..., 0]
    order = torch.randperm(len(tokens), generator=generator).to(tokens.device)
    wrong = torch.where(draws < rate / 2, near, tokens[order])
    return torch.where(draws < rate, wrong, tokens)


def draw_scored(
    hidden: Bool[Tensor, "B T S"],
    changed: Bool[Tensor, "B T S"],
    change_weight: float,
    generator: torch.Generator,
) -> tuple[Bool[Tensor, "B T S"], Float[Tensor, " scored"]]:
    """Return which hidden tokens count, and their weights.

    Of tokens that stay as they were, most of a frame, a part is drawn to stand for all: each
    weighs 1 in all. A change weighs `1 + change_weight` on average, and the more the rarer it is
    at its place, so that a ball counts beside paddles that move all the time.
    """
    draws = torch.rand(hidden.shape, generator=generator).to(hidden.device)
    scored = hidden & (changed | (draws < STILL_SHARE))
    rarity = (changed.float().mean((0, 1)) + RARE_CHANGE).rsqrt().expand(changed.shape)
    rarity = rarity / rarity[changed].mean()
    weights = torch.where(changed, 1 + change_weight * rarity, 1 / STILL_SHARE)
    return scored, weights[scored]


def num_hidden(num_tokens: int, step: int, num_steps: int) -> int:
    """Return how many tokens stay hidden after a step of the cosine schedule; 0 after the last.

    At least one token is revealed a step.

    Example:
        >>> [num_hidden(16, step, 4) for step in range(4)]
        [14, 11, 6, 0]
    """
    hidden = math.floor(num_tokens * math.cos(math.pi / 2 * (step + 1) / num_steps) + 1e-9)
    return max(min(hidden, num_tokens - step - 1), 0)


def draw_codes(
    logits: Float[Tensor, "*tokens codes"],
    draws: Float[Tensor, "*tokens"] | None,
    temperature: float,
    least_odds: float = 0.0,
) -> Int[Tensor, "*tokens"]:
    """Return a code for every token.

    Args:
        logits: unnormalised log probabilities.
        draws: one uniform number in [0, 1) a token; None takes the likeliest code.
        temperature: 0 takes the likeliest code; 1 samples as the model believes.
        least_odds: codes with lower odds against the likeliest one, at temperature 1, are never
            drawn.
    """
    if draws is None or temperature == 0:
        return logits.max(-1).indices  # several times as fast as argmax
    logits = logits.float()
    exponents = (logits - logits.amax(-1, keepdim=True)).div_(temperature)
    # A draw has 24 bits, so what is rarer by e^30 has no chance; and exp of it would take long.
    lowest = max(math.log(least_odds) / temperature, -29.9) if least_odds else -29.9
    weights = exponents.clamp_(min=lowest - 0.1).exp_()
    return _draw(F.threshold(weights, math.exp(lowest), 0.0, inplace=True), draws)


def confidence(
    logits: Float[Tensor, "*tokens codes"], codes: Int[Tensor, "*tokens"]
) -> Float[Tensor, "*tokens"]:
    """Return the probability that the model gave to each token's code."""
    logits = logits.float()
    return (logits.gather(-1, codes[..., None])[..., 0] - logits.logsumexp(-1)).exp()


def _draw(weights: Float[Tensor, "*tokens codes"], draws: Float[Tensor, "*tokens"]) -> Tensor:
    """Return codes drawn by their weights: first a block of codes, then one of the block.

    One running sum over all codes would take as long as all the rest of the sampling.
    """
    if missing := -weights.shape[-1] % BLOCK:
        weights = F.pad(weights, (0, missing))
    blocks = rearrange(weights, "... (blocks code) -> ... blocks code", code=BLOCK)
    sums = blocks.sum(-1)
    block, before = _search(sums, draws * sums.sum(-1))
    inside = blocks.gather(-2, block[..., None, None].expand(*block.shape, 1, BLOCK))[..., 0, :]
    code, _ = _search(inside, draws * sums.sum(-1) - before)
    return block * BLOCK + code


def _search(
    weights: Float[Tensor, "*tokens choices"], targets: Float[Tensor, "*tokens"]
) -> tuple[Int[Tensor, "*tokens"], Float[Tensor, "*tokens"]]:
    """Return the first choice whose running sum exceeds the target, and the sum before it."""
    sums = weights.cumsum(-1)
    # Rounding must not lead behind the last choice that has a weight.
    largest = torch.nextafter(sums[..., -1], torch.zeros_like(targets))
    targets = targets.clamp(min=0).minimum(largest)
    choice = torch.searchsorted(sums, targets[..., None], right=True)
    before = F.pad(sums, (1, 0)).gather(-1, choice)
    return choice[..., 0], before[..., 0]
