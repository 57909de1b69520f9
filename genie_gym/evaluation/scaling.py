"""Memory and time of one forward against clip length, picture size and batch.

Networks of a world's config are built anew with one dimension changed, with no training: shapes
alone decide. Attention inside a frame is quadratic in the number of its tokens by design, so
picture size is measured a second time without it; all else should grow linearly, and whatever grows
with an exponent above 1.2 there is flagged.
"""

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genie_gym.data.batch import Batch
from genie_gym.evaluation.estimates import Report
from genie_gym.models.stack import STAGES, GenieStack, StackConfig
from genie_gym.models.state import Starts
from genie_gym.models.world import World
from genie_gym.nn.transformer import TransformerConfig

LENGTHS = (4, 8, 16, 32, 64)
"""Frames of a clip; the longest well beyond any window, where a hidden quadratic would show."""
FACTORS = (0.5, 1.0, 2.0)
"""Sides of a frame, in those of the config."""
BATCHES = (1, 2, 4, 8)
"""Clips side by side."""
BASE_LENGTH, BASE_BATCH = 8, 2
"""What the dimensions that do not vary are kept at."""
MAX_EXPONENT = 1.2
"""More than linear growth, with room for noise in the seconds."""


@dataclass(frozen=True, slots=True)
class Size:
    """What one forward is given."""

    batch: int = BASE_BATCH
    """Clips side by side."""
    length: int = BASE_LENGTH
    """Frames of a clip, or of the past of a step."""
    factor: float = 1.0
    """Side of a frame, in those of the config."""


def scaling(config: StackConfig, device: torch.device | str = "cpu", *, repeats: int = 5) -> Report:
    """Return peak bytes and seconds of three forwards by size, with exponents and flags.

    `tokenizer_encode` turns frames into tokens, `dynamics_training` is the forward of a training
    step with all that its backward would need, `world_step` one imagined step after a past of T
    frames. Exponents are slopes of least squares through the logarithms. Bytes are those of
    tensors made during the forward and alive at once, weights and inputs left out; on a CPU,
    scratch inside single kernels is not seen. Seconds are the median of `repeats` runs.
    """
    plain = _without_spatial_attention(config)
    sweeps: dict[str, tuple[StackConfig, list[Size], Callable[[Size], int | float]]] = {
        "T": (config, [Size(length=x) for x in LENGTHS], lambda size: size.length),
        "pixels": (config, [Size(factor=x) for x in FACTORS], lambda size: size.factor**2),
        "pixels_without_spatial_attention": (
            plain,
            [Size(factor=x) for x in FACTORS],
            lambda size: size.factor**2,
        ),
        "batch": (config, [Size(batch=x) for x in BATCHES], lambda size: size.batch),
    }
    report: Report = {"device": str(device), "forwards": {}, "flags": []}
    for name, prepare in FORWARDS.items():
        report["forwards"][name] = {}
        for dimension, (varied, sizes, extent) in sweeps.items():
            measured = [
                _measure(prepare, varied, size, torch.device(device), repeats) for size in sizes
            ]
            extents = [extent(size) for size in sizes]
            peaks, seconds = map(list, zip(*measured, strict=True))
            growth = {"bytes": exponent(extents, peaks), "seconds": exponent(extents, seconds)}
            report["forwards"][name][dimension] = {
                "sizes": extents,
                "peak_bytes": peaks,
                "seconds": seconds,
                "exponents": growth,
            }
            if dimension != "pixels":
                report["flags"] += flags(f"{name} against {dimension}", growth)
    return report


def flags(name: str, exponents: dict[str, float]) -> list[str]:
    """Return a line for each quantity that grows more than linearly."""
    return [
        f"{name}: {quantity} grow with exponent {value:.2f}"
        for quantity, value in exponents.items()
        if value > MAX_EXPONENT
    ]


