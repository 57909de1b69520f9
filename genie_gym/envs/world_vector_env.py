"""Many learned worlds side by side in one Gymnasium vector environment: one batch for all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import EzPickle, seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8

from genie_gym.config import from_dict
from genie_gym.envs.slots import (
    Outcome,
    Slots,
    SlotsState,
    WorldEnvConfig,
    check_option_names,
    to_starts,
)
from genie_gym.envs.world_env import GenieWorldEnv, check_render_mode
from genie_gym.errors import ConfigError, InvalidActionError
from genie_gym.models.world import World

Step = tuple[
    UInt8[np.ndarray, "B H W C"],
    Float64[np.ndarray, " B"],
    Bool[np.ndarray, " B"],
    Bool[np.ndarray, " B"],
    dict[str, Any],
]


class GenieWorldVectorEnv(
    VectorEnv[UInt8[np.ndarray, "B H W C"], Int64[np.ndarray, " B"], Shaped[np.ndarray, " B"]],
    EzPickle,
):
    """`num_envs` games of `GenieWorldEnv`, imagined together.

    Slot i plays what a single environment plays that was reset with its seed and given its actions;
    only rounding may tell them apart (a batch of another size). What other slots do moves nothing.

    Args:
        num_envs: number of slots; at least 1.
        game: name or id of an ALE game.
        render_mode: None, or "rgb_array" for one frame a slot.
        autoreset_mode: "NextStep": the step after an end resets the slot and ignores its action.
            "SameStep": the step that ends an episode resets its slot at once; the last frame and
            its info are in `final_obs` and `final_info`. "Disabled": the caller resets with
            `reset(options={"reset_mask": mask})`.
        options: as of `GenieWorldEnv`.

    Raises:
        ConfigError: an option is unknown or out of its range.
        GameError: there is no such game.
        WorldError: there is no such world, or it is another game's.
        DeviceError: the device is not there.
    """

    def __init__(
        self,
        num_envs: int = 1,
        game: str = "Pong",
        *,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **options: Any,
    ) -> None:
        """Load the world, or share the one that another environment has loaded."""
        EzPickle.__init__(
            self,
            num_envs,
            game,
            render_mode=render_mode,
            autoreset_mode=autoreset_mode,
            **options,
        )
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, got {num_envs}")
        check_render_mode(render_mode, GenieWorldEnv.metadata["render_modes"])
        self.config = from_dict(WorldEnvConfig, {"game": game, **options}, "env")
        self.autoreset_mode = _to_autoreset_mode(autoreset_mode)
        self.metadata = {**GenieWorldEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._slots = Slots(self.config, num_envs)
        self._slots.np_randoms = [seeding.np_random()[0] for _ in range(num_envs)]
        self.single_observation_space = self._slots.observation_space
        self.single_action_space = self._slots.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def world(self) -> World:
        """The world that is played; shared with other environments, so not to be changed."""
        return self._slots.world

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[UInt8[np.ndarray, "B H W C"], dict[str, Any]]:
        """Begin new games.

        Args:
            seed: slot i gets `seed + i`, or the i-th of a list; slots without go on drawing.
            options: `start`, one index for all or one a slot, and `reset_mask`, bool (num_envs,):
                only those slots begin anew.

        Raises:
            ConfigError: an option is unknown or has the wrong form.
            WorldError: a start context does not exist.
        """
        options = check_option_names(options, ("start", "reset_mask"))
        starts = to_starts(options.get("start"), self.num_envs)
        is_reset = self._to_mask(options.get("reset_mask"))
        for row, slot_seed in enumerate(self._to_seeds(seed)):
            if slot_seed is not None and is_reset[row]:
                self._slots.np_randoms[row], _ = seeding.np_random(slot_seed)
        infos = self._reset_slots(is_reset, starts)
        return self._slots.frames(), infos

    def step(self, actions: Any) -> Step:
        """Imagine one step of every slot, in one batch.

        Raises:
            InvalidActionError: there is not one action of the action space a slot.
            gymnasium.error.ResetNeeded: the games have not begun, or one is over and
                `autoreset_mode` is "Disabled".
        """
        actions = self._to_actions(actions)
        is_over = self._slots.is_over.copy()
        _ = self._slots.state  # raises before the first reset
        if self.autoreset_mode == AutoresetMode.DISABLED and is_over.any():
            raise ResetNeeded(
                f"the episodes of slots {is_over.nonzero()[0].tolist()} are over: call "
                "reset(options={'reset_mask': mask}) before step()"
            )
        outcome = self._slots.step(np.where(is_over, 0, actions))
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            return self._finish_same_step(outcome)
        return self._finish_next_step(outcome, is_over)

    def render(self) -> tuple[UInt8[np.ndarray, "H W C"], ...] | None:
        """Return the newest frame of every slot; None without a render mode."""
        return tuple(self._slots.frames()) if self.render_mode == "rgb_array" else None

    def get_state(self) -> SlotsState:
        """Return all that decides the future, so that `set_state` can go back to it.

        Raises:
            gymnasium.error.ResetNeeded: the games have not begun.
        """
        return self._slots.get_state()

    def set_state(self, state: SlotsState) -> UInt8[np.ndarray, "B H W C"]:
        """Go back to a state of the same world; return its observations."""
        self._slots.set_state(state)
        return self._slots.frames()

    def _finish_next_step(self, outcome: Outcome, was_over: Bool[np.ndarray, " B"]) -> Step:
        """Reset the slots that were over before the step; nothing was played in them."""
        infos = _step_infos(outcome, ~was_over)
        if was_over.any():
            infos |= self._reset_slots(was_over, to_starts(None, self.num_envs))
        return (
            self._slots.frames(),
            np.where(was_over, 0.0, outcome.rewards),
            outcome.terminated & ~was_over,
            outcome.truncated & ~was_over,
            infos,
        )

    def _finish_same_step(self, outcome: Outcome) -> Step:
        """Reset the slots that the step ended, and hand over what they ended with."""
        is_over = self._slots.is_over.copy()
        infos = _step_infos(outcome, ~is_over)
        if is_over.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            last_frames = self._slots.frames()
            for row in is_over.nonzero()[0]:
                final_obs[row] = last_frames[row].copy()
            infos |= {
                "final_obs": final_obs,
                "_final_obs": is_over.copy(),
                "final_info": _step_infos(outcome, is_over),
                "_final_info": is_over.copy(),
            }
            infos |= self._reset_slots(is_over, to_starts(None, self.num_envs))
        return self._slots.frames(), outcome.rewards, outcome.terminated, outcome.truncated, infos

    def _reset_slots(
        self, is_reset: Bool[np.ndarray, " B"], starts: Int64[np.ndarray, " B"]
    ) -> dict[str, Any]:
        return _masked({"start": self._slots.reset(is_reset, starts)}, is_reset)

    def _to_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ConfigError(f"there must be one seed per slot, {self.num_envs}, got {len(seed)}")
        return seed

    def _to_mask(self, reset_mask: Any) -> Bool[np.ndarray, " B"]:
        if reset_mask is None:
            return np.ones(self.num_envs, np.bool_)
        mask = np.array(reset_mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ConfigError(
                f"options['reset_mask'] must be bool ({self.num_envs},) with at least one True, "
                f"got {reset_mask!r}"
            )
        return mask

    def _to_actions(self, actions: Any) -> Int64[np.ndarray, " B"]:
        array = np.asarray(actions)
        if array.shape != (self.num_envs,) or array.dtype.kind not in "iu":
            raise InvalidActionError(
                f"actions must be ints of shape ({self.num_envs},), got {array.dtype} {array.shape}"
            )
        num_actions = self._slots.action_space.n
        wrong = (array < 0) | (array >= num_actions)
        if wrong.any():
            row = int(wrong.argmax())
            raise InvalidActionError(
                f"action must be an int in 0..{num_actions - 1} for {self.config.game}, got "
                f"{array[row]} in slot {row}"
            )
        return array.astype(np.int64)


def _to_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = [one.value for one in AutoresetMode]
        raise ConfigError(f"autoreset_mode must be one of {known}, got {mode!r}") from error


def _step_infos(outcome: Outcome, is_told: Bool[np.ndarray, " B"]) -> dict[str, Any]:
    values = {
        "expected_reward": outcome.expected_rewards,
        "terminated_prob": outcome.terminated_probs,
    }
    return _masked(values, is_told) if is_told.any() else {}


def _masked(
    values: dict[str, Shaped[np.ndarray, " B"]], is_told: Bool[np.ndarray, " B"]
) -> dict[str, Any]:
    """Return infos as Gymnasium's vector environments give them: zero where nothing is told."""
    infos: dict[str, Any] = {}
    for name, array in values.items():
        infos[name] = np.where(is_told, array, np.zeros_like(array))
        infos[f"_{name}"] = is_told.copy()
    return infos
