"""A run folder, and the stages that fill it one after the other.

runs/pong/
    config.yaml                what was asked for
    data.yaml                  which recordings, and what the first says of itself
    tokens.safetensors         the recordings as tokens and latent actions (a cache)
    tokenizer/  lam/  dynamics/  reward/  action_map/
        weights.safetensors    the finished part
        metrics.jsonl          one line a logged step, with the warnings printed at it
        checkpoints/           to resume from
        events.out.tfevents.*  TensorBoard
"""

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from genie_gym.config import from_dict, load_yaml, to_dict
from genie_gym.errors import DataError
from genie_gym.files import replacing, write_text
from genie_gym.models.stack import STAGES, GenieStack, StackConfig
from genie_gym.models.tokenizer import Metrics
from genie_gym.models.world import World
from genie_gym.training.action_stages import ActionMapStage, LatentActionStage, choose_labels
from genie_gym.training.checkpoint import Checkpoints
from genie_gym.training.config import RunConfig, StageConfig
from genie_gym.training.data import TrainingData, Windows
from genie_gym.training.loop import Stage, train
from genie_gym.training.run_log import RunLog
from genie_gym.training.stages import ClipStage, DynamicsStage, RewardStage
from genie_gym.training.tokens import tokenize
from genie_gym.training.warm_start import warm_start

REPLACEABLE = frozenset({"action_map"})
"""Stages that no other is built on, so that a run may train them anew."""


