import math
from itertools import pairwise

import pytest
import torch

from genie_gym.nn.masking import (
    confidence,
    corrupt,
    draw_codes,
    draw_scored,
    num_hidden,
    random_mask,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 16, 100, 920])
@pytest.mark.parametrize("num_steps", [1, 2, 8, 25])
def test_the_schedule_reveals_at_least_one_token_a_step_and_all_by_the_last(num_tokens, num_steps):
    num_steps = min(num_steps, num_tokens)
    hidden = [num_tokens] + [num_hidden(num_tokens, step, num_steps) for step in range(num_steps)]
    revealed = [before - after for before, after in pairwise(hidden)]
    assert min(revealed) >= 1
    assert sum(revealed) == num_tokens
    assert hidden[-1] == 0


def test_the_schedule_is_the_cosine_of_the_paper():
    hidden = [num_hidden(256, step, 8) for step in range(8)]
    assert hidden == [math.floor(256 * math.cos(math.pi * (k + 1) / 16)) for k in range(7)] + [0]


@pytest.mark.parametrize("min_rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_tokens", [1, 16])
def test_a_random_mask_hides_at_least_one_token_of_every_frame(min_rate, num_tokens):
    mask = random_mask((64, 4, num_tokens), min_rate, seeded())
    assert mask.shape == (64, 4, num_tokens)
    assert mask.any(-1).all()


def test_the_rate_of_a_random_mask_spreads_over_its_range():
    # 2,000 tokens a frame: a rate strays by 0.5 / sqrt(2000) = 0.011, so 0.05 is 4.5 of those;
    # the mean of 1,000 rates, uniform in [0.5, 1], strays by 0.0046 from 0.75.
    rates = random_mask((1000, 2000), 0.5, seeded()).float().mean(-1)
    assert 0.45 < rates.min() < 0.52
    assert 0.98 < rates.max() <= 1
    assert abs(rates.mean() - 0.75) < 0.02
    assert random_mask((8, 16), 1.0, seeded()).all()


def test_a_random_mask_comes_back_with_its_seed():
    assert torch.equal(random_mask((4, 9), 0.5, seeded(1)), random_mask((4, 9), 0.5, seeded(1)))
    assert not torch.equal(random_mask((4, 9), 0.5, seeded(1)), random_mask((4, 9), 0.5, seeded(2)))


def test_temperature_zero_and_no_draws_take_the_likeliest_code():
    logits = torch.randn(3, 5, 11, generator=seeded())
    draws = torch.rand(3, 5, generator=seeded())
    for codes in (draw_codes(logits, draws, 0.0), draw_codes(logits, None, 1.0)):
        assert torch.equal(codes, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_codes_are_drawn_as_often_as_the_softmax_says(temperature):
    num_draws = 100_000
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, 0.5, -torch.inf])
    draws = torch.rand(1, num_draws, generator=seeded())
    codes = draw_codes(logits.expand(1, num_draws, 6), draws, temperature)
    expected = (logits / temperature).softmax(-1)[:5] * num_draws
    counts = torch.bincount(codes.flatten(), minlength=6)
    # Chi-square with 4 degrees of freedom exceeds 25 once in 20,000 seeds; the seed is fixed.
    assert ((counts[:5] - expected).square() / expected).sum() < 25
    assert counts[5] == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_codes_below_the_least_odds_at_temperature_1_are_never_drawn(temperature):
    probs = torch.tensor([0.5, 0.3, 0.06, 0.04, 0.1])
    draws = torch.rand(1, 100_000, generator=seeded())
    logits = probs.log().expand(1, 100_000, 5)
    codes = draw_codes(logits, draws, temperature, least_odds=0.1)
    expected = torch.tensor([0.5, 0.3, 0.06, 0.0, 0.1]) ** (1 / temperature)
    shares = torch.bincount(codes.flatten(), minlength=5) / 100_000
    # A share of 0.5 strays by 0.0016.
    assert (shares - expected / expected.sum()).abs().max() < 0.008
    assert shares[3] == 0


def test_confidence_is_the_chance_that_the_model_gave_to_a_code():
    logits = torch.randn(3, 5, 11, generator=seeded())
    codes = torch.randint(11, (3, 5), generator=seeded())
    expected = logits.softmax(-1).gather(-1, codes[..., None])[..., 0]
    assert torch.allclose(confidence(logits, codes), expected)


def test_the_ends_of_the_unit_interval_give_codes_that_have_a_chance():
    logits = torch.tensor([-torch.inf, 0.0, 0.0, -torch.inf]).expand(1, 2, 4)
    largest_below_one = 1 - 2**-24
    codes = draw_codes(logits, torch.tensor([[0.0, largest_below_one]]), 1.0)
    assert codes.tolist() == [[1, 2]]


def test_spoiled_tokens_are_near_codes_or_those_of_another_clip():
    tokens = torch.arange(64)[:, None, None].expand(64, 6, 8)  # each clip has a code of its own
    near_codes = (torch.arange(64)[:, None] + torch.tensor([0, 1])) % 64
    spoiled = corrupt(tokens, near_codes, 1.0, seeded())
    # Rates are uniform in [0, 1] over 64 clips: a share of 0.5 that strays by 0.036; a quarter of
    # those is the code itself, the nearest of its near codes.
    assert 0.25 < (spoiled != tokens).float().mean() < 0.5
    is_wrong = spoiled != tokens
    is_near = spoiled == (tokens + 1) % 64
    for clip in range(64):  # what is not near comes from one other clip
        assert len(spoiled[clip][(is_wrong & ~is_near)[clip]].unique()) <= 1
    assert torch.equal(corrupt(tokens, near_codes, 0.0, seeded()), tokens)


def test_changed_tokens_all_count_and_a_share_of_the_still_ones_stands_for_the_rest():
    hidden = torch.rand(64, 6, 8, generator=seeded(2)) < 0.8
    changed = torch.rand(64, 6, 8, generator=seeded(1)) < 0.3
    scored, weights = draw_scored(hidden, changed, 4.0, seeded())
    assert not (scored & ~hidden).any()
    assert scored[hidden & changed].all()
    assert weights[changed[scored]].mean() == pytest.approx(5, rel=0.01)
    # About 1,700 still tokens, each drawn at 0.125: the sum of their weights strays by 6 percent.
    total = weights[~changed[scored]].sum() / (hidden & ~changed).sum()
    assert abs(total - 1) < 0.2


def test_a_rare_change_weighs_more_than_a_common_one():
    hidden = torch.ones(16, 5, 2, dtype=torch.bool)
    changed = torch.zeros_like(hidden)
    changed[..., 0] = True  # always
    changed[0, 0, 1] = True  # once in 80 steps
    scored, weights = draw_scored(hidden, changed, 1.0, seeded())
    rarity = weights - 1
    rare, common = rarity[changed[scored]].amax(), rarity[changed[scored]].amin()
    assert rare / common == pytest.approx(((1 + 0.01) / (1 / 80 + 0.01)) ** 0.5, rel=1e-4)
