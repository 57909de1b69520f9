"""Where the dynamics looks while it predicts a frame: in that frame, and back in time.

Every value is averaged over the heads. Attention says what a layer reads, not what decides: layers
mix what they read, and a token may carry news of another place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, Int, UInt8
from torch import Tensor, nn

from genie_gym.evaluation.objects import find_objects, why_no_objects
from genie_gym.evaluation.video import contact_sheet
from genie_gym.models.state import WorldState
from genie_gym.models.world import World
from genie_gym.nn.attention import attention_weights
from genie_gym.nn.transformer import Block, STTransformer

Weights = dict[str, list[Tensor]]
OUTLINE = (255, 0, 255)
"""Of the chosen position: no Atari game of this project paints magenta."""
_MIN_WIDTH = 128
"""Of a tile, in pixels: its label fits above it."""


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """Attention of one predicted frame, averaged over heads; positions run row by row.

    A position is a group of `dynamics.group_size` squared tokens. With an action put before them,
    the weight that goes to it is what a row lacks to 1.
    """

    spatial: Float32[np.ndarray, "layers positions positions"]
    """`[layer, i, j]`: how much of what position i reads in its frame comes from position j."""
    temporal: Float32[np.ndarray, "layers positions frames"]
    """`[layer, i, t]`: how much of what position i reads along time comes from frame t, oldest
    first; the last one is the predicted frame itself."""


@torch.inference_mode()
def attention_maps(world: World, state: WorldState, actions: Int[Tensor, "1"]) -> AttentionMaps:
    """Return what the dynamics attends to in its first pass over the next frame, all of it hidden.

    Args:
        world: the world.
        state: where one game stands.
        actions: the real action taken there.
    """
    dynamics = world.stack.dynamics
    rows = world.action_rows(actions)
    hidden = torch.ones_like(state.tokens, dtype=torch.bool)
    cache = world.sampler.append(state.tokens, state.led_by, state.dynamics)
    with watched(dynamics.transformer) as seen:
        world.sampler.logits(state.tokens, hidden, state.tokens, rows, cache)

    count = dynamics.grid.num_groups
    num_seen = min(int(cache.num_frames[0]) + 1, dynamics.config.transformer.temporal_window)
    spatial = [weights[0].mean(0)[-count:, -count:].cpu().numpy() for weights in seen["spatial"]]
    temporal = [weights.mean(1)[-count:, 0].cpu().numpy() for weights in seen["temporal"]]
    # Networks without attention inside the frame have maps of no layers.
    return AttentionMaps(
        np.array(spatial, np.float32).reshape(-1, count, count),
        np.array(temporal)[..., -num_seen:],
    )


@contextmanager
def watched(transformer: STTransformer) -> Iterator[Weights]:
    """Give two lists, "spatial" and "temporal", that fill with every attention's weights in use."""
    seen: Weights = {"spatial": [], "temporal": []}

    def keep(kind: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        query, key, _, *mask = inputs
        seen[kind].append(attention_weights(query, key, *mask))

    handles = []
    for block in transformer.blocks:
        assert isinstance(block, Block)
        for kind, attention in (("spatial", block.spatial), ("temporal", block.temporal)):
            if attention is not None:
                hook = partial(keep, kind)
                handles.append(attention.attend.register_forward_hook(hook))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def choose_position(
    world: World, before: UInt8[np.ndarray, "H W C"], after: UInt8[np.ndarray, "H W C"]
) -> tuple[int, str]:
    """Return the position worth looking at, and why: the ball's, or the one that changed most."""
    grid, (height, width, _) = world.stack.dynamics.grid, after.shape
    if why_no_objects(world) is None:
        objects = find_objects(after[None], world.config.game)
        if objects.ball_seen[0]:
            row, column = objects.ball_yx[0]
            down = int(row / height * grid.group_rows)
            return down * grid.group_columns + int(column / width * grid.group_columns), "the ball"
    change = np.abs(after.astype(np.float32) - before).sum(-1)
    size = (grid.group_columns, grid.group_rows)
    by_position = cv2.resize(change, size, interpolation=cv2.INTER_AREA)
    return int(by_position.argmax()), "the largest change"


def draw_attention(
    path: Path,
    world: World,
    maps: AttentionMaps,
    position: int,
    past: UInt8[np.ndarray, "T H W C"],
    after: UInt8[np.ndarray, "H W C"],
) -> None:
    """Write a PNG: where one position of the predicted frame looks, a row for every layer.

    The first row shows attention in the frame, a tile for every layer; the others show attention
    back in time, in frames the brighter the more of the layer's weight they are given.

    Args:
        path: the file.
        world: whose attention it is.
        maps: weights of all positions.
        position: the one to draw.
        past: frames that the world had before it, oldest first.
        after: the predicted frame.
    """
    grid, num_layers = world.stack.dynamics.grid, len(maps.temporal)
    num_frames = maps.temporal.shape[2]
    frames = [_outlined(frame, position, world) for frame in (*past[1 - num_frames :], after)]
    columns = max(num_layers + 1, num_frames)
    blank = (np.zeros_like(after), "")

    in_frame = [(frames[-1], "predicted")]
    spatial = rearrange(maps.spatial[:, position], "layers (h w) -> layers h w", h=grid.group_rows)
    for layer, weights in enumerate(spatial):
        label = f"layer {layer + 1}, top {weights.max():.0%}"
        in_frame.append((_heated(after, weights, _side(world)), label))
    tiles = in_frame + [blank] * (columns - len(in_frame))
    for layer, shares in enumerate(maps.temporal[:, position]):
        for index, (frame, share) in enumerate(zip(frames, shares, strict=True)):
            age = num_frames - 1 - index
            label = f"layer {layer + 1}, {f'-{age}' if age else 'self'}: {share:.0%}"
            tiles.append((_dimmed(frame, float(share / shares.max())), label))
        tiles += [blank] * (columns - num_frames)

    pictures, labels = zip(*tiles, strict=True)
    scale = -(-_MIN_WIDTH // after.shape[1])
    contact_sheet(path, np.stack(pictures), columns=columns, labels=labels, scale=scale)


def _heated(
    frame: UInt8[np.ndarray, "H W C"], weights: Float32[np.ndarray, "rows columns"], side: int
) -> UInt8[np.ndarray, "H W C"]:
    """Return a frame in grey under a map of colours; the largest weight is the brightest."""
    heat = (255 * weights / weights.max()).astype(np.uint8)
    heat = heat.repeat(side, axis=0).repeat(side, axis=1)[: frame.shape[0], : frame.shape[1]]
    colours = cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(colours, 0.7, grey, 0.3, 0), np.uint8)


def _dimmed(frame: UInt8[np.ndarray, "H W C"], share: float) -> UInt8[np.ndarray, "H W C"]:
    """Return a frame whose brightness shows a share of 1; with none it can still be seen."""
    return (frame * (0.15 + 0.85 * share)).astype(np.uint8)


def _outlined(
    frame: UInt8[np.ndarray, "H W C"], position: int, world: World
) -> UInt8[np.ndarray, "H W C"]:
    """Return a frame with the outline of a position, a pixel wide."""
    side = _side(world)
    row, column = divmod(position, world.stack.dynamics.grid.group_columns)
    picture = frame.copy()
    corner = (column * side, row * side)
    cv2.rectangle(picture, corner, (corner[0] + side - 1, corner[1] + side - 1), OUTLINE, 1)
    return picture


def _side(world: World) -> int:
    """Return the side of a position, in pixels."""
    return world.config.tokenizer.patch_size * world.stack.dynamics.grid.group_size