class RunFolder:
    """Paths of a run, and what has been finished in it."""

    def __init__(self, path: Path) -> None:
        """Take the folder; it need not exist."""
        self.path = path

    def open(self, config: RunConfig, *, resume: bool, stages: Sequence[str]) -> None:
        """Make the folder ready to train `stages`.

        Without `resume` an action map is learned anew, since no other part is built on it.

        Raises:
            ConfigError: it holds a run whose config has unknown keys.
            DataError: it holds a run with another config, or a stage that `resume` would continue.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / "config.yaml"
        if file.is_file():
            old = from_dict(StackConfig, load_yaml(file)["stack"], f"{file}: stack")
            may_differ = () if resume else REPLACEABLE.intersection(stages)
            self._check_same_stack(old, config.stack, may_differ)
        for stage in stages:
            if not resume and stage not in REPLACEABLE and (self.path / stage).exists():
                raise DataError(
                    f"{self.path / stage} has been trained already. Go on with --resume, or take "
                    "another --out"
                )
        if not resume:
            for stage in REPLACEABLE.intersection(stages):
                shutil.rmtree(self.path / stage, ignore_errors=True)
        write_text(file, yaml.safe_dump(to_dict(config), sort_keys=False))

    def _check_same_stack(
        self, old: StackConfig, new: StackConfig, may_differ: Collection[str]
    ) -> None:
        """Refuse a config that differs in what trained or half-trained parts are built of."""
        old_values, new_values = to_dict(old), to_dict(new)
        untouched = {stage for stage in STAGES if not (self.path / stage).exists()}
        for key in new_values.keys() - untouched - set(may_differ):
            if new_values[key] != old_values[key]:
                raise DataError(
                    f"{self.path} was trained with stack.{key}={old_values[key]}, but the config "
                    f"says {new_values[key]}. Use the old value, or take another --out"
                )

    def read_config(self) -> RunConfig:
        """Return the config of the run.

        Raises:
            DataError: the folder holds no run.
        """
        file = self.path / "config.yaml"
        if not file.is_file():
            raise DataError(
                f"{self.path} holds no run (no config.yaml). Make one: genie-gym train --config "
                f"configs/pong.yaml --data DATA --out {self.path}"
            )
        return from_dict(RunConfig, load_yaml(file), str(file))

    def weights_file(self, stage: str) -> Path:
        """Return where a finished stage keeps its weights."""
        return self.path / stage / "weights.safetensors"

    def has_begun(self, stage: str) -> bool:
        """Return whether a stage has weights to go on from, finished or in a checkpoint."""
        return self.weights_file(stage).is_file() or not self.checkpoints(stage).is_empty()

    def checkpoints(self, stage: str) -> Checkpoints:
        """Return what a stage can be resumed from."""
        return Checkpoints(self.path / stage / "checkpoints")

    def finished_stages(self) -> list[str]:
        """Return the stages that have weights, in the order of training."""
        return [stage for stage in STAGES if self.weights_file(stage).is_file()]

    def last_figures(self, stage: str) -> Metrics:
        """Return the validation figures of a finished stage."""
        lines = (self.path / stage / "metrics.jsonl").read_text().splitlines()
        last = [line for line in map(json.loads, lines) if line["split"] == "validation"][-1]
        return {name: value for name, value in last.items() if isinstance(value, float)}

    def load(self, stack: GenieStack) -> None:
        """Put the weights of all finished stages into a stack.

        Raises:
            DataError: a weights file is damaged, or of other shapes.
        """
        for stage in self.finished_stages():
            file = self.weights_file(stage)
            try:
                getattr(stack, stage).load_state_dict(load_file(file))
            except (SafetensorError, RuntimeError) as error:
                raise DataError(
                    f"{file} is damaged, or of another config: {str(error).splitlines()[0]} Delete "
                    "it and train this stage again with --resume"
                ) from error
        stack.share_codebook()


def run_training(
    config: RunConfig,
    data_paths: Path | Sequence[Path],
    out: Path,
    *,
    stages: Sequence[str] = STAGES,
    resume: bool = False,
    init_from: World | None = None,
    device: torch.device,
) -> RunFolder:
    """Train stages one after the other; return the run folder with their weights.

    Args:
        config: what to train.
        data_paths: recordings to learn from.
        out: the run folder.
        stages: parts to train.
        resume: whether to go on from the newest checkpoints of a run.
        init_from: world whose parts the stages begin with, those that have not begun yet.
        device: where to train.

    Raises:
        ConfigError: `init_from` has no such part, or one of another shape.
        DataError: a recording or the run folder does not fit, or an earlier stage is missing.
        DivergedError: a loss is not finite.
    """
    run = RunFolder(out)
    data = TrainingData(
        data_paths,
        config.stack,
        validation_share=config.validation_share,
        memory_gib=config.memory_gib,
    )
    _check_labels(config, data, stages)
    run.open(config, resume=resume, stages=stages)
    _write_data_card(run, data)
    torch.manual_seed(config.seed)  # initial weights
    generator = torch.Generator().manual_seed(config.seed)
    stack = GenieStack(config.stack, generator=generator).to(device)
    run.load(stack)
    for name in stages:
        stage_config: StageConfig = getattr(config.training, name)
        stage = _make_stage(name, stack, data, run, stage_config, config.seed)
        if init_from is not None and not run.has_begun(name):
            warm_start(stack, init_from, name)
        with (
            tqdm(total=stage_config.max_steps, unit="step", desc=name) as bar,
            RunLog(run.path / name, name, bar) as log,
        ):

            def on_step(step: int, bar: "tqdm[Any]" = bar) -> None:
                bar.n = step + 1
                bar.update(0)

            train(
                stage,
                stage_config,
                generator=generator,
                seed=config.seed,
                device=device,
                checkpoints=run.checkpoints(name),
                log=log,
                on_step=on_step,
            )
        _save_weights(stage.module, run.weights_file(name))
    return run


def _check_labels(config: RunConfig, data: TrainingData, stages: Sequence[str]) -> None:
    """Refuse too many labels at once, not after the stages before have trained."""
    for name in ("lam", "action_map"):
        if name in stages:
            windows = Windows(data, getattr(config.training, name).clip_length)
            num_labels = getattr(config.stack, name).num_labels
            choose_labels(name, num_labels, windows, seed=config.seed)


def _make_stage(
    name: str,
    stack: GenieStack,
    data: TrainingData,
    run: RunFolder,
    config: StageConfig,
    seed: int,
) -> Stage:
    if missing := [part for part in _needed(name, stack) if part not in run.finished_stages()]:
        raise DataError(
            f"stage {name!r} needs {missing} trained first in {run.path}. Run genie-gym train "
            f"--stage {missing[0]} with the same --out"
        )
    if name in ("tokenizer", "lam"):
        windows = Windows(data, config.clip_length, augment=config.augment)
        if name == "tokenizer":
            return ClipStage(name, stack.tokenizer, windows, config, seed=seed)
        stack.tokenizer.eval()
        return LatentActionStage(stack.lam, windows, config, seed=seed)
    tokens = tokenize(data, stack.tokenizer, stack.lam, run.path / "tokens.safetensors")
    windows = Windows(data, config.clip_length, tokens)
    stack.share_codebook()
    if name == "dynamics":
        return DynamicsStage(stack.dynamics, windows, config, seed=seed)
    if name == "action_map":
        return ActionMapStage(stack.action_map, windows, config, seed=seed)
    return RewardStage(stack.reward, windows, config, seed=seed, dynamics=stack.dynamics)


def _needed(name: str, stack: GenieStack) -> tuple[str, ...]:
    """Return the stages that must be finished before one."""
    if name == "lam":
        return ("tokenizer",) if stack.config.lam.input == "tokens" else ()
    # The map looks at codes alone, so it can be learned before the world, or after.
    return STAGES[:2] if name == "action_map" else STAGES[: STAGES.index(name)]


def _write_data_card(run: RunFolder, data: TrainingData) -> None:
    attributes = {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in data.recording.attributes.items()
    }
    card = {
        "paths": list(map(str, data.paths)),
        "num_frames": data.recording.num_frames,
        "num_episodes": data.recording.num_episodes,
        "fingerprint": data.fingerprint,
        "attributes": attributes,
    }
    write_text(run.path / "data.yaml", yaml.safe_dump(card, sort_keys=False))


def _save_weights(module: nn.Module, path: Path) -> None:
    with replacing(path) as part:
        save_file({name: x.contiguous() for name, x in module.state_dict().items()}, part)
