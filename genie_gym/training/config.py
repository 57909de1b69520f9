"""What a run is made of: the stack, and how each part of it is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal

from genie_gym.data.augment import AugmentConfig
from genie_gym.errors import ConfigError
from genie_gym.games import swapped_words
from genie_gym.models.stack import StackConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """How one part is trained."""

    max_steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 32
    """Clips a forward pass."""
    clip_length: int = 8
    """Frames a clip."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW (the paper), or Muon for the matrices of linear layers with AdamW for the rest."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule."""
    min_learning_rate: float = 1e-5
    """End of the cosine schedule."""
    warmup_steps: int = 100
    """Steps of linear rise to the peak."""
    weight_decay: float = 1e-4
    """Weight decay."""
    beta1: float = 0.9
    """AdamW first-moment decay."""
    beta2: float = 0.95
    """AdamW second-moment decay (0.9 in the paper)."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    gradient_accumulation_steps: int = 1
    """Forward passes an optimizer step."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the forward pass."""
    eval_every: int = 500
    """Steps between evaluations on the validation episodes; the last step is always one."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always one."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training clips are changed at random; only where a part sees frames."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        counts = ("max_steps", "batch_size", "gradient_accumulation_steps")
        for name in (*counts, "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.clip_length < 2:
            raise ConfigError(f"clip_length must be at least 2 frames, got {self.clip_length}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name in ("min_learning_rate", "warmup_steps", "weight_decay", "max_grad_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One stage config a part."""

    tokenizer: StageConfig = field(default_factory=StageConfig)
    """Frames -> frames."""
    lam: StageConfig = field(default_factory=StageConfig)
    """Frames -> next frames, through a latent action."""
    dynamics: StageConfig = field(default_factory=StageConfig)
    """Tokens and actions -> next tokens."""
    reward: StageConfig = field(default_factory=StageConfig)
    """Tokens and actions -> reward and end."""

    def __post_init__(self) -> None:
        """Refuse to change the pictures of the stages that see none."""
        for name in ("dynamics", "reward"):
            augment: AugmentConfig = getattr(self, name).augment
            for key in augment.changed_keys:
                reason = "learns from cached tokens, whose frames are fixed"
                if key == "max_stride":
                    reason = "learns what one action does, and more lie between every k-th frame"
                raise ConfigError(
                    f"training.{name}.augment.{key} must stay off, got {getattr(augment, key)}: "
                    f"stage {name!r} {reason}. Augment training.tokenizer or training.lam"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything a run needs to know but its data."""

    seed: int = 0
    """Owns all randomness of the run."""
    validation_share: float = 0.05
    """Share of episodes kept out of training, at least one."""
    num_starts: int = 256
    """Start contexts to bundle."""
    start_length: int = 8
    """Frames of a start context."""
    memory_gib: float = 4.0
    """Frames of a recording that take more GiB than this stay in its files and are read from there
    clip by clip; results are the same. 4 GiB hold 350,000 frames of 64x64."""
    stack: StackConfig = field(default_factory=StackConfig)
    """Shape of the networks."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How they are trained."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.validation_share < 1:
            raise ConfigError(
                f"validation_share must lie between 0 and 1, got {self.validation_share}"
            )
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if not self.memory_gib >= 0:
            raise ConfigError(f"memory_gib must be 0 or more, got {self.memory_gib}")
        for name in ("num_starts", "start_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.stack.lam.num_labels and self.training.lam.augment.max_stride > 1:
            raise ConfigError(
                "training.lam.augment.max_stride must stay 1 where stack.lam.num_labels is above "
                f"0 (a label is the action of one step), got {self.training.lam.augment.max_stride}"
            )
        for stage in (self.training.tokenizer, self.training.lam):
            for flip in stage.augment.flips:
                swapped_words(self.stack.game, flip)
