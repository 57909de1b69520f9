"""Record a little Pong and show what the recording holds.

python examples/collect_pong.py [folder]
"""

import sys
import tempfile

from collectors import record
from genie_gym.data.hdf5 import Recording


def main() -> None:
    """Record 500 steps, read them back, and print how often each reward was earned."""
    with tempfile.TemporaryDirectory() as temporary:
        out = sys.argv[1] if len(sys.argv) > 1 else temporary
        summary = record("ALE/Pong-v5", out, steps=500, policy="scripted", seed=0)
        print(summary.class_table)

        rows = Recording.open(out).load()
        bytes_per_frame = summary.num_bytes / len(rows.frames)
        print(f"\nframes {rows.frames.shape}, {bytes_per_frame:.0f} bytes per frame on disk")
        print(f"actions taken: {summary.num_steps} in {summary.num_episodes} episodes")


if __name__ == "__main__":
    main()
