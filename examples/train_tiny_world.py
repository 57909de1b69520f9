"""Train the smallest world there is on a little real Pong, in under a minute.

python examples/train_tiny_world.py [folder] [KEY=VALUE ...]
"""

import json
import sys
import tempfile
from pathlib import Path

from collectors import record
from genie_gym.cli import main as genie_gym

CONFIG = Path(__file__).parents[1] / "configs" / "tiny.yaml"


def main() -> None:
    """Record 3,000 steps, train on them, export, and print the tokenizer's error."""
    overrides = sys.argv[2:]
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        data, run, world = (str(out / name) for name in ("data", "run", "world"))
        record("ALE/Pong-v5", data, steps=3000, policy="random", seed=0)
        train = ["train", "--config", str(CONFIG), "--data", data, "--out", run, *overrides]
        for command in (train, ["export", run, "--out", world]):
            if status := genie_gym(command):
                sys.exit(status)

        *_, last = (out / "run" / "tokenizer" / "metrics.jsonl").read_text().splitlines()
        print(f"tokenizer validation mse: {json.loads(last)['mse']:.6f}")


if __name__ == "__main__":
    main()
