"""What `import genie_gym` costs beside the `import gymnasium` that it cannot do without.

Prints the median of five fresh interpreters each and their ratio. The ratio is what to watch: near
1 means that registering the environments loads nothing of its own, above 3 that torch is back.
"""

import statistics
import subprocess
import sys

NUM_RUNS = 5


def import_seconds(module: str) -> float:
    """Return the median seconds that importing a module takes in a fresh interpreter."""
    code = f"import time; s = time.perf_counter(); import {module}; print(time.perf_counter() - s)"
    command = [sys.executable, "-c", code]
    # The first run fills the file cache; it is not counted.
    subprocess.run(command, check=True, capture_output=True)
    runs = [subprocess.run(command, check=True, capture_output=True) for _ in range(NUM_RUNS)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    """Measure both imports and print them."""
    genie_gym, gymnasium = import_seconds("genie_gym"), import_seconds("gymnasium")
    print(f"import genie_gym  {genie_gym:.3f} s")
    print(f"import gymnasium  {gymnasium:.3f} s")
    print(f"ratio             {genie_gym / gymnasium:.2f}")


if __name__ == "__main__":
    main()
