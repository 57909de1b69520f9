"""Speed, size and memory of recording Pong, beside what else could be done with the same machine.

    python benchmarks/record_speed.py --steps 200000

Rates are steps a second from the call to its end, so the start of the worker processes and the
closing of the files count. Stepping ALE's own vector environment, which stores nothing, is what
recording is held against. Minari's `DataCollector` needs `pip install "minari[hdf5,create]"`.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv

from collectors import RecordingSummary, record

FRAME_SIZE, FRAME_SKIP = 64, 4
MOST_BYTES = 200
"""Bytes of a frame of Pong that a recording may take."""
SECONDS_BETWEEN_SAMPLES = 0.2


def stepping_rate(num_envs: int, num_steps: int) -> float:
    """Return steps a second of all environments of ALE's vector environment together."""
    envs = AtariVectorEnv(
        "pong",
        num_envs,
        grayscale=False,
        img_height=FRAME_SIZE,
        img_width=FRAME_SIZE,
        stack_num=1,
        frameskip=FRAME_SKIP,
        use_fire_reset=False,
        reward_clipping=False,
    )
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    start = time.perf_counter()
    for _ in range(num_steps // num_envs):
        envs.step(rng.integers(6, size=num_envs))
    return num_steps / (time.perf_counter() - start)


def recording_rate(folder: Path, num_envs: int, num_steps: int) -> tuple[float, RecordingSummary]:
    """Return steps a second of a whole recording, and its summary."""
    start = time.perf_counter()
    summary = record(
        "Pong", folder, steps=num_steps, policy="random", num_envs=num_envs, progress=False
    )
    return num_steps / (time.perf_counter() - start), summary


def minari_rate(num_steps: int) -> float | None:
    """Return steps a second of Minari's `DataCollector` with raw frames; None without Minari."""
    try:
        import jax  # noqa: F401  (what `DataCollector` fails without)
        import minari
    except ImportError:
        return None
    atari = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    env = minari.DataCollector(
        gym.wrappers.AtariPreprocessing(
            atari, frame_skip=FRAME_SKIP, screen_size=FRAME_SIZE, grayscale_obs=False
        ),
        jpeg_encoding=False,
    )
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    start = time.perf_counter()
    for _ in range(num_steps):
        *_, terminated, truncated, _ = env.step(int(rng.integers(6)))
        if terminated or truncated:
            env.reset()
    env.create_dataset("benchmark/pong-v0")
    return num_steps / (time.perf_counter() - start)


class MemoryLog:
    """Samples the memory of this process and its children while a block runs."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        """Seconds since the start, MiB of all processes together."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryLog":
        """Begin to sample."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Sample no more."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        start = time.monotonic()
        while not self._is_over.wait(SECONDS_BETWEEN_SAMPLES):
            self.samples.append((time.monotonic() - start, tree_mebibytes(os.getpid())))


def tree_mebibytes(process_id: int) -> float:
    """Return the resident memory of a process and all that it started, in MiB (Linux)."""
    folder = Path(f"/proc/{process_id}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        tasks = list((folder / "task").iterdir())
        children = [id for task in tasks for id in (task / "children").read_text().split()]
    except OSError:  # it has ended meanwhile
        return 0.0
    own = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return own + sum(tree_mebibytes(int(child)) for child in children)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200_000, help="steps to record")
    parser.add_argument("--num-envs", type=int, default=8, help="environments side by side")
    parser.add_argument("--minari-steps", type=int, default=5_000, help="steps of DataCollector")
    options = parser.parse_args()

    stepping = stepping_rate(options.num_envs, options.steps // 2)
    with tempfile.TemporaryDirectory() as folder:
        with MemoryLog() as memory:
            rate, summary = recording_rate(Path(folder) / "pong", options.num_envs, options.steps)
        os.environ["MINARI_DATASETS_PATH"] = folder
        minari = minari_rate(options.minari_steps)
    print(f"stepping alone    {stepping:8.0f} steps/s, {options.num_envs} environments")
    print(f"recording         {rate:8.0f} steps/s, {rate / stepping:.2f} of stepping alone")
    if minari is None:
        print("minari                   - not measured: it is not installed with its recorder")
    else:
        print(
            f"minari            {minari:8.0f} steps/s, recording is {rate / minari:.1f} times that"
        )
    num_frames = summary.num_steps + summary.num_episodes
    size = summary.num_bytes / num_frames
    print(f"on the disk       {size:8.1f} bytes a frame, {size / MOST_BYTES:.2f} of {MOST_BYTES}")
    thirds = np.array_split(np.array([mebibytes for _, mebibytes in memory.samples]), 3)
    second, third = thirds[1].max(), thirds[2].max()
    print(
        f"memory            {third:8.0f} MiB at most in the last third of {summary.num_steps} "
        f"steps, {third / second:.2f} of the second third's {second:.0f}"
    )


if __name__ == "__main__":
    main()
