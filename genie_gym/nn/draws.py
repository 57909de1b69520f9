"""Uniform random numbers for a batch: from one generator, or from a stream of its own for each row.

A stream counts: its n-th number is a hash of its seed and n, so that many rows draw at once, on any
device the same, and what one row draws moves no other.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

STRIDE = -7046029254386353131
"""2^64 over the golden ratio, odd: the step from one count to the next."""
MIXERS = ((30, -4658895280553007687), (27, -7723592293110705685))
"""Shifts and multipliers of the hash."""


@dataclass(slots=True)
class Streams:
    """One stream of random numbers a row; drawing moves it on."""

    seeds: Int[Tensor, " B"]
    """Where each stream begins; numbers far apart, as drawn ones are."""
    num_drawn: Int[Tensor, " B"]
    """Numbers drawn so far, per row."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.seeds)

    def clone(self) -> "Streams":
        """Return a copy that draws the same numbers."""
        return Streams(self.seeds.clone(), self.num_drawn.clone())

    def uniform(self, shape: tuple[int, ...]) -> Float[Tensor, "B ..."]:
        """Draw numbers in [0, 1) for every row.

        Source:
            Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": SplitMix64
            with its output function; the upper 24 bits make a float.
        """
        count = torch.Size(shape).numel()
        index = self.num_drawn[:, None] + torch.arange(1, count + 1, device=self.seeds.device)
        self.num_drawn = self.num_drawn + count
        bits = self.seeds[:, None] + index * STRIDE
        for shift, multiplier in MIXERS:
            bits = (bits ^ _shift_right(bits, shift)) * multiplier
        bits = bits ^ _shift_right(bits, 31)
        return (_shift_right(bits, 40) * 2.0**-24).view(-1, *shape)


def _shift_right(bits: Int[Tensor, "*batch"], count: int) -> Int[Tensor, "*batch"]:
    """Shift zeros in from the left; on signed numbers torch shifts the sign in."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


Draws = torch.Generator | Streams
"""One generator for the whole batch, or one stream a row."""


def uniform(
    shape: tuple[int, ...], batch_size: int, generator: Draws, device: torch.device
) -> Float[Tensor, "B ..."]:
    """Draw numbers in [0, 1) for every row, each row from its own stream where it has one."""
    if isinstance(generator, Streams):
        return generator.uniform(shape).to(device)
    return torch.rand(batch_size, *shape, generator=generator, device=generator.device).to(device)
