"""The log of a stage: a line of JSON each, TensorBoard, the progress bar's tail, and warnings."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from genie_gym.models.tokenizer import Metrics
from genie_gym.training.guards import warnings

LOG_EVERY = 10


class RunLog:
    """Metrics of one stage: a line of JSON each, TensorBoard, and the progress bar's tail."""

    def __init__(self, folder: Path, stage: str, bar: "tqdm[Any]") -> None:
        """Open the log; an older one is continued."""
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._stage = stage
        self._bar = bar
        self._start = time.monotonic()
        self._warned: set[str] = set()
        self._file = (folder / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(folder))

    def __enter__(self) -> "RunLog":
        """Return the log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._file.close()
        self._board.close()

    def write(self, step: int, split: str, metrics: Metrics) -> None:
        """Keep the metrics of a step as `<stage>/<split>/<quantity>`; every tenth in training."""
        if split == "train" and step % LOG_EVERY:
            return
        line = {"step": step, "split": split, "seconds": round(time.monotonic() - self._start, 1)}
        warned = self._warn(step, metrics) if split == "validation" else {}
        self._file.write(json.dumps({**line, **metrics, **warned}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(f"{self._stage}/{split}/{name}", value, step)
        if split == "validation":
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()})

    def _warn(self, step: int, metrics: Metrics) -> dict[str, dict[str, str]]:
        """Print every warning of a new kind; return them for the log."""
        new = {
            kind: text for kind, text in warnings(self._stage, metrics) if kind not in self._warned
        }
        self._warned |= new.keys()
        for kind, text in new.items():
            self._bar.write(f"warning, {self._stage} at step {step}: {kind}: {text}", sys.stderr)
            self._board.add_text(f"{self._stage}/warning", f"{kind}: {text}", step)
        return {"warnings": new} if new else {}
