"""The pipeline's recording in memory, and one stage of it, trained as a run trains it."""

from dataclasses import replace

import pytest
import torch

from genie_gym.config import from_dict, load_yaml
from genie_gym.models.stack import STAGES, GenieStack
from genie_gym.training.checkpoint import Checkpoints
from genie_gym.training.config import RunConfig
from genie_gym.training.data import TrainingData
from genie_gym.training.loop import train
from genie_gym.training.run import RunFolder, _make_stage

CPU = torch.device("cpu")


class ListLog:
    """Keeps metrics in memory."""

    def __init__(self):
        self.lines = {}

    def write(self, step, split, metrics):
        """Keep the metrics of one step."""
        self.lines[step, split] = dict(metrics)


@pytest.fixture(scope="session")
def config(pipeline):
    """Preset tiny, as the pipeline's run was trained with."""
    return from_dict(RunConfig, load_yaml(pipeline.run / "config.yaml"))


@pytest.fixture(scope="session")
def data(pipeline, config):
    return TrainingData(pipeline.recording, config.stack, validation_share=0.2)


@pytest.fixture
def earlier_stages(pipeline, tmp_path):
    """Return a function that makes a run folder in which only the stages before one are done."""

    def make(name, stage):
        run = RunFolder(tmp_path / name)
        for earlier in STAGES[: STAGES.index(stage)]:
            run.weights_file(earlier).parent.mkdir(parents=True)
            source = pipeline.run / earlier / "weights.safetensors"
            run.weights_file(earlier).write_bytes(source.read_bytes())
        run.path.mkdir(exist_ok=True)
        cache = (pipeline.run / "tokens.safetensors").read_bytes()
        (run.path / "tokens.safetensors").write_bytes(cache)
        return run

    return make


@pytest.fixture
def train_stage(config, data):
    """Return a function that trains one stage in a run folder, as `run_training` does."""

    def run_stage(run, name, *, seed=0, on_step=lambda step: None, **changes):
        stage_config = replace(getattr(config.training, name), batch_size=4, **changes)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        stack = GenieStack(config.stack, generator=generator)
        run.load(stack)
        stage = _make_stage(name, stack, data, run, stage_config, seed)
        log = ListLog()
        train(
            stage,
            stage_config,
            generator=generator,
            seed=seed,
            device=CPU,
            checkpoints=Checkpoints(run.path / name / "checkpoints"),
            log=log,
            on_step=on_step,
        )
        return stage.module.state_dict(), log.lines

    return run_stage
