"""How much an evaluation measures."""

from dataclasses import dataclass, fields

from genie_gym.errors import ConfigError

STEPS = (1, 2, 5, 10, 20, 50, 100)
"""Imagined steps at which frames are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How much is measured.

    The defaults imagine about 30,000 frames: for the bundled Pong world some 10 minutes of two CPU
    cores. Errors shrink with the root of the number of windows, so those few of `far_windows`
    and `long_windows` give rough figures.
    """

    num_windows: int = 400
    """Free rollouts; where a ball is known, those among them whose context shows it."""
    context_length: int = 8
    """Real frames before the first imagined one."""
    horizon: int = 20
    """Imagined steps of these rollouts."""
    far_windows: int = 32
    """Free rollouts that go further, for the steps beyond `horizon`; counted alike."""
    far_horizon: int = 100
    """Imagined steps of these."""
    long_windows: int = 8
    """Rollouts that are asked whether they still show the game, and whole games of which the
    length is compared; 0 leaves both out."""
    long_horizon: int = 1000
    """Imagined steps of these."""
    num_events: int = 50
    """Rewards of each class, and ends, that are looked for at every horizon."""
    forced_windows: int = 60
    """Stretches of `horizon` steps, each step predicted from real frames alone."""
    num_frames: int = 4000
    """Frames that are rebuilt."""
    num_transitions: int = 20_000
    """Transitions, at most, whose latent actions are compared with the true ones."""
    seed: int = 0
    """Draws the windows and the samples."""
    temperature: float | None = None
    """Sampling temperature; the bundle's by default."""
    num_maskgit_steps: int | None = None
    """Refinement steps; the bundle's by default."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        may_be_left_out = {"far_windows", "long_windows", "forced_windows", "seed"}
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name not in may_be_left_out)
            if field.type is int and value < least:
                raise ConfigError(f"{field.name} must be at least {least}, got {value}")
