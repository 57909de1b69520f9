"""What happens between two rollouts: checks in the real game, saves, logs."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger
from tqdm import tqdm

from genie_gym.agents.checkpoint import Checkpoints
from genie_gym.agents.config import AgentConfig
from genie_gym.agents.games import OPENING_STEPS, play_imagined, play_real
from genie_gym.agents.learner import Learner
from genie_gym.agents.policy import RUN_SUBFOLDER, PolicyCard, load_policy, save_policy
from genie_gym.files import write_text

CHECK_SEED = 1_000_000
"""First seed of the games of a check; far from those that results are reported on."""


class Progress:
    """Checks, saves and logs a run.

    It is visited before a rollout, when the update before it is whole, so that a resumed run does
    what an unbroken one does.

    Args:
        learner: what learns.
        config: what was asked for.
        card: of the policy, figures still open; its steps are those taken before this run.
        out: the run folder.
        checkpoints: where to save.
        logger: takes the figures of a check.
        bar: shows the steps.
        marks: where the run stands, to be saved with it: what the checkpoint gave that it goes on
            from, or the `world_hash` of a new run.
    """

    def __init__(
        self,
        learner: Learner,
        config: AgentConfig,
        card: PolicyCard,
        out: Path,
        checkpoints: Checkpoints,
        logger: Logger,
        bar: "tqdm[Any]",
        marks: dict[str, Any],
    ) -> None:
        self._learner = learner
        self._config = config
        self._card = card
        self._out = out
        self._checkpoints = checkpoints
        self._logger = logger
        self._bar = bar
        self._marks = {"checked": 0, "saved": 0, "check_steps": 0, "best": None} | marks
        self._drop_later_lines(learner.num_steps)

    def visit(self, *, is_last: bool = False) -> None:
        """Check and save what is due; with `is_last`, the finished policy."""
        step, marks = self._learner.num_steps, self._marks
        is_check, is_save = (
            step // every > marks[mark] // every or (is_last and step > marks[mark])
            for mark, every in (
                ("checked", self._config.real_check.every),
                ("saved", self._config.save_every),
            )
        )
        if is_check:
            marks["checked"] = step
            self._save_policy(RUN_SUBFOLDER, {})
            if self._config.real_check.episodes:
                self._check(step)
        if is_save:
            marks["saved"] = step
            self._checkpoints.save(self._learner, marks)

    def _check(self, step: int) -> None:
        """Play real games, compare them with what is imagined, and keep the best policy."""
        check = self._config.real_check
        policy = load_policy(self._out / RUN_SUBFOLDER, self._config.env.device)
        count, seed = check.episodes, CHECK_SEED
        games = play_real(policy, count, seed=seed, max_steps=check.max_steps)
        begun = play_real(policy, count, seed=seed, max_steps=check.compared_steps)
        env = dataclasses.replace(self._config.env, max_episode_steps=check.compared_steps)
        imagined = play_imagined(policy, count, env, seed=seed)
        gap = float(imagined.returns.mean() - begun.returns.mean())
        played = games.lengths.sum() + begun.lengths.sum() + count * OPENING_STEPS
        self._marks["check_steps"] += int(played)
        figures = {
            "step": step,
            "real_return": float(games.returns.mean()),
            "real_returns": games.returns.tolist(),
            "begun_real_return": float(begun.returns.mean()),
            "begun_imagined_return": float(imagined.returns.mean()),
            "gap": gap,
            "is_exploiting": gap > check.alarm_gap,
        }
        if figures["is_exploiting"]:
            self._warn(step, gap)
        self._log(step, figures)
        best = self._marks["best"]
        if best is None or figures["real_return"] > best:
            self._marks["best"] = figures["real_return"]
            self._save_policy("best", figures)
        self._save_policy(RUN_SUBFOLDER, figures)

    def _warn(self, step: int, gap: float) -> None:
        self._bar.write(
            f"warning, step {step}: the policy earns {gap:.1f} points more in the first "
            f"{self._config.real_check.compared_steps} steps of an imagined game than of a real "
            "one. It exploits the world's mistakes: stop here and take best/, "
            "shorten env.max_episode_steps, or train the world on this policy's play",
            sys.stderr,
        )

    def _log(self, step: int, figures: dict[str, Any]) -> None:
        with self._metrics.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        for name, value in figures.items():
            if isinstance(value, float):
                self._logger.record(f"check/{name}", value)
        self._logger.dump(step)
        self._bar.set_postfix(real=f"{figures['real_return']:.1f}", gap=f"{figures['gap']:.1f}")

    def _save_policy(self, folder: str, figures: dict[str, Any]) -> None:
        card = dataclasses.replace(
            self._card,
            imagined_steps=self._card.imagined_steps + self._learner.num_steps,
            check_steps=self._card.check_steps + self._marks["check_steps"],
            figures=figures,
        )
        save_policy(self._out / folder, card, self._learner.weights())

    @property
    def _metrics(self) -> Path:
        return self._out / "metrics.jsonl"

    def _drop_later_lines(self, step: int) -> None:
        """Forget checks that the run makes again after a kill."""
        if self._metrics.is_file():
            lines = self._metrics.read_text().splitlines(keepends=True)
            # A kill inside a write leaves a last line without its end.
            whole = [line for line in lines if line.endswith("\n")]
            write_text(self._metrics, "".join(x for x in whole if json.loads(x)["step"] <= step))
