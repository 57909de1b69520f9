"""An algorithm of Stable-Baselines3 as a learner, and all that decides how it goes on."""

import json
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor, nn

from genie_gym.agents.algorithms import make_model
from genie_gym.agents.checkpoint import slots_content, slots_state
from genie_gym.agents.config import AgentConfig
from genie_gym.agents.learner import world_with_rewards
from genie_gym.agents.observations import GreyFrameStack
from genie_gym.config import to_dict
from genie_gym.envs.sb3_vec_env import GenieWorldSB3VecEnv
from genie_gym.models.world import World

COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
"""Numbers of a model; some algorithms lack some."""
BUFFER_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class SB3Learner:
    """A model, and the layers of environment that it trains in.

    Args:
        config: what to train.

    Raises:
        ConfigError: an option is out of its range.
        MissingExtraError: the algorithm's package is not installed.
        WorldError: there is no such world, or it is another game's, or lacks a reward model.
        DeviceError: the device is not there.
    """

    def __init__(self, config: AgentConfig) -> None:
        world = world_with_rewards(config.env)
        options = {name: value for name, value in to_dict(config.env).items() if name != "game"}
        self.slots = GenieWorldSB3VecEnv(config.num_envs, config.env.game, **options)
        self.monitor = VecMonitor(self.slots)
        self.stacked = GreyFrameStack(self.monitor, config.network.num_frames)
        starts = world.decode(world.start(torch.arange(len(world.starts)))).cpu().numpy()
        self.model = make_model(config, self.stacked, starts)

    @property
    def world(self) -> World:
        """The world it learns in."""
        return self.slots.envs.world

    @property
    def num_steps(self) -> int:
        """Imagined steps so far."""
        return int(self.model.num_timesteps)

    def learn(
        self,
        num_steps: int,
        logger: Logger,
        *,
        on_rollout: Callable[[], None],
        on_steps: Callable[[int], object],
    ) -> None:
        """Learn until `num_steps` imagined steps are done, or a rollout's rest more."""
        self.model.set_logger(logger)
        callback = _Callback(on_rollout, lambda: on_steps(self.slots.num_envs))
        left = num_steps - self.num_steps
        self.model.learn(left, callback, reset_num_timesteps=False)

    def begin_with(self, network: nn.Module) -> None:
        """Take the weights of a policy."""
        self.model.policy.load_state_dict(network.state_dict())

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that a policy is saved with."""
        weights: Mapping[str, Tensor] = self.model.policy.state_dict()
        return weights

    def get_state(self) -> dict[str, Any]:
        """Return all that decides how learning goes on."""
        return {**_model_state(self), **_env_state(self)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        _restore_env(self, state)
        _restore_model(self, state)


class _Callback(BaseCallback):
    def __init__(self, on_rollout: Callable[[], None], on_step: Callable[[], object]) -> None:
        super().__init__()
        self._rollout_starts = on_rollout
        self._step_is_done = on_step

    def _on_rollout_start(self) -> None:
        self._rollout_starts()

    def _on_step(self) -> bool:
        self._step_is_done()
        return True


def _model_state(learner: "SB3Learner") -> dict[str, Any]:
    model: Any = learner.model
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    keys = numpy["state"].pop("key")
    content = {
        "weights": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "counters": {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
        "episode_starts": torch.from_numpy(model._last_episode_starts),
        "episodes": json.dumps(
            [{key: float(value) for key, value in one.items()} for one in model.ep_info_buffer]
        ),
        "torch_random": torch.get_rng_state(),
        "numpy_random": json.dumps(numpy),
        "numpy_keys": torch.from_numpy(keys.astype(np.int64)),
        "python_random": json.dumps(python),
        "action_random": json.dumps(model.action_space.np_random.bit_generator.state),
    }
    if model.device.type == "cuda":
        content["cuda_random"] = torch.cuda.get_rng_state(model.device)
    if hasattr(model, "replay_buffer"):
        buffer = model.replay_buffer
        size = buffer.buffer_size if buffer.full else buffer.pos
        content["buffer"] = {
            name: torch.from_numpy(getattr(buffer, name)[:size])
            for name in BUFFER_ARRAYS
            if hasattr(buffer, name)
        }
        content["buffer_at"] = [buffer.pos, bool(buffer.full)]
    if hasattr(model, "_last_lstm_states"):
        content["lstm"] = [tuple(pair) for pair in model._last_lstm_states]
    return content


def _restore_model(learner: "SB3Learner", content: dict[str, Any]) -> None:
    model: Any = learner.model
    model.policy.load_state_dict(content["weights"])
    model.policy.optimizer.load_state_dict(content["optimizer"])
    for name, value in content["counters"].items():
        setattr(model, name, value)
    model._last_obs = learner.stacked.stack
    model._last_episode_starts = content["episode_starts"].numpy()
    # learn() makes these only where there are none.
    window = model._stats_window_size
    model.ep_info_buffer = deque(json.loads(content["episodes"]), maxlen=window)
    model.ep_success_buffer = deque(maxlen=window)
    torch.set_rng_state(content["torch_random"])
    numpy = json.loads(content["numpy_random"])
    numpy["state"]["key"] = content["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state(numpy)
    version, internal, gauss = json.loads(content["python_random"])
    random.setstate((version, tuple(internal), gauss))
    model.action_space.np_random.bit_generator.state = json.loads(content["action_random"])
    if "cuda_random" in content and model.device.type == "cuda":
        torch.cuda.set_rng_state(content["cuda_random"], model.device)
    if "buffer" in content:
        for name, values in content["buffer"].items():
            getattr(model.replay_buffer, name)[: len(values)] = values.numpy()
        model.replay_buffer.pos, model.replay_buffer.full = content["buffer_at"]
    if "lstm" in content:
        states = [tuple(x.to(model.device) for x in pair) for pair in content["lstm"]]
        model._last_lstm_states = type(model._last_lstm_states)(*states)


def _env_state(learner: "SB3Learner") -> dict[str, Any]:
    monitor = learner.monitor
    return {
        **slots_content(learner.slots.envs.get_state()),
        "stack": torch.from_numpy(learner.stacked.stack),
        "episode_returns": torch.from_numpy(monitor.episode_returns),
        "episode_lengths": torch.from_numpy(monitor.episode_lengths),
        "episode_count": monitor.episode_count,
    }


def _restore_env(learner: "SB3Learner", content: dict[str, Any]) -> None:
    envs, monitor = learner.slots.envs, learner.monitor
    learner.stacked.reset()  # gives the shape of a state
    envs.set_state(slots_state(content, envs.get_state().world))
    learner.stacked.stack = content["stack"].numpy()
    monitor.episode_returns = content["episode_returns"].numpy()
    monitor.episode_lengths = content["episode_lengths"].numpy()
    monitor.episode_count = content["episode_count"]
