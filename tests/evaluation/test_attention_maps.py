import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from collectors import record
from genie_gym.evaluation.attention_maps import (
    attention_maps,
    choose_position,
    draw_attention,
    watched,
)
from genie_gym.evaluation.rollout import open_heldout
from genie_gym.models.world import World
from genie_gym.nn.attention import ScaledDotProduct
from genie_gym.nn.transformer import STTransformer, TransformerConfig

FIELD, WHITE = (144, 72, 17), (236, 236, 236)


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    config = TransformerConfig(num_layers=2, dim=16, num_heads=2, head_dim=8, temporal_window=3)
    return STTransformer(config).requires_grad_(False)


@pytest.fixture(scope="module")
def clip(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heldout")
    record("Pong", folder, steps=60, seed=1, policy="random", progress=False)
    return open_heldout(world, folder).windows.clip(np.array([30]), 6)


@pytest.fixture(scope="module")
def state(world, clip):
    return world.encode(torch.from_numpy(clip.frames), torch.from_numpy(clip.actions))


def test_the_weights_give_what_every_attention_gathered(transformer):
    gathered, values = [], []

    def keep(module, inputs, output):
        gathered.append(output)
        values.append(inputs[2])

    attentions = [one for one in transformer.modules() if isinstance(one, ScaledDotProduct)]
    handles = [attention.register_forward_hook(keep) for attention in attentions]
    cache = transformer.empty_cache(2, 5)
    generator = torch.Generator().manual_seed(0)
    with watched(transformer) as seen:
        for _ in range(5):  # past the window
            x = torch.randn(2, 1, 5, 16, generator=generator)
            _, cache = transformer.step(x, cache)
    for handle in handles:
        handle.remove()
    in_order = [
        weights for pair in zip(seen["spatial"], seen["temporal"], strict=True) for weights in pair
    ]
    assert len(in_order) == len(gathered) == 2 * 2 * 5
    for weights, value, output in zip(in_order, values, gathered, strict=True):
        torch.testing.assert_close(weights @ value, output, atol=1e-6, rtol=1e-5)


def test_nothing_is_watched_afterwards(transformer):
    with watched(transformer) as seen:
        pass
    transformer(torch.zeros(1, 2, 3, 16))
    assert seen == {"spatial": [], "temporal": []}
    hooks = [one._forward_hooks for one in transformer.modules()]
    assert not any(hooks)


def test_maps_share_out_everything_and_look_at_filled_frames_alone(world, clip, state):
    maps = attention_maps(world, state, torch.tensor([2]))
    assert maps.spatial.shape == (1, 16, 16)
    assert maps.temporal.shape == (1, 16, 4)  # a window of four, the predicted frame included
    for weights in (maps.spatial, maps.temporal):
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    young = world.encode(torch.from_numpy(clip.frames[:, :1]), torch.zeros(1, 0).long())
    assert attention_maps(world, young, torch.tensor([2])).temporal.shape == (1, 16, 2)


def test_a_world_of_latent_actions_reads_no_row_of_a_real_one(world, clip):
    stack = copy.deepcopy(world.stack)
    dynamics = replace(stack.config.dynamics, latent_prob=1.0)
    stack.config = replace(stack.config, dynamics=dynamics)
    stack.dynamics.embed_action.weight[1 : 1 + world.num_actions] = torch.nan
    latent_world = World(stack, world.starts, parts=world.parts, card={})
    state = latent_world.encode(torch.from_numpy(clip.frames), torch.from_numpy(clip.actions))
    maps = attention_maps(latent_world, state, torch.tensor([2]))
    assert np.isfinite(maps.spatial).all() and np.isfinite(maps.temporal).all()


def test_the_ball_is_looked_at_where_there_is_one(world):
    before = np.full((64, 64, 3), FIELD, np.uint8)
    after = before.copy()
    after[36:38, 20:22] = WHITE
    assert choose_position(world, before, after) == (2 * 4 + 1, "the ball")


def test_else_the_place_that_changed_most(world):
    before = np.full((64, 64, 3), FIELD, np.uint8)
    after = before.copy()
    after[2:6, 50:60] = (90, 180, 90)
    assert choose_position(world, before, after) == (3, "the largest change")


def test_the_picture_has_a_row_for_the_frame_and_one_for_every_layer(world, clip, state, tmp_path):
    maps = attention_maps(world, state, torch.tensor([2]))
    path = tmp_path / "attention.png"
    draw_attention(path, world, maps, 5, clip.frames[0], clip.frames[0, -1])
    side, label, gap = 128, 14, 4
    with Image.open(path) as picture:
        size = picture.size
        # The chosen place, row 1 and column 1 of 16 pixels, is outlined in the predicted frame.
        corner = picture.getpixel((gap + 2 * 16, gap + label + 2 * 16))
    assert size == (4 * (side + gap) + gap, 2 * (side + label + gap) + gap)
    assert corner == (255, 0, 255)
