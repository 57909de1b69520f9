"""What a run of an agent is made of."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.errors import ConfigError
from genie_gym.games import MAX_STEPS

Algo = Literal["ppo", "a2c", "dqn", "recurrent_ppo", "dreamer"]
"""PPO, A2C or DQN of Stable-Baselines3, RecurrentPPO of sb3-contrib, or our own `Dreamer`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Shape of the policy network: two strided convolutions, or codes of tokens, to features."""

    num_frames: int = 4
    """Frames the policy sees at once, the newest included: grey ones, or their tokens."""
    channels: tuple[int, ...] = (16, 32)
    """Channels of the two convolutions."""
    token_dim: int = 8
    """Width that a code is brought to, where the policy reads tokens ("dreamer")."""
    feature_dim: int = 256
    """Features that policy and value are read from."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_frames", "token_dim", "feature_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"network.{name} must be at least 1, got {getattr(self, name)}")
        if len(self.channels) != 2 or min(self.channels) < 1:
            raise ConfigError(
                f"network.channels must be two numbers of 1 or more, got {list(self.channels)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RealCheckConfig:
    """How often, and how long, the policy is judged in the real game while it trains."""

    every: int = 100_000
    """Imagined steps between two checks; the end of training is always one."""
    episodes: int = 8
    """Full real games a check; 0 for no checks."""
    max_steps: int = MAX_STEPS
    """Steps after which a game is cut: half an hour of play."""
    compared_steps: int = 500
    """First steps of a real and of an imagined game, opened alike, whose returns are compared."""
    alarm_gap: float = 5.0
    """Points that these imagined steps may promise above the real ones before the policy is said to
    exploit the world's mistakes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("every", "max_steps", "compared_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"real_check.{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.episodes < 0:
            raise ConfigError(f"real_check.episodes must be 0 or more, got {self.episodes}")
        if not self.alarm_gap > 0:
            raise ConfigError(f"real_check.alarm_gap must be above 0, got {self.alarm_gap}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentConfig:
    """Everything a run of an agent needs to know."""

    env: WorldEnvConfig
    """The learned world, and how it is played."""
    algo: Algo = "ppo"
    """Algorithm."""
    steps: int = 1_000_000
    """Imagined steps in total, at least; a rollout is always played to its end."""
    num_envs: int = 64
    """Imagined games side by side."""
    seed: int = 0
    """Owns all randomness of the run."""
    learning_rate: float = 5e-4
    """Learning rate at the first step."""
    min_learning_rate: float = 0.0
    """Learning rate at the last step; in between it falls in a straight line."""
    algo_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the algorithm that differ from `genie_gym.agents.algorithms`; those of
    "dreamer" are the fields of `DreamerConfig`."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Shape of the policy network."""
    init_from: str | None = None
    """Folder or name of a policy of the same game, algorithm and network whose weights the run
    begins with; the optimizer begins anew."""
    real_check: RealCheckConfig = field(default_factory=RealCheckConfig)
    """Checks in the real game."""
    save_every: int = 100_000
    """Imagined steps between two saves that a killed run can go on from."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "num_envs", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:  # what NumPy's global generator takes
            raise ConfigError(f"seed must lie in [0, 2**32), got {self.seed}")
        if self.env.action_mode != "ale":
            raise ConfigError(
                f"env.action_mode must be 'ale' for an agent, got {self.env.action_mode!r}: the "
                "real game knows no latent codes. Leave it out"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ConfigError(
                "min_learning_rate must lie between 0 and learning_rate, got "
                f"min_learning_rate={self.min_learning_rate} and learning_rate={self.learning_rate}"
            )
