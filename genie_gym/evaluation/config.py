"""How much of a world is measured, shared by all instruments."""

from dataclasses import dataclass

from genie_gym.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How much is measured."""

    num_windows: int = 400
    """Free rollouts."""
    context_length: int = 8
    """Real frames before the first imagined one."""
    horizon: int = 10
    """Imagined steps a rollout."""
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
        for name in ("num_windows", "context_length", "horizon", "num_frames", "num_transitions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
