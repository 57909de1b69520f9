"""The algorithms of Stable-Baselines3 that train agents, and the settings that suit a world."""

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import UInt8
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from genie_gym.agents.config import AgentConfig, NetworkConfig
from genie_gym.agents.network import SmallCnn
from genie_gym.agents.observations import grey
from genie_gym.agents.rollout_buffer import DeviceRolloutBuffer
from genie_gym.errors import ConfigError, MissingExtraError, did_you_mean


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Where an algorithm lives, and how it is set."""

    package: str
    name: str
    policy: str
    """Its policy for pictures."""
    options: dict[str, Any]
    """Keyword arguments that differ from its own defaults."""
    policy_options: dict[str, Any]
    """The same for its policy."""


ON_POLICY = {"rollout_buffer_class": DeviceRolloutBuffer}
PPO_OPTIONS = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
}
ALGORITHMS = {
    "ppo": Algorithm("stable_baselines3", "PPO", "CnnPolicy", ON_POLICY | PPO_OPTIONS, {}),
    "a2c": Algorithm(
        "stable_baselines3", "A2C", "CnnPolicy", ON_POLICY | {"n_steps": 16, "ent_coef": 0.01}, {}
    ),
    "dqn": Algorithm(
        "stable_baselines3",
        "DQN",
        "CnnPolicy",
        {
            "buffer_size": 50_000,
            "learning_starts": 5_000,
            "batch_size": 256,
            "train_freq": 1,
            "gradient_steps": 4,
            "target_update_interval": 8_000,
            "exploration_fraction": 0.1,
            "exploration_final_eps": 0.02,
        },
        {},
    ),
    "recurrent_ppo": Algorithm(
        "sb3_contrib",
        "RecurrentPPO",
        "CnnLstmPolicy",
        PPO_OPTIONS,
        {"lstm_hidden_size": 128, "shared_lstm": True, "enable_critic_lstm": False},
    ),
}


def make_model(
    config: AgentConfig, envs: VecEnv, frames: UInt8[np.ndarray, "N H W 3"]
) -> BaseAlgorithm:
    """Return an untrained model of the config's algorithm; seeds the global generators.

    SB3 draws from the generators of Python, NumPy and torch that all code shares.

    Args:
        config: what to train.
        envs: stacks of grey frames.
        frames: what a game looks like.

    Raises:
        ConfigError: the algorithm has no such option, or refuses its value, or the frames are
            too small.
        MissingExtraError: the algorithm's package is not installed.
    """
    check_options(config)
    algorithm, cls = ALGORITHMS[config.algo], algorithm_class(config.algo)
    first, last = config.learning_rate, config.min_learning_rate
    options = {**algorithm.options, **config.algo_options}
    try:
        model: BaseAlgorithm = cls(
            algorithm.policy,
            envs,
            learning_rate=lambda remaining: last + (first - last) * remaining,
            policy_kwargs=_policy_options(config.algo, config.network),
            seed=config.seed,
            device=config.env.device,
            **options,
        )
    except ConfigError:
        raise
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"{algorithm.name} refuses algo_options {options}: {error}") from error
    for module in model.policy.modules():
        if isinstance(module, SmallCnn):
            module.measure(torch.from_numpy(grey(frames)).to(model.device))
    return model


def check_options(config: AgentConfig) -> None:
    """Refuse options that the config's algorithm does not have.

    Raises:
        ConfigError: there is one.
        MissingExtraError: the algorithm's package is not installed.
    """
    parameters = inspect.signature(algorithm_class(config.algo)).parameters
    known = sorted(parameters.keys() - _OURS)
    for name in config.algo_options:
        if name not in known:
            raise ConfigError(
                f"algo_options: {ALGORITHMS[config.algo].name} has no option {name!r}."
                f"{did_you_mean(name, known)} Known: {known}"
            )


def make_policy(
    algo: str, network: NetworkConfig, frame_size: tuple[int, int], num_actions: int
) -> BasePolicy:
    """Return an untrained policy of an algorithm, as its model would build it.

    Raises:
        MissingExtraError: the algorithm's package is not installed.
    """
    shape = (network.num_frames, *frame_size)
    cls: Any = algorithm_class(algo)
    policy: BasePolicy = cls.policy_aliases[ALGORITHMS[algo].policy](
        gym.spaces.Box(0, 255, shape, np.uint8),
        gym.spaces.Discrete(num_actions),
        lambda _: 0.0,  # it does not learn
        **_policy_options(algo, network),
    )
    return policy


def algorithm_class(algo: str) -> type[BaseAlgorithm]:
    """Return the class of an algorithm.

    Raises:
        MissingExtraError: its package is not installed.
    """
    algorithm = ALGORITHMS[algo]
    try:
        cls: type[BaseAlgorithm] = getattr(
            importlib.import_module(algorithm.package), algorithm.name
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"algo {algo!r} needs the package {algorithm.package.replace('_', '-')}, which is not "
            "installed. Install it: pip install 'genie-gym[contrib]'"
        ) from error
    return cls


def _policy_options(algo: str, network: NetworkConfig) -> dict[str, Any]:
    extractor = {"channels": network.channels, "feature_dim": network.feature_dim}
    return {
        "features_extractor_class": SmallCnn,
        "features_extractor_kwargs": extractor,
        "net_arch": [],
        "normalize_images": False,  # SmallCnn does it
        **ALGORITHMS[algo].policy_options,
    }


# Options that a run sets by other means.
_OURS = frozenset(
    {"policy", "env", "learning_rate", "policy_kwargs", "seed", "device", "tensorboard_log"}
    | {"verbose", "_init_setup_model"}
)
