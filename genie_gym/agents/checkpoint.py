"""All that decides how a run goes on, in one file, so that a killed run can."""

import dataclasses
import json
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from genie_gym.agents.observations import GreyFrameStack
from genie_gym.envs.sb3_vec_env import GenieWorldSB3VecEnv
from genie_gym.envs.slots import SlotsState
from genie_gym.errors import DataError
from genie_gym.files import replacing
from genie_gym.nn.draws import Streams

CHECKPOINT_VERSION = 1
NUM_KEPT = 2
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
"""Numbers of a model; some algorithms lack some."""
BUFFER_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """A model and the layers of environment that it trains in."""

    model: BaseAlgorithm
    stacked: GreyFrameStack
    monitor: VecMonitor
    slots: GenieWorldSB3VecEnv


class Checkpoints:
    """A folder of checkpoints; the two newest are kept, and no kill leaves half of one."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it need not exist."""
        self.folder = folder

    def save(self, training: Training, marks: dict[str, Any]) -> None:
        """Write where a run stands, between two rollouts.

        Args:
            training: the run.
            marks: plain values of its caller.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"version": CHECKPOINT_VERSION, "marks": json.dumps(marks)}
        content = {**own, **_model_state(training), **_env_state(training)}
        with replacing(self.folder / f"step-{training.model.num_timesteps:010d}.pt") as part:
            torch.save(content, part)
        for old in self._files()[:-NUM_KEPT]:
            old.unlink()

    def restore_newest(self, training: Training) -> dict[str, Any] | None:
        """Put a fresh run where the newest checkpoint stands; return its marks.

        Returns:
            The marks that were saved; None if there is no checkpoint.

        Raises:
            DataError: it is damaged, of another version, or of a run of another shape.
        """
        files = self._files()
        if not files:
            return None
        try:
            content = torch.load(files[-1], weights_only=True, map_location="cpu")
            version = content.get("version", 1)  # the first saves did not say it
            if version != CHECKPOINT_VERSION:
                raise DataError(
                    f"checkpoint {files[-1]} has version {version}; this genie_gym reads "
                    f"{CHECKPOINT_VERSION}. Go on with the genie_gym that began the run, or take "
                    "another --out"
                )
            _restore_env(training, content)
            _restore_model(training, content)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"checkpoint {files[-1]} is damaged, or of another run "
                f"({type(error).__name__}). Delete it to fall back to the one before"
            ) from error
        marks: dict[str, Any] = json.loads(content["marks"])
        return marks

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))


def _model_state(training: Training) -> dict[str, Any]:
    model: Any = training.model
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


def _restore_model(training: Training, content: dict[str, Any]) -> None:
    model: Any = training.model
    model.policy.load_state_dict(content["weights"])
    model.policy.optimizer.load_state_dict(content["optimizer"])
    for name, value in content["counters"].items():
        setattr(model, name, value)
    model._last_obs = training.stacked.stack
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


def _env_state(training: Training) -> dict[str, Any]:
    state, monitor = training.slots.envs.get_state(), training.monitor
    return {
        "world": list(_tensors(state.world)),
        "streams": (state.streams.seeds, state.streams.num_drawn),
        "slot_randoms": json.dumps(state.np_randoms),
        "num_steps": torch.from_numpy(state.num_steps),
        "is_over": torch.from_numpy(state.is_over),
        "stack": torch.from_numpy(training.stacked.stack),
        "episode_returns": torch.from_numpy(monitor.episode_returns),
        "episode_lengths": torch.from_numpy(monitor.episode_lengths),
        "episode_count": monitor.episode_count,
    }


def _restore_env(training: Training, content: dict[str, Any]) -> None:
    envs, monitor = training.slots.envs, training.monitor
    training.stacked.reset()  # gives the shape of a state
    device = envs.world.device
    saved = iter([x.to(device) for x in content["world"]])
    seeds, num_drawn = (x.to(device) for x in content["streams"])
    envs.set_state(
        SlotsState(
            world=_refilled(envs.get_state().world, saved),
            streams=Streams(seeds, num_drawn),
            np_randoms=tuple(json.loads(content["slot_randoms"])),
            num_steps=content["num_steps"].numpy(),
            is_over=content["is_over"].numpy(),
        )
    )
    training.stacked.stack = content["stack"].numpy()
    monitor.episode_returns = content["episode_returns"].numpy()
    monitor.episode_lengths = content["episode_lengths"].numpy()
    monitor.episode_count = content["episode_count"]


def _tensors(node: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples and dataclasses, in order."""
    if isinstance(node, Tensor):
        yield node
        return
    for child in _children(node):
        yield from _tensors(child)


def _refilled(node: Any, saved: Iterator[Shaped[Tensor, "..."]]) -> Any:
    """Return the same structure with other tensors in it."""
    if isinstance(node, Tensor):
        return next(saved)
    children = [_refilled(child, saved) for child in _children(node)]
    return tuple(children) if isinstance(node, tuple) else type(node)(*children)


def _children(node: Any) -> list[Any]:
    if isinstance(node, tuple):
        return list(node)
    return [getattr(node, field.name) for field in dataclasses.fields(node)]
