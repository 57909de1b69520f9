"""A model that Stable-Baselines3 saved, as a policy of the recorder."""

import json
import zipfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float32, UInt8

from genie_gym.data.manifest import file_sha256
from genie_gym.errors import ConfigError

# The zip does not name its algorithm; a setting that only this one of the three has does.
ALGORITHM_OF_SETTING = {"exploration_fraction": "DQN", "clip_range": "PPO", "gae_lambda": "A2C"}


class Sb3Player:
    """Plays what a PPO, A2C or DQN model of Stable-Baselines3 samples, on the CPU.

    The model must have learned from the recorder's frames: RGB of the same size, or a stack of
    them along the channels, oldest first and black before the episode begins, as `VecFrameStack`
    makes it. DQN explores as much as it did when it was saved.

    Loading a model runs code that its file holds (pickled data): load only files you trust.

    Actions are sampled here and not by `model.predict`, which draws from the global generators of
    NumPy and torch. A model trained with gSDE gets fresh noise of the same spread at every step.

    Args:
        path: the zip that `model.save` wrote; nothing is ever downloaded.
        actions: size of the game's action space, or its Box.
        frame_shape: height, width and 3 channels of a frame.

    Raises:
        ConfigError: there is no such file, it holds no PPO, A2C or DQN model, or the model's
            spaces are not the game's.
    """

    def __init__(self, path: str, actions: int | Box, frame_shape: tuple[int, ...]) -> None:
        # The file may change behind its name: the recording says which one played.
        self.description = f"sb3:{Path(path).name}({model_sha256(path)[:12]})"
        self._model = _load(Path(path))
        self._is_channels_first, num_frames = _stacking(
            path, self._model.observation_space, frame_shape
        )
        _check_actions(path, self._model.action_space, actions)
        self._black = np.zeros(frame_shape, np.uint8)
        self._frames = deque([self._black] * num_frames, maxlen=num_frames)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; everything it samples comes from `rng`."""
        self._rng = rng
        self._frames.extend([self._black] * len(self._frames))

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int | Float32[np.ndarray, " A"]:
        """Return a sampled action for the newest frames."""
        self._frames.append(obs)
        axis = 0 if self._is_channels_first else 2
        frames = [obs.transpose(2, 0, 1) if axis == 0 else obs for obs in self._frames]
        stack = np.concatenate(frames, axis)
        if hasattr(self._model, "exploration_rate"):  # DQN, which has no distribution
            return self._explore(stack)
        obs_tensor, _ = self._model.policy.obs_to_tensor(stack)
        distribution = self._model.policy.get_distribution(obs_tensor).distribution
        if isinstance(self._model.action_space, Discrete):
            probs = distribution.probs[0].numpy().astype(np.float64)
            return int(self._rng.choice(len(probs), p=probs / probs.sum()))
        return self._draw(distribution.mean[0].numpy(), distribution.stddev[0].numpy())

    def _explore(self, stack: UInt8[np.ndarray, "..."]) -> int:
        """Return DQN's action: with its exploration rate any, else the best."""
        if self._rng.random() < self._model.exploration_rate:
            return int(self._rng.integers(self._model.action_space.n))
        return int(self._model.policy.predict(stack, deterministic=True)[0])

    def _draw(
        self, mean: Float32[np.ndarray, " A"], std: Float32[np.ndarray, " A"]
    ) -> Float32[np.ndarray, " A"]:
        """Return a vector of a normal distribution, brought into the Box as `predict` does it."""
        policy, space = self._model.policy, self._model.action_space
        action = self._rng.normal(mean, std).astype(np.float32)
        if policy.squash_output:
            action = policy.unscale_action(np.tanh(action))
        return np.clip(action, space.low, space.high)


def model_sha256(path: str) -> str:
    """Return the SHA-256 of a saved model, in hexadecimal.

    Raises:
        ConfigError: there is no such file.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"policy sb3:{path}: there is no such file. Name the zip that model.save(...) wrote"
        )
    return file_sha256(path)


def _load(path: Path) -> Any:
    algorithm = _find_algorithm(path)
    import stable_baselines3  # brings torch, which no other policy needs

    # Loading seeds the global generators with a saved seed.
    changes: dict[str, Any] = {"seed": None}
    if algorithm == "DQN":
        # Playing needs no replay buffer, and a saved size may be more than the memory.
        changes["buffer_size"] = 1
    try:
        model = getattr(stable_baselines3, algorithm).load(
            path, device="cpu", custom_objects=changes
        )
    # A damaged or foreign pickle can raise anything.
    except Exception as error:
        raise ConfigError(
            f"policy sb3:{path}: {algorithm} cannot be loaded: {error!r}. Save it with the "
            f"installed Stable-Baselines3 {stable_baselines3.__version__}"
        ) from error
    model.policy.set_training_mode(False)
    model.policy.requires_grad_(False)
    return model


def _find_algorithm(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            settings = json.loads(file.read("data"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        settings = {}
    for setting, algorithm in ALGORITHM_OF_SETTING.items():
        # Models of sb3-contrib have the same settings and other networks.
        if setting in settings and "sb3_contrib" not in json.dumps(settings["policy_class"]):
            return algorithm
    raise ConfigError(
        f"policy sb3:{path}: this is no model of {sorted(ALGORITHM_OF_SETTING.values())}. Name "
        "the zip that model.save(...) of Stable-Baselines3 wrote"
    )


def _stacking(path: str, space: Any, frame_shape: tuple[int, ...]) -> tuple[bool, int]:
    """Return whether the model takes channels first, and how many frames are stacked on them."""
    height, width, _ = frame_shape
    if isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        for is_first, num_channels, size in (
            (True, space.shape[0], space.shape[1:]),
            (False, space.shape[2], space.shape[:2]),
        ):
            if size == (height, width) and num_channels % 3 == 0:
                return is_first, num_channels // 3
    raise ConfigError(
        f"policy sb3:{path}: the model observes {space}, but the recorder shows uint8 RGB frames "
        f"of ({height}, {width}, 3). The model must take one of them, or several stacked on the "
        "channels; grey frames and other sizes are not made for it. Train it on "
        "genie_gym.envs.real.RealEnv, or set --frame-size"
    )


def _check_actions(path: str, space: Any, actions: int | Box) -> None:
    expected = actions if isinstance(actions, Box) else Discrete(actions)
    if space != expected:
        raise ConfigError(
            f"policy sb3:{path}: the model acts in {space}, but the game in {expected}. Name a "
            "model that was trained in this game"
        )
