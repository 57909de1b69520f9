"""The learned world as a `VecEnv` of Stable-Baselines3."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float32, Int64, UInt8
from stable_baselines3.common.vec_env import VecEnv

from genie_gym.envs.world_vector_env import GenieWorldVectorEnv
from genie_gym.errors import ConfigError

Indices = None | int | Iterable[int]
Infos = list[dict[str, Any]]


class GenieWorldSB3VecEnv(VecEnv):
    """`num_envs` imagined games side by side, with the API that SB3's algorithms train in.

    It plays what `GenieWorldVectorEnv` plays with `autoreset_mode="SameStep"`: the step that ends
    an episode returns the first frame of the next one, and `infos[i]` holds the last frame of the
    ended one as `terminal_observation`. `TimeLimit.truncated` is true where only the horizon ended
    it, so that SB3 bootstraps its value. `seed(s)` gives slot i the seed s + i at the next reset;
    `set_options({"start": index})` chooses start contexts. `reset_infos[i]` is the info of slot i's
    last reset.

    Observations are frames, uint8 (num_envs, H, W, 3); rewards float32 (num_envs,).

    Args:
        num_envs: number of slots; at least 1.
        game: name or id of an ALE game.
        render_mode: None, or "rgb_array" for one picture of all slots.
        options: as of `GenieWorldEnv`.

    Raises:
        ConfigError: an option is unknown or out of its range.
        GameError: there is no such game.
        WorldError: there is no such world, or it is another game's.
        DeviceError: the device is not there.
    """

    def __init__(
        self,
        num_envs: int,
        game: str = "Pong",
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        mode = AutoresetMode.SAME_STEP
        self.envs = GenieWorldVectorEnv(
            num_envs, game, render_mode=render_mode, autoreset_mode=mode, **options
        )
        super().__init__(
            num_envs, self.envs.single_observation_space, self.envs.single_action_space
        )
        self.metadata["render_fps"] = self.envs.metadata["render_fps"]
        self._actions = np.zeros(num_envs, np.int64)

    def reset(self) -> UInt8[np.ndarray, "B H W C"]:
        """Begin a new game in every slot.

        Raises:
            ConfigError: an option is unknown, or set for some of the slots alone.
            WorldError: a start context does not exist.
        """
        obs, infos = self.envs.reset(seed=self._seeds, options=self._merged_options())
        self._reset_seeds()
        self._reset_options()
        self._note_starts(infos, range(self.num_envs))
        return obs

    def step_async(self, actions: Int64[np.ndarray, " B"]) -> None:
        """Take the actions that `step_wait` plays."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[
        UInt8[np.ndarray, "B H W C"], Float32[np.ndarray, " B"], Bool[np.ndarray, " B"], Infos
    ]:
        """Imagine one step of every slot, in one batch.

        Raises:
            InvalidActionError: there is not one action of the action space a slot.
            gymnasium.error.ResetNeeded: the games have not begun.
        """
        obs, rewards, terminated, truncated, vector_infos = self.envs.step(self._actions)
        is_over = terminated | truncated
        infos: Infos = [{} for _ in range(self.num_envs)]
        over_rows = is_over.nonzero()[0].tolist()
        for row in over_rows:
            infos[row]["terminal_observation"] = vector_infos["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = not terminated[row]
        self._note_starts(vector_infos, over_rows)
        return obs, rewards.astype(np.float32), is_over, infos

    def close(self) -> None:
        """Close the slots."""
        self.envs.close()

    def get_images(self) -> Sequence[UInt8[np.ndarray, "H W C"] | None]:
        """Return the newest frame of every slot; Nones without a render mode."""
        return self.envs.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute of the slots, which share all they have."""
        is_space = attr_name in ("observation_space", "action_space")
        value = getattr(self if is_space else self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of all slots.

        Raises:
            ConfigError: it is to be set for some of them.
        """
        self._refuse_some(f"attribute {attr_name!r}", indices)
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once; return its result for every slot.

        Raises:
            ConfigError: it is to be called for some of them.
        """
        self._refuse_some(f"method {method_name!r}", indices)
        result = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return list(result) if method_name == "render" else [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Return falsehoods: a slot is no environment that a Gymnasium wrapper could hold."""
        return [False for _ in self._get_indices(indices)]

    def _note_starts(self, infos: dict[str, Any], rows: Sequence[int]) -> None:
        for row in rows:
            self.reset_infos[row] = {"start": int(infos["start"][row])}

    def _merged_options(self) -> dict[str, list[Any]]:
        """Return SB3's options, one dict a slot, as one dict of lists."""
        names = {name for options in self._options for name in options}
        for name in names:
            if not all(name in options for options in self._options):
                raise ConfigError(
                    f"reset option {name!r} must be set for every slot or for none: "
                    f"set_options({{{name!r}: value}}), or a list of {self.num_envs} such dicts"
                )
        return {name: [options[name] for options in self._options] for name in names}

    def _refuse_some(self, what: str, indices: Indices) -> None:
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ConfigError(
                f"{what} belongs to all {self.num_envs} slots, which share one world, got "
                f"indices={indices!r}. Leave indices out"
            )
