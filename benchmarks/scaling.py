"""Memory and time of a world's networks against clip length, picture size and batch.

    python benchmarks/scaling.py --world pong --threads 1

Exponents near 1 are linear growth, near 0 none. Pixels are measured with and without attention
inside frames, which is quadratic by design; anything else above 1.2 is flagged.
"""

import argparse

import torch

from genie_gym.config import from_dict
from genie_gym.evaluation.scaling import scaling
from genie_gym.models.bundle import choose_device, find_bundle, read_card
from genie_gym.models.stack import StackConfig


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    config = from_dict(StackConfig, read_card(find_bundle(options.world))["config"])
    report = scaling(config, choose_device(options.device))
    print(f"device {report['device']}; peak MiB and ms by size, with fitted exponents")
    for name, dimensions in report["forwards"].items():
        for dimension, figures in dimensions.items():
            growth = figures["exponents"]
            print(
                f"\n{name} against {dimension}: bytes^{growth['bytes']:.2f}, "
                f"seconds^{growth['seconds']:.2f}"
            )
            rows = zip(figures["sizes"], figures["peak_bytes"], figures["seconds"], strict=True)
            for size, peak, seconds in rows:
                print(f"{size:8g} {peak / 2**20:10.2f} MiB {1000 * seconds:10.2f} ms")
    for flag in report["flags"]:
        print(f"\nmore than linear: {flag}")


if __name__ == "__main__":
    main()
