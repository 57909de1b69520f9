"""Speed of reading windows: straight from the HDF5 shards, and from memory.

    python benchmarks/loader_speed.py --data data/pong

A window is 16 frames with the actions, rewards and ends between them. Every batch is drawn at
random over the whole recording and copied into memory of its own: what is timed is all that a
training step waits for. Reading takes one thread. `copy` is a plain copy of just as many bytes, so
that a slow machine shows. Batches above 32 MiB (170 windows of 64x64) cost the operating system
fresh pages every time. Without --data, random Pong is recorded first.
"""

import argparse
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from collectors import record
from genie_gym.data.hdf5 import Recording
from genie_gym.data.windows import EpisodeWindows

Draws = list[Int64[np.ndarray, " B"]]

NUM_FRAMES = 16
NUM_STEPS = 20_000
SECONDS = 2.0
BARS = {"HDF5": 1_500, "memory": 20_000}


def rate(read: Callable[[Int64[np.ndarray, " B"]], object], draws: Draws) -> float:
    """Return windows a second over at least `SECONDS`, every batch but the first counted."""
    batches = itertools.cycle(draws)
    read(next(batches))
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        count += len(draws[0])
        read(next(batches))
    return count / seconds


def measure(folder: Path, batch_size: int) -> None:
    """Print the rates of one recording."""
    recording = Recording.open(folder)
    windows = {
        "HDF5": EpisodeWindows(recording.load(in_memory=False)),
        "memory": EpisodeWindows(recording.load()),
    }
    starts = windows["memory"].valid_starts(NUM_FRAMES)
    window_bytes = NUM_FRAMES * math.prod(recording.frame_shape)
    print(
        f"{recording.num_frames} frames of {recording.frame_shape}, {recording.num_episodes} "
        f"episodes, {len(recording.shards)} shards; windows of {NUM_FRAMES} frames, "
        f"{batch_size} a batch; 1 thread of {os.cpu_count()} cores"
    )
    rng = np.random.default_rng(0)
    draws = [rng.choice(starts, batch_size) for _ in range(64)]
    for name, one in windows.items():
        measured = rate(lambda batch, one=one: one.clip(batch, NUM_FRAMES), draws)
        bar = BARS[name]
        print(f"{name:6} {measured:8.0f} windows/s, {measured / bar:.2f} times the bar of {bar}")
    source = np.ones(batch_size * window_bytes, np.uint8)
    print(f"copy   {rate(lambda batch: source.copy(), draws):8.0f} windows/s")


def main() -> None:
    """Record if need be, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="recording (default: random Pong, made here)")
    parser.add_argument("--batch-size", type=int, default=32, help="windows a batch (default: 32)")
    options = parser.parse_args()
    if options.data:
        measure(options.data, options.batch_size)
        return
    with tempfile.TemporaryDirectory() as folder:
        record("Pong", folder, steps=NUM_STEPS, policy="random", progress=False)
        measure(Path(folder), options.batch_size)


if __name__ == "__main__":
    main()
