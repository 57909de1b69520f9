"""What each choice of the Pong world is worth: one change at a time, on one small budget.

    python benchmarks/ablations.py --parts runs/pong --data data/pong --tuning data/pong-tuning \
        --out runs/ablations

The variants stand in `benchmarks/ablations.yaml`. Each takes the weights of the finished run
--parts, and goes on training what it changes. Rows are added to `OUT/table.md`; a variant that has
one is skipped, and one that broke off goes on (its CPU time is then that of the rest).
"""

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genie_gym.config import from_dict, load_yaml, override
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report
from genie_gym.evaluation.heldout import draw_rollouts
from genie_gym.evaluation.object_figures import objects
from genie_gym.evaluation.reconstruction import reconstruction
from genie_gym.evaluation.reward_figures import rewards
from genie_gym.evaluation.rollout import Heldout, open_heldout
from genie_gym.models.stack import STAGES, GenieStack
from genie_gym.models.state import Starts, WorldState
from genie_gym.models.world import ActionSource, Imagined, World
from genie_gym.training.config import RunConfig
from genie_gym.training.run import RunFolder, run_training

CPU = torch.device("cpu")
HEAD = (
    "| variant | differs by | changed tokens, nats | wrong tokens | ball | lost or doubled "
    "| own paddle | rebuilt MSE | rebuilt ball | reward precision / recall "
    "| training, CPU s | commit |\n" + 12 * "|---" + "|\n"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One change, and what has to be trained for it."""

    name: str
    """Also the name of its run folder; no two are alike."""
    set: tuple[str, ...] = ()
    """Settings that differ from the base, as on the command line."""
    stages: tuple[Literal["tokenizer", "lam", "dynamics", "reward"], ...] = ("dynamics",)
    """Stages that are trained on from the finished run's; the others stay as they are there."""
    from_scratch: bool = False
    """Whether the trained stages begin untrained instead."""
    reencode_every: int = 0
    """Steps after which a rollout's pictures are read in again; 0 is never."""

    def borrows(self, stage: str) -> bool:
        """Return whether a stage begins with, or keeps, the weights of the finished run."""
        if stage in self.stages:
            return not self.from_scratch
        return "tokenizer" not in self.stages or stage in (
            "lam",
            "action_map",
        )  # others read tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablations:
    """The variants, and the budget that they share."""

    config: str
    """Preset, seen from the file's folder; the base differs from it by the budget alone."""
    budget: tuple[str, ...]
    """Settings of all variants."""
    evaluation: EvaluationConfig
    """How much is measured of each."""
    variants: tuple[Variant, ...]
    """Measured in this order."""

    def run_config(self, variant: Variant, file: Path) -> RunConfig:
        """Return the config of a variant; `file` is where the ablations were read from."""
        values = override(load_yaml(file.parent / self.config), [*self.budget, *variant.set])
        return from_dict(RunConfig, values)


class RereadingWorld(World):
    """Reads its own pictures in again every few steps: decodes all of them, encodes, replays.

    For one rollout at a time: it remembers the pictures since `encode`.
    """

    def __init__(self, reencode_every: int, *args: Any, **options: Any) -> None:
        """Take the number of steps, and what a world takes."""
        super().__init__(*args, **options)
        self.reencode_every = reencode_every

    def encode(
        self,
        frames: UInt8[Tensor, "B T H W C"],
        actions: Int[Tensor, "B T-1"],
        source: ActionSource = "real",
    ) -> WorldState:
        """Return states after real frames, and begin to remember."""
        self._frames, self._actions, self._num_steps = frames, actions, 0
        return super().encode(frames, actions, source)

    def imagine(
        self, state: WorldState, actions: Int[Tensor, " B"], *args: Any, **options: Any
    ) -> Imagined:
        """Return the next states, where it is time read anew from the pictures."""
        result = super().imagine(state, actions, *args, **options)
        self._frames = torch.cat([self._frames, self.decode(result.state)[:, None]], dim=1)
        self._actions = torch.cat([self._actions, actions[:, None]], dim=1)
        self._num_steps += 1
        if self._num_steps % self.reencode_every:
            return result
        return Imagined(super().encode(self._frames, self._actions), result.prediction)


def train(variant: Variant, config: RunConfig, run: Path, parts: Path, data: Path) -> float:
    """Fill a run folder; return the CPU seconds that took, new tokens and validation included."""
    borrowed = [f"{stage}/weights.safetensors" for stage in STAGES if variant.borrows(stage)]
    if "tokenizer" not in variant.stages:
        borrowed.append("tokens.safetensors")
    for name in borrowed:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        if not (run / name).exists():
            (run / name).symlink_to((parts / name).resolve(strict=True))
    begin = time.process_time()
    if variant.stages:
        run_training(config, data, run, stages=variant.stages, resume=True, device=CPU)
    return time.process_time() - begin


def load_world(config: RunConfig, run: Path, reencode_every: int) -> World:
    """Return the world that a run folder holds, without starts."""
    stack = GenieStack(config.stack, generator=torch.Generator().manual_seed(config.seed))
    folder = RunFolder(run)
    folder.load(stack)
    nothing = torch.zeros(0, 1, stack.tokenizer.num_tokens, dtype=torch.int64)
    starts, parts = Starts(nothing, nothing[:, :0, 0]), frozenset(folder.finished_stages())
    if reencode_every:
        return RereadingWorld(reencode_every, stack, starts, parts=parts, card={})
    return World(stack, starts, parts=parts, card={})


def measure(variant: Variant, world: World, heldout: Heldout, config: EvaluationConfig) -> Report:
    """Return the report's sections on what a variant changes."""
    report: Report = {}
    if "tokenizer" in variant.stages or variant.name == "base":
        report["reconstruction"] = reconstruction(world, heldout, config)
    if {"dynamics", "reward"} <= world.parts:
        rollouts = draw_rollouts(world, heldout, config.num_windows, config.horizon, config)
        report["objects"] = objects(world, [rollouts], "not asked for")
        if "reward" in variant.stages:
            report["rewards"] = rewards(world, heldout, rollouts, config)
    return report


def table_row(variant: Variant, run: Path, report: Report, seconds: float) -> str:
    """Return the Markdown row of a variant; what it cannot change is left empty.

    Shares are in percent: tokens wrong after a real and after an imagined past (of the validation
    clips), ball within 2 px after 1, 10 and 20 steps, own paddle after 20, rebuilt ball within 1.
    """
    nats = wrong = ball = lost = paddle = mse = rebuilt = told = ""
    if "dynamics" in variant.stages:
        *_, last = (run / "dynamics" / "metrics.jsonl").read_text().splitlines()
        figures = json.loads(last)
        nats = f"{figures['changed_cross_entropy']:.2f}"
        wrong = f"{100 * figures['forced_error']:.2f} / {100 * figures['free_error']:.2f}"
    if found := report.get("objects"):
        steps = [found["by_step"][step] for step in (1, 10, 20)]
        ball = " / ".join(percent(step["ball_within_2px"]) for step in steps)
        lost = f"{found['lost_or_doubled_per_100']:.1f}"
        paddle = percent(steps[-1]["own_paddle_within_2px"])
    if found := report.get("reconstruction"):
        mse, rebuilt = f"{found['mse']:.6f}", percent(found["ball_within_1px"])
    if found := report.get("rewards"):
        told = ", ".join(
            f"{kind}: {percent(some['precision'])} / {percent(some['recall'])}"
            for kind, some in found["by_step"][20].items()
            if kind[0] in "+-"
        )
    cost = f"{seconds:.0f}" if variant.stages else ""
    cells = [nats, wrong, ball, lost, paddle, mse, rebuilt, told, cost, commit()]
    return "| " + " | ".join([variant.name, ", ".join(variant.set), *cells]) + " |\n"


def percent(share: float | None) -> str:
    """Return a share in percent, "-" where there was nothing to measure it on."""
    return "-" if share is None else f"{100 * share:.0f}"


def commit() -> str:
    """Return the short hash of the checkout, marked where files differ from it, or "unknown"."""
    command = "git describe --always --dirty --exclude=*".split()
    told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, and add a row each; take the command line where no arguments are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--parts", type=Path, required=True, help="finished run to borrow from")
    parser.add_argument("--data", type=Path, required=True, help="recording to train on")
    parser.add_argument("--tuning", type=Path, required=True, help="recording to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and the runs")
    options = parser.parse_args(arguments)

    ablations = from_dict(Ablations, load_yaml(options.config))
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "table.md"
    if not table.exists():
        table.write_text(HEAD)
    heldout = None
    for variant in ablations.variants:
        if f"\n| {variant.name} |" in table.read_text():
            continue
        run, config = options.out / variant.name, ablations.run_config(variant, options.config)
        seconds = train(variant, config, run, options.parts, options.data)
        world = load_world(config, run, variant.reencode_every)
        heldout = heldout or open_heldout(world, options.tuning)
        report = measure(variant, world, heldout, ablations.evaluation)
        row = table_row(variant, run, report, seconds)
        with table.open("a") as file:
            file.write(row)
        print(row, end="", flush=True)


if __name__ == "__main__":
    main()
