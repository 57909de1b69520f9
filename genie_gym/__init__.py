"""genie-gym: recorded Atari play becomes a world to play, plan and learn in.

import gymnasium as gym, genie_gym
env = gym.make("GenieWorld-Pong-v0")
"""

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

from genie_gym.games import GAMES, world_id

if TYPE_CHECKING:
    from genie_gym.agents.policy import load_policy
    from genie_gym.envs.start_from import create_environment
    from genie_gym.models.bundle import load_world

__all__ = ["create_environment", "load_policy", "load_world"]
__version__ = "0.1.0"

for _game in GAMES:
    if world_id(_game) not in registry:
        register(
            id=world_id(_game),
            entry_point="genie_gym.envs.world_env:GenieWorldEnv",
            vector_entry_point="genie_gym.envs.world_vector_env:GenieWorldVectorEnv",
            max_episode_steps=None,
            kwargs={"game": _game},
        )


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name == "create_environment":
        from genie_gym.envs.start_from import create_environment

        return create_environment
    if name == "load_policy":
        from genie_gym.agents.policy import load_policy

        return load_policy
    if name == "load_world":
        from genie_gym.models.bundle import load_world

        return load_world
    raise AttributeError(f"module 'genie_gym' has no attribute {name!r}")
