"""What is served, to whom, and how much of it."""

import math
import re
from dataclasses import dataclass

from genie_gym.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""
TOKEN_PATTERN = r"[A-Za-z0-9._~-]{8,}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Options of the server."""

    worlds: tuple[str, ...] = ("pong",)
    """Names, folders or hf:// repositories of the worlds; clients know their last parts alone."""
    policy: str | None = None
    """Policy that may play the worlds of its game; by default each world's own, if it has one."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """What every client must know; needed where others than this machine can connect."""
    device: str = "cpu"
    """Where the worlds run."""
    dtype: str = "float32"
    """Precision of dynamics and reward model."""
    max_sessions: int = 16
    """Games at once."""
    max_steps: int = 5000
    """Steps of a game, after which it is truncated."""
    max_rewind: int = 300
    """Steps that can be taken back; 70 kB each in the bundled world."""
    max_actions: int = 1000
    """Actions of one request."""
    max_upload_bytes: int = 10 * 2**20
    """Size of a request."""
    max_pixels: int = 25_000_000
    """Size of an uploaded picture; larger ones are refused before they are decoded."""
    idle_seconds: float = 300.0
    """Time after which a session that nobody plays is freed."""
    requests_per_second: float = 100.0
    """Requests of one address, and messages of one WebSocket; bursts of ten seconds' worth pass."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_sessions", "max_steps", "max_actions", "max_upload_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"serve.{name} must be at least 1, got {getattr(self, name)}")
        if self.max_rewind < 0:
            raise ConfigError(f"serve.max_rewind must be 0 or more, got {self.max_rewind}")
        for name in ("idle_seconds", "requests_per_second"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"serve.{name} must be a finite number above 0, got {getattr(self, name)}"
                )
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"serve.port must lie in [0, 65535], got {self.port}")
        if not self.worlds:
            raise ConfigError("serve.worlds must name at least one world")
        if self.token is None and not self.is_local:
            raise ConfigError(
                f"serve.host {self.host!r} can be reached by others, so serve.token must be set"
            )
        if self.token is not None and not re.fullmatch(TOKEN_PATTERN, self.token):
            raise ConfigError(
                "serve.token must be 8 or more of the characters A-Z a-z 0-9 . _ ~ -, which need "
                f"no quoting in an address; got {len(self.token)} characters"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK
