import math

import pytest
import torch

from genie_gym.nn.attention import (
    ROTARY_BASE,
    ScaledDotProduct,
    SpatialAttention,
    TemporalAttention,
    attention_weights,
    rotary,
    rotate,
)
from genie_gym.nn.transformer import causal_window_mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def clip():
    return torch.randn(2, 6, 5, 20, generator=seeded())


def build(cls):
    torch.manual_seed(0)
    return cls(dim=20, num_heads=3, head_dim=8).requires_grad_(False)


def changed(before, after):
    """Return which (frame, place) differ anywhere in the batch or the features."""
    return (before != after).any(-1).any(0)


def test_a_window_mask_shows_a_frame_itself_and_those_just_before():
    mask = causal_window_mask(torch.arange(5), window=3)
    expected = [[0 <= q - k < 3 for k in range(5)] for q in range(5)]
    assert mask.tolist() == expected
    assert torch.equal(mask, causal_window_mask(torch.arange(5) + 10**6, window=3))
    assert not causal_window_mask(torch.arange(5), window=0).any()


def test_spatial_attention_never_crosses_frames(clip):
    attention = build(SpatialAttention)
    before = attention(clip)
    clip[:, 3, 2] += 1
    after = changed(before, attention(clip))
    assert after[3].all()
    assert not after[[0, 1, 2, 4, 5]].any()


def test_temporal_attention_never_crosses_places_or_looks_ahead(clip):
    attention = build(TemporalAttention)
    positions = torch.arange(6)
    mask = causal_window_mask(positions, 3)
    before = attention(clip, positions, mask)
    clip[:, 2, 4] += 1
    after = changed(before, attention(clip, positions, mask))
    assert after[:, 4].tolist() == [False, False, True, True, True, False]
    assert not after[:, :4].any()


def test_the_order_of_frames_matters_to_temporal_attention(clip):
    attention = build(TemporalAttention)
    positions, mask = torch.arange(6), causal_window_mask(torch.arange(6), 6)
    swapped = clip[:, [1, 0, 2, 3, 4, 5]]
    difference = attention(clip, positions, mask) - attention(swapped, positions, mask)
    assert difference[:, 2:].abs().max() > 1e-3


@pytest.mark.parametrize("attention_class", [SpatialAttention, TemporalAttention])
def test_the_width_of_a_head_is_free_of_the_width_of_the_model(attention_class):
    attention = attention_class(dim=20, num_heads=3, head_dim=8)
    assert attention.project_in.weight.shape == (3 * 3 * 8, 20)
    assert attention.project_out.weight.shape == (20, 3 * 8)


def test_queries_and_keys_are_normalised(clip):
    both, values = build(SpatialAttention).project(100 * clip[0])
    assert values.shape == (6, 5, 3, 8)
    for x in both.chunk(2, dim=-2):
        assert x.shape == values.shape
        assert torch.allclose(x.mean(-1), torch.zeros(()), atol=1e-4)
        assert torch.allclose(x.square().mean(-1), torch.ones(()), atol=1e-3)


def test_the_weights_are_the_softmax_over_what_the_mask_shows():
    query, key = (torch.randn(2, 3, 4, 8, generator=seeded(k)) for k in range(2))
    mask = causal_window_mask(torch.arange(4), 2)
    logits = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~mask, -torch.inf)
    assert torch.allclose(attention_weights(query, key, mask), logits.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("mask", [None, causal_window_mask(torch.arange(4), 2)])
def test_the_fused_kernel_gathers_by_the_weights(mask):
    query, key, value = (torch.randn(2, 3, 4, 8, generator=seeded(k)) for k in range(3))
    gathered = ScaledDotProduct()(query, key, value, mask)
    assert torch.allclose(attention_weights(query, key, mask) @ value, gathered, atol=1e-6)


def rotated(x, positions):
    """Turn (T, heads, head_dim) by the places of the frames."""
    return rotate(x, rotary(positions, x.shape[-1], x.dtype))


def rotated_logits(query, key, positions):
    return torch.einsum("qhd,khd->hqk", rotated(query, positions), rotated(key, positions))


def test_rotary_logits_depend_on_differences_of_positions_alone():
    query, key = (torch.randn(7, 3, 8, generator=seeded(k)) for k in range(2))
    positions = torch.arange(7)
    logits = rotated_logits(query, key, positions)
    for shift in (1, 1000, 1_000_000):
        shifted = rotated_logits(query, key, positions + shift)
        assert (logits - shifted).abs().max() < 1e-4
    assert (logits - rotated_logits(query, key, 2 * positions)).abs().max() > 0.1


def test_rotation_keeps_lengths_and_leaves_position_zero_alone():
    x = torch.randn(5, 3, 8, generator=seeded())
    turned = rotated(x, torch.arange(5))
    assert torch.equal(turned[0], x[0])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(turned[1], x[1])


def test_the_first_pair_turns_by_the_position_and_the_second_more_slowly():
    cos, sin = rotary(torch.tensor([2]), 4, torch.float64)[:, 0]
    slow = 2 / ROTARY_BASE**0.5
    angles = torch.tensor([2, slow, 2, slow], dtype=torch.float64)
    assert torch.allclose(cos, angles.cos())
    assert torch.allclose(sin, torch.tensor([-1.0, -1.0, 1.0, 1.0]) * angles.sin())
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    expected = [math.cos(2), 0.0, math.sin(2), 0.0]
    assert rotated(x, torch.tensor([2])).flatten().tolist() == pytest.approx(expected)