def exponent(sizes: Sequence[int | float], values: Sequence[int | float]) -> float:
    """Return k of the power law c * size^k that fits best, by least squares of the logarithms.

    Example:
        >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
        2.0
    """
    slope, _ = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(slope)


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, follows how many bytes of tensors made inside are alive at once.

    Torch's profiler agrees within a tenth on what the networks here do, but prints to the terminal.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Run an operation and count the storages that are new in its results."""
        kwargs = kwargs or {}
        given = {_storage_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        results = func(*args, **kwargs)
        for x in tree_leaves(results):
            # Views and in-place results share the storage of an argument.
            if isinstance(x, Tensor) and _storage_of(x) not in given:
                self._count(x.untyped_storage())
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self._alive += storage.nbytes()
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, num_bytes: int) -> None:
        self._alive -= num_bytes


def _storage_of(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


def _tokenizer_encode(stack: GenieStack, size: Size) -> Callable[[], object]:
    config, device = stack.config, next(stack.parameters()).device
    frames = torch.rand(size.batch, size.length, config.height, config.width, 3, device=device)
    encode = torch.inference_mode()(stack.tokenizer.encode)
    return lambda: encode(frames)


def _dynamics_training(stack: GenieStack, size: Size) -> Callable[[], object]:
    device, num_codes = next(stack.parameters()).device, stack.config.tokenizer.quantizer.num_codes
    shape = (size.batch, size.length, stack.tokenizer.num_tokens)
    batch = Batch(
        tokens=torch.randint(num_codes, shape, device=device),
        actions=torch.randint(stack.config.num_actions, shape[:2], device=device)[:, 1:],
    )
    stack.dynamics.train()
    return lambda: stack.dynamics(batch)


def _world_step(stack: GenieStack, size: Size) -> Callable[[], object]:
    config, device = stack.config, next(stack.parameters()).device
    shape = (size.batch, size.length, stack.tokenizer.num_tokens)
    tokens = torch.randint(config.tokenizer.quantizer.num_codes, shape, device=device)
    actions = torch.randint(config.num_actions, (size.batch, size.length), device=device)
    starts = Starts(tokens, actions[:, 1:])
    world = World(stack, starts, parts=frozenset(STAGES), card={})
    state = world.start(torch.arange(size.batch, device=device))
    generator = torch.Generator().manual_seed(0)
    return lambda: world.imagine(state, actions[:, 0], generator)


FORWARDS: dict[str, Callable[[GenieStack, Size], Callable[[], object]]] = {
    "tokenizer_encode": _tokenizer_encode,
    "dynamics_training": _dynamics_training,
    "world_step": _world_step,
}
"""What is measured: each takes networks and a size and returns a call."""


def _measure(
    prepare: Callable[[GenieStack, Size], Callable[[], object]],
    config: StackConfig,
    size: Size,
    device: torch.device,
    repeats: int,
) -> tuple[int, float]:
    """Return peak bytes and seconds of one forward."""
    height, width = round(config.height * size.factor), round(config.width * size.factor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        stack = GenieStack(replace(config, height=height, width=width), generator=generator)
        forward = prepare(stack.to(device), size)
        forward()  # the first call also pays for torch's own start
        with _peak_bytes(device) as peak:
            forward()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            forward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return peak[0], statistics.median(seconds)


@contextmanager
def _peak_bytes(device: torch.device) -> Iterator[list[int]]:
    """Give a list that holds the peak once the block is left."""
    result: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield result
        result.append(torch.cuda.max_memory_allocated(device) - before)
    else:
        with PeakBytes() as counter:
            yield result
        result.append(counter.peak)


def _without_spatial_attention(config: Any) -> Any:
    """Return the config with attention inside frames left out of every network."""
    if isinstance(config, TransformerConfig):
        return replace(config, is_spatial=False)
    if not is_dataclass(config) or isinstance(config, type):
        return config
    parts = {part.name: getattr(config, part.name) for part in fields(config)}
    return replace(config, **{name: _without_spatial_attention(x) for name, x in parts.items()})
