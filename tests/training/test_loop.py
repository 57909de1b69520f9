import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from genie_gym.data.batch import Batch
from genie_gym.errors import DivergedError
from genie_gym.models.stack import STAGES
from genie_gym.training.checkpoint import Checkpoints
from genie_gym.training.config import StageConfig
from genie_gym.training.loop import learning_rate_at, make_optimizers, train
from genie_gym.training.run import RunFolder

CPU = torch.device("cpu")


class Summation(nn.Module):
    """Learns to add up three whole numbers; with a 0 among them its gradient, or loss, is lost."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.constant_(self.linear.bias, 0.25)
        self.ruins = "loss"

    def forward(self, batch):
        """Return the squared error of the sums."""
        numbers = batch.tokens.float()
        error = self.linear(numbers)[..., 0] - numbers.sum(-1)
        loss = error.square().mean()
        is_ruined = bool((numbers == 0).any())
        if is_ruined and self.ruins == "loss":
            loss = loss * torch.nan
        if is_ruined and self.ruins == "gradient":  # the slope of the root of 0 is infinite
            loss = loss + (self.linear.bias - self.linear.bias.detach()).abs().sqrt().sum()
        return loss, {"size": float(len(numbers))}


@dataclass
class SummationStage:
    """Gives the same batch for the same step; a batch of step `bad_step` holds zeros."""

    batch_size: int
    bad_step: int | None = None
    name: str = "summation"
    module: Summation = field(default_factory=Summation)

    def numbers(self, step):
        """Draw the numbers of a step."""
        generator = torch.Generator().manual_seed(step)
        return torch.randint(1, 5, (self.batch_size, 1, 3), generator=generator)

    def batch_at(self, step):
        """Return the numbers of a step, or zeros."""
        numbers = self.numbers(step)
        return Batch(tokens=numbers * 0 if step == self.bad_step else numbers)

    def validate(self):
        """Return a weight."""
        return {"weight": float(self.module.linear.weight.detach().sum())}


class WholeStage(SummationStage):
    """Gives the batches of two steps of another one in one."""

    def numbers(self, step):
        """Draw the numbers of a step."""
        return torch.cat([super(WholeStage, self).numbers(2 * step + part) for part in (0, 1)])


class ListLog:
    """Keeps metrics in memory."""

    def __init__(self):
        self.lines = []

    def write(self, step, split, metrics):
        """Keep the metrics of one step."""
        self.lines.append((step, split, dict(metrics)))


def run(stage, folder, *, on_step=lambda step: None, **settings):
    settings = {"warmup_steps": 1, "learning_rate": 0.1, "max_grad_norm": 1e9} | settings
    log = ListLog()
    train(
        stage,
        StageConfig(**settings),
        generator=torch.Generator(),
        seed=0,
        device=CPU,
        checkpoints=Checkpoints(folder),
        log=log,
        on_step=on_step,
    )
    return log.lines


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    config = StageConfig(max_steps=110, warmup_steps=10, learning_rate=1.0, min_learning_rate=0.2)
    rates = {step: learning_rate_at(step, config) for step in (0, 4, 9, 10, 35, 60, 110, 999)}
    quarter = 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 35: quarter, 60: 0.6, 110: 0.2, 999: 0.2}
    assert rates == pytest.approx(expected)


def test_the_learning_rate_of_a_run_without_warm_up_begins_at_the_peak():
    config = StageConfig(max_steps=1, warmup_steps=0, learning_rate=0.3)
    assert learning_rate_at(0, config) == pytest.approx(0.3)


def test_the_loop_learns_what_has_a_known_answer(tmp_path):
    stage = SummationStage(batch_size=16)
    lines = run(stage, tmp_path, max_steps=200, weight_decay=0.0)
    weight = stage.module.linear.weight
    torch.testing.assert_close(weight, torch.ones_like(weight), atol=0.02, rtol=0)
    losses = [metrics["loss"] for _, split, metrics in lines if split == "train"]
    assert len(losses) == 200 and losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_weight_has_one_optimizer(optimizer):
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    optimizers = make_optimizers(module, StageConfig(optimizer=optimizer, beta2=0.9))
    trained = {
        name: [weight for group in one.param_groups for weight in group["params"]]
        for name, one in optimizers.items()
    }
    assert trained.get("muon", []) == ([module[1].weight] if optimizer == "muon" else [])
    everything = sorted(id(weight) for weights in trained.values() for weight in weights)
    assert everything == sorted(id(weight) for weight in module.parameters())
    assert optimizers["adamw"].param_groups[0]["betas"] == (0.9, 0.9)


def test_two_half_batches_are_one_whole_batch(tmp_path):
    halves, whole = SummationStage(batch_size=3), WholeStage(batch_size=3)
    settings = {"max_steps": 5, "eval_every": 99}
    half_lines = run(halves, tmp_path / "halves", gradient_accumulation_steps=2, **settings)
    whole_lines = run(whole, tmp_path / "whole", **settings)
    for name, weight in whole.module.state_dict().items():
        torch.testing.assert_close(halves.module.state_dict()[name], weight)
    for (_, split, half), (_, _, one) in zip(half_lines, whole_lines, strict=True):
        if split == "train":
            assert half["loss"] == pytest.approx(one["loss"], rel=1e-5)
            assert half["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)
            assert (half["size"], one["size"]) == (3, 6)


@pytest.mark.parametrize("ruins", ["loss", "gradient"])
def test_a_step_that_is_not_finite_stops_before_the_weights_change(tmp_path, ruins):
    stage = SummationStage(batch_size=4, bad_step=3)
    stage.module.ruins = ruins
    before = {}

    def keep(step):
        before.update({name: x.clone() for name, x in stage.module.state_dict().items()})

    what = "loss is nan" if ruins == "loss" else "gradient norm is (nan|inf)"
    text = rf"stage 'summation': {what} at step 3 of 9; the weights are those before this step\."
    with pytest.raises(DivergedError, match=text):
        run(stage, tmp_path, max_steps=9, save_every=2, on_step=keep)
    for name, x in stage.module.state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_bad_batch_in_the_middle_of_an_accumulation_stops_too(tmp_path):
    stage = SummationStage(batch_size=4, bad_step=5)
    with pytest.raises(DivergedError, match="loss is nan at step 2 of 9"):
        run(stage, tmp_path, max_steps=9, gradient_accumulation_steps=2)


def test_validation_and_checkpoints_come_when_asked_for_and_at_the_end(tmp_path):
    lines = run(SummationStage(batch_size=4), tmp_path, max_steps=7, eval_every=3, save_every=4)
    assert [step for step, split, _ in lines if split == "validation"] == [3, 6, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000007"]


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("name", "optimizer"), [*((name, "adamw") for name in STAGES), ("dynamics", "muon")]
)
def test_a_resumed_run_equals_an_unbroken_one(name, optimizer, earlier_stages, train_stage):
    settings = {"max_steps": 6, "save_every": 2, "eval_every": 3, "optimizer": optimizer}
    weights, lines = train_stage(earlier_stages("unbroken", name), name, **settings)

    def kill(step):
        if step == 4:  # after the checkpoint of step 4, and one more step that is lost
            raise KilledError

    broken = earlier_stages("broken", name)
    with pytest.raises(KilledError):
        train_stage(broken, name, on_step=kill, **settings)
    resumed_weights, resumed_lines = train_stage(RunFolder(broken.path), name, **settings)

    for key, x in weights.items():
        assert torch.equal(resumed_weights[key], x), key
    assert list(resumed_lines) == [(4, "train"), (5, "train"), (6, "validation")]
    for key, metrics in resumed_lines.items():
        assert metrics == lines[key]


@pytest.mark.parametrize("name", ["tokenizer", "dynamics"])
def test_one_seed_gives_one_result_and_another_seed_another(name, earlier_stages, train_stage):
    first, second, other = (
        train_stage(earlier_stages(folder, name), name, seed=seed, max_steps=2)[0]
        for folder, seed in (("first", 3), ("second", 3), ("other", 4))
    )
    assert all(torch.equal(second[key], x) for key, x in first.items())
    assert not all(torch.equal(other[key], x) for key, x in first.items())
