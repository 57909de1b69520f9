"""Terms that may be added to the latent action model's loss: what codes should be like."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

MAX_SHIFT = 2
"""Pixels by which a shifted view of a clip may lie off, either way."""


def uneven_use(
    vectors: Float[Tensor, "*batch code_dim"], codebook: Float[Tensor, "codes code_dim"]
) -> Float[Tensor, ""]:
    """Return how uneven the codes' use is: 0 if all share the batch alike, 1 if one has it all.

    One less the entropy of the mean soft choice, in units of its largest value. A vector chooses
    softly by its squared distances from the codes.
    """
    flat = vectors.flatten(0, -2).float()
    shares = torch.cdist(flat, codebook.float()).square().neg().softmax(-1).mean(0)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return 1 - entropy / torch.tensor(float(len(codebook))).log()


def unsteadiness(vectors: Float[Tensor, "B T code_dim"]) -> Float[Tensor, ""]:
    """Return the mean squared change of the vectors from one transition to the next.

    0 for clips of one transition.
    """
    if vectors.shape[1] < 2:
        return vectors.new_zeros(())
    return (vectors[:, 1:] - vectors[:, :-1]).square().mean()


def shifted_view(
    frames: Float[Tensor, "B T H W C"], generator: torch.Generator
) -> Float[Tensor, "B T H W C"]:
    """Return the clips moved by up to MAX_SHIFT pixels, all frames of the batch alike.

    What moves out is lost; the border's pixels are repeated where something is missing.
    """
    height, width = frames.shape[2:4]
    down, right = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,), generator=generator).tolist()
    rows = (torch.arange(height, device=frames.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) - right).clamp(0, width - 1)
    return frames[:, :, rows][:, :, :, columns]


def labelled_cross_entropy(
    logits: Float[Tensor, "*batch actions"], actions: Int[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the actions that are told; -1 stands for one that is not.

    0 where none is told.
    """
    if not (actions >= 0).any():
        return logits.sum() * 0
    return F.cross_entropy(logits.flatten(0, -2), actions.flatten(), ignore_index=-1)
