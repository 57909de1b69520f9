"""The one training loop. It knows no model: a module maps a batch to a loss and plain metrics.

The randomness of step k depends on (seed, k) alone: batches are drawn by `batch_at(k)`, and the
module's generator is reseeded every step. So a resumed run equals an unbroken one without any
generator state in the checkpoint.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from genie_gym.data.batch import Batch
from genie_gym.errors import DataError, DivergedError
from genie_gym.models.tokenizer import Metrics
from genie_gym.training.checkpoint import Checkpoint, Checkpoints
from genie_gym.training.config import StageConfig


@runtime_checkable
class Stage(Protocol):
    """A part of the stack with the data it learns from."""

    name: str
    module: nn.Module

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step."""

    def validate(self) -> Metrics:
        """Return figures on the validation episodes."""


@runtime_checkable
class Log(Protocol):
    """Where metrics go."""

    def write(self, step: int, split: str, metrics: Metrics) -> None:
        """Keep the metrics of one step of a split, "train" or "validation"."""


def learning_rate_at(step: int, config: StageConfig) -> float:
    """Return the rate of a step: linear warm-up, then a cosine down to the minimum."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    low, high = config.min_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def make_optimizers(module: nn.Module, config: StageConfig) -> dict[str, torch.optim.Optimizer]:
    """Return AdamW over all weights; or Muon over the linear layers' matrices and AdamW the rest.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; rates are
        scaled to match AdamW's as in Liu et al. 2025, "Muon is scalable for LLM training".
    """
    matrices = []
    if config.optimizer == "muon":
        matrices = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
    taken = {id(matrix) for matrix in matrices}
    rest = [weight for weight in module.parameters() if id(weight) not in taken]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW(
            rest,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
    }
    if matrices:
        optimizers["muon"] = torch.optim.Muon(
            matrices,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
    return optimizers


def train(
    stage: Stage,
    config: StageConfig,
    *,
    generator: torch.Generator,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints,
    log: Log,
    on_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train a stage to its last step, from its newest checkpoint if there is one.

    Args:
        stage: the part and its data.
        config: how to train it.
        generator: the generator the part draws from; reseeded every step.
        seed: seed of the run.
        device: where to train.
        checkpoints: where state is kept.
        log: where metrics go.
        on_step: called after every optimizer step, for a progress bar.

    Raises:
        DataError: the checkpoint is damaged, or of another optimizer.
        DivergedError: the loss or its gradient is not finite; the weights stay those before the
            step.
    """
    # One process may train stages of different precision; accelerate keeps the first by default.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=config.precision, cpu=device.type == "cpu")
    module = stage.module.to(device)
    optimizers = make_optimizers(module, config)
    first_step = 0
    if checkpoint := checkpoints.load_newest():
        if checkpoint.optimizers.keys() != optimizers.keys():
            raise DataError(
                f"the checkpoint of stage {stage.name!r} was trained by "
                f"{sorted(checkpoint.optimizers)}, but training.{stage.name}.optimizer asks for "
                f"{config.optimizer!r}. Use the old value, or take another --out"
            )
        module.load_state_dict(checkpoint.weights)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(checkpoint.optimizers[name])
        first_step = checkpoint.step
    prepared = accelerator.prepare(module)
    optimizers = {name: accelerator.prepare(one) for name, one in optimizers.items()}

    # One extra turn, so that the finished module is evaluated and saved too.
    for step in range(first_step, config.max_steps + 1):
        is_last = step == config.max_steps
        if is_last or (step % config.eval_every == 0 and step > first_step):
            log.write(step, "validation", evaluate(stage))
        if is_last or (step % config.save_every == 0 and step > first_step):
            states = {name: one.state_dict() for name, one in optimizers.items()}
            checkpoints.save(Checkpoint(step, module.state_dict(), states))
        if is_last:
            return

        metrics = _accumulate(stage, prepared, accelerator, config, generator, seed, step)
        grad_norm = accelerator.clip_grad_norm_(module.parameters(), config.max_grad_norm)
        _check_finite("gradient norm", grad_norm, stage.name, step, config.max_steps)
        metrics["grad_norm"] = grad_norm.item()
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, config)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        log.write(step, "train", metrics)
        on_step(step)


def _accumulate(
    stage: Stage,
    prepared: nn.Module,
    accelerator: Accelerator,
    config: StageConfig,
    generator: torch.Generator,
    seed: int,
    step: int,
) -> Metrics:
    """Add up the gradients of one optimizer step and return its mean metrics."""
    prepared.train()
    parts = []
    for part in range(config.gradient_accumulation_steps):
        index = step * config.gradient_accumulation_steps + part
        generator.manual_seed(seed * 1_000_003 + index)
        loss, metrics = prepared(stage.batch_at(index).to(accelerator.device))
        _check_finite("loss", loss, stage.name, step, config.max_steps)
        accelerator.backward(loss / config.gradient_accumulation_steps)
        parts.append({"loss": loss.item(), **metrics})
    return mean_metrics(parts)


def mean_metrics(parts: Sequence[Metrics]) -> Metrics:
    """Return every metric's mean over the batches that have it.

    Example:
        >>> mean_metrics([{"loss": 1.0, "recall_1": 0.5}, {"loss": 3.0}])
        {'loss': 2.0, 'recall_1': 0.5}
    """
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(some) / len(some) for name, some in values.items()}


def _check_finite(what: str, value: Tensor, name: str, step: int, max_steps: int) -> None:
    if not torch.isfinite(value):
        raise DivergedError(
            f"stage {name!r}: {what} is {value.item()} at step {step} of {max_steps}; the weights "
            "are those before this step. Lower this stage's learning rate; genie-gym train goes on "
            "with --resume"
        )


@torch.no_grad()
def evaluate(stage: Stage) -> Metrics:
    """Return a stage's validation figures, its module in evaluation mode."""
    was_training = stage.module.training
    stage.module.eval()
    metrics = stage.validate()
    stage.module.train(was_training)
    return metrics
