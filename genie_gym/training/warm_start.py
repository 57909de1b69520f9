"""Begin training from another world: its networks, and what it learned of the nearest codes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genie_gym.errors import ConfigError
from genie_gym.models.dynamics import Dynamics
from genie_gym.models.reward import RewardModel
from genie_gym.models.stack import GenieStack
from genie_gym.models.world import World

PER_CODE = frozenset({"code_offset", "code_bias"})
"""Weights with a row for every code."""
OF_THE_RECORDING = frozenset({"classes", "reward_correction", "end_correction"})
"""What a reward model is told of its own recording, and does not take from another's."""


@torch.no_grad()
def warm_start(stack: GenieStack, world: World, stage: str) -> None:
    """Give one part of a stack the weights of a world's.

    Dynamics and reward model may belong to another codebook, of another size: a code's vector goes
    on to mean the same embedding, and what was learned of a code alone goes to every code that it
    is now the nearest to. Temporal windows may differ, since no weight depends on them. A reward
    model keeps its own correction for how often rewards are shown. The two may lie on different
    devices.

    Raises:
        ConfigError: the world has no such part, or one of another shape or of other rewards.
    """
    if stage not in world.parts:
        raise ConfigError(
            f"stage {stage!r} cannot begin from that world, which has {sorted(world.parts)}. Train "
            "it from nothing: leave out --init-from"
        )
    part: nn.Module = getattr(stack, stage)
    old: nn.Module = getattr(world.stack, stage)
    weights = dict(old.state_dict())
    if isinstance(old, Dynamics | RewardModel):
        assert isinstance(part, Dynamics | RewardModel)
        codebooks = (one.tokenizer.quantizer.codebook.cpu() for one in (stack, world.stack))
        weights |= _for_codes(part, old, *codebooks)
    if isinstance(old, RewardModel):
        assert isinstance(part, RewardModel)
        _check_same_rewards(part, old)
        weights |= {name: x for name, x in part.state_dict().items() if name in OF_THE_RECORDING}
    try:
        part.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"stage {stage!r} cannot begin from that world: {str(error).splitlines()[-1].strip()} "
            f"Take its stack.{stage}, or train from nothing: leave out --init-from"
        ) from error


def _check_same_rewards(part: RewardModel, old: RewardModel) -> None:
    new_classes, old_classes = (one.config.reward_classes for one in (part, old))
    if new_classes != old_classes:
        raise ConfigError(
            f"stack.reward.reward_classes is {list(new_classes)}, but that world tells "
            f"{list(old_classes)} apart. Take its classes, or leave out --init-from"
        )


def _for_codes(
    part: Dynamics | RewardModel,
    old: Dynamics | RewardModel,
    new_codes: Float[Tensor, "codes code_dim"],
    old_codes: Float[Tensor, "old_codes code_dim"],
) -> dict[str, Tensor]:
    """Return the weights that change with the codebook; none where it is the same."""
    if torch.equal(new_codes, old_codes):
        return {}
    nearest = torch.cdist(new_codes, old_codes).argmin(-1)
    weights = {name: x[nearest] for name, x in old.state_dict().items() if name in PER_CODE}
    # Both parts see whitened codebooks, so one vector is another input to each of them.
    weight, bias = _fit(old_codes, old.embed_code(old.codebook).cpu())
    weight, bias = _fit(part.codebook, new_codes.double() @ weight + bias)
    weights["embed_code.weight"] = weight.T.to(new_codes).contiguous()
    weights["embed_code.bias"] = bias.to(new_codes)
    if isinstance(old, Dynamics):  # what is no copy is now shared among that many more codes
        ratio = len(new_codes) / len(old_codes)
        weights["to_copy.bias"] = old.to_copy.bias + math.log(ratio)
    return weights


def _fit(
    inputs: Float[Tensor, "N inputs"], outputs: Float[Tensor, "N outputs"]
) -> tuple[Float[Tensor, "inputs outputs"], Float[Tensor, " outputs"]]:
    """Return weight and bias of the affine map between them: the smallest of the best ones."""
    ones = torch.ones(len(inputs), 1, dtype=torch.float64)
    padded = torch.cat([inputs.double().cpu(), ones], dim=1)
    solution = torch.linalg.lstsq(padded, outputs.double().cpu(), driver="gelsd").solution
    return solution[:-1], solution[-1]
