"""The trainable parts side by side, built from one config for one game."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genie_gym.errors import ConfigError
from genie_gym.models.action_map import ActionMap, ActionMapConfig
from genie_gym.models.dynamics import Dynamics, DynamicsConfig
from genie_gym.models.latent_action import LatentActionConfig, LatentActionModel
from genie_gym.models.reward import RewardConfig, RewardModel
from genie_gym.models.tokenizer import Tokenizer, TokenizerConfig
from genie_gym.nn.patches import grid_size

STAGES = ("tokenizer", "lam", "dynamics", "reward", "action_map")
"""Names of the parts, in the order in which they are trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StackConfig:
    """Everything that fixes the shape of a world's networks."""

    game: str = "Pong"
    """Name of the ALE game."""
    num_actions: int = 6
    """Size of the game's minimal action set."""
    height: int = 64
    """Rows of a frame, in pixels."""
    width: int = 64
    """Columns of a frame, in pixels."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Frames <-> tokens."""
    lam: LatentActionConfig = field(default_factory=LatentActionConfig)
    """Transitions -> latent actions."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Tokens and actions -> next tokens."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Tokens and actions -> reward and end."""
    action_map: ActionMapConfig = field(default_factory=ActionMapConfig)
    """Real actions -> latent actions."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_actions", "height", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"stack.{name} must be at least 1, got {getattr(self, name)}")
        tokenizer = self.tokenizer
        window = max(tokenizer.encoder.temporal_window, tokenizer.decoder.temporal_window)
        if self.lam.input == "tokens" and window > 1:
            raise ConfigError(
                "stack.lam.input may be tokens only where stack.tokenizer looks at one frame at a "
                f"time (temporal_window 0 or 1; a code belongs to two frames), got {window}"
            )


class GenieStack(nn.Module):
    """Tokenizer, latent action model, dynamics, reward model and action map of one world."""

    def __init__(self, config: StackConfig, *, generator: torch.Generator) -> None:
        """Build untrained parts; `generator` owns all randomness of their training."""
        super().__init__()
        self.config = config
        frame_size = {"height": config.height, "width": config.width}
        self.tokenizer = Tokenizer(config.tokenizer, **frame_size, generator=generator)
        self.lam = LatentActionModel(
            config.lam,
            **frame_size,
            num_actions=config.num_actions,
            generator=generator,
            show_tokens=self.show_tokens,
        )

        rows, columns = grid_size(config.height, config.width, config.tokenizer.patch_size)
        self.dynamics = Dynamics(
            config.dynamics,
            codebook=self.tokenizer.quantizer.codebook,
            rows=rows,
            columns=columns,
            num_actions=config.num_actions,
            num_latent_actions=config.lam.quantizer.num_codes,
            generator=generator,
        )
        self.reward = RewardModel(
            config.reward,
            codebook=self.tokenizer.quantizer.codebook,
            rows=rows,
            columns=columns,
            num_actions=config.num_actions,
            generator=generator,
        )
        self.action_map = ActionMap(
            config.action_map,
            num_actions=config.num_actions,
            num_codes=config.lam.quantizer.num_codes,
        )

    @torch.no_grad()
    def show_tokens(self, frames: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T H W C"]:
        """Return frames as their tokens show them, in full precision wherever it is asked for."""
        with torch.autocast(frames.device.type, enabled=False):
            return self.tokenizer.decode(self.tokenizer.encode(frames))

    def share_codebook(self) -> None:
        """Hand the tokenizer's codebook to the parts that embed tokens; needed after loading."""
        codebook = self.tokenizer.quantizer.codebook
        self.dynamics.set_codebook(codebook)
        self.reward.set_codebook(codebook)
