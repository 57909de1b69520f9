"""The learned world as a Gymnasium environment."""

from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import EzPickle
from jaxtyping import UInt8

from genie_gym.config import from_dict
from genie_gym.envs.keys import key_table
from genie_gym.envs.prompts import encode_prompt, prompt_frames
from genie_gym.envs.slots import (
    Slots,
    SlotsState,
    WorldEnvConfig,
    check_option_names,
    to_starts,
)
from genie_gym.errors import ConfigError, InvalidActionError
from genie_gym.models.world import World

ActionIndex = SupportsInt


class GenieWorldEnv(gym.Env[UInt8[np.ndarray, "H W C"], ActionIndex], EzPickle):
    """A game that is imagined frame by frame by a world learned from recorded play.

    ## Description

    A Genie stack stands in for the game: from the frames so far and an action it samples the next
    frame, what the step earned, and whether the game is over. Nothing of the real game runs.
    `genie_gym.envs.real.RealEnv` is the real game with the same spaces.

    ## Action Space

    `Discrete(n)`: the game's minimal action set, in ALE's order; or, with `action_mode="latent"`,
    the codes of the latent action model. A world whose dynamics knows latent actions alone plays
    the game's own through its action map.

    ## Observation Space

    `Box(0, 255, (H, W, 3), uint8)`: the newest frame, of the world's size.

    ## Starting State

    One of the world's bundled start contexts, drawn uniformly. `reset(options=...)` chooses:

    - `{"start": index}`: that context.
    - `{"prompt": picture}`: whatever `genie_gym.envs.prompts.prompt_frames` reads: a picture of any
      size, as uint8 (H, W, 3), as a PIL image, as the bytes of a file or its path; a drawing of
      the game in dark strokes on light paper; a clip (T, H, W, 3), a `.npy` file or a video. With
      `"actions"`, the T - 1 actions between the frames; without, no-ops (action 0), or in latent
      mode the codes that the world infers.

    ## Reward

    A Python float: one of the world's reward classes, drawn with the probabilities it gives them;
    with `reward_mode="expected"` their mean.

    ## Episode End

    `terminated` when the world holds an end for likelier than not. `truncated` at
    `max_episode_steps`, also when the game is over at that step. A step after the end raises
    `gymnasium.error.ResetNeeded`.

    ## Information

    After a reset `start`, the index of the start context (not after a prompt). After a step
    `expected_reward` and `terminated_prob`, whatever the reward mode.

    One seed and one list of actions give the same frames and rewards, bit for bit, in any process
    on the same kind of device. `get_state` and `set_state` go back to any moment of an episode.

    ## Arguments

    Args:
        game: name or id of an ALE game: "Pong", "ALE/Pong-v5".
        render_mode: None, or "rgb_array" for the newest frame.
        options: the other fields of `genie_gym.envs.slots.WorldEnvConfig`: `world`, `device`,
            `dtype`, `num_maskgit_steps`, `temperature`, `action_mode`, `reward_mode`,
            `max_episode_steps`, `compile`. `gymnasium.make` keeps `max_episode_steps` for its own
            `TimeLimit` wrapper, which can only shorten this environment's limit; to lengthen it,
            set it in the `kwargs` of `gymnasium.spec(id)` and make that.

    Raises:
        ConfigError: an option is unknown or out of its range.
        GameError: there is no such game.
        WorldError: there is no such world, or it is another game's.
        DeviceError: the device is not there.

    ## References

    Bruce et al. 2024, "Genie: Generative Interactive Environments". Rewards, ends and real actions
    are ours.

    ## Version History

    - v0: first version. The world is part of what an id means; a retrained bundled world raises it.
    """

    # Not a ClassVar, because Gymnasium declares it so.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self, game: str = "Pong", *, render_mode: str | None = None, **options: Any
    ) -> None:
        """Load the world, or share the one that another environment has loaded."""
        EzPickle.__init__(self, game, render_mode=render_mode, **options)
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.config = from_dict(WorldEnvConfig, {"game": game, **options}, "env")
        self.render_mode = render_mode
        self._slots = Slots(self.config, num_slots=1)
        self.observation_space = self._slots.observation_space
        self.action_space = self._slots.action_space

    @property
    def world(self) -> World:
        """The world that is played; shared with other environments, so not to be changed."""
        return self._slots.world

    @property
    def action_meanings(self) -> list[str]:
        """Name of every ALE action, in the order of the action space; empty if not recorded."""
        is_named = self.config.action_mode == "ale"
        return list(self.world.card.get("action_meanings", [])) if is_named else []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W C"], dict[str, Any]]:
        """Begin a new game.

        Args:
            seed: fixes all that is drawn until the next seed, later resets included.
            options: `start`, or `prompt` and `actions`; see the class.

        Raises:
            ConfigError: an option is unknown, or two contradict each other.
            WorldError: the start context does not exist, or there are not T - 1 actions.
            PromptError: the prompt is not readable, or not uint8 frames.
            InvalidActionError: one of the prompt's actions is not in the action space.
        """
        options = check_option_names(options, ("start", "prompt", "actions"))
        if "prompt" in options and "start" in options:
            raise ConfigError("options: give either 'start' or 'prompt', not both")
        if "actions" in options and "prompt" not in options:
            raise ConfigError("options['actions'] stand between the frames of a 'prompt': give one")
        starts = to_starts(options.get("start"), num_slots=1)
        begun = None
        if "prompt" in options:
            frames = prompt_frames(options["prompt"], self.world)
            begun = encode_prompt(
                self.world, frames, options.get("actions"), source=self._slots.source
            )

        super().reset(seed=seed)
        self._slots.np_randoms = [self.np_random]
        if self.spec is not None and self.spec.max_episode_steps is not None:
            # gym.make(..., max_episode_steps=) keeps the number to itself; it is meant for us too.
            self._slots.max_episode_steps = self.spec.max_episode_steps
        info: dict[str, Any] = {}
        if begun is not None:
            self._slots.reset_to(begun)
        else:
            info["start"] = int(self._slots.reset(np.ones(1, np.bool_), starts)[0])
        return self._obs(), info

    def step(
        self, action: object
    ) -> tuple[UInt8[np.ndarray, "H W C"], float, bool, bool, dict[str, Any]]:
        """Imagine one step.

        Raises:
            InvalidActionError: the action is not one of the action space.
            gymnasium.error.ResetNeeded: the episode has not begun, or is over.
        """
        if self._slots.is_over.any():
            raise ResetNeeded("the episode has not begun or is over: call reset() before step()")
        if not self.action_space.contains(action):
            last = self._slots.action_space.n - 1
            raise InvalidActionError(
                f"action must be an int in 0..{last} for {self.config.game}, got {action!r}"
                f"{f'. Meanings: {self.action_meanings}' if self.action_meanings else ''}"
            )
        outcome = self._slots.step(np.array(action, np.int64).reshape(1))
        info = {
            "expected_reward": float(outcome.expected_rewards[0]),
            "terminated_prob": float(outcome.terminated_probs[0]),
        }
        return (
            self._obs(),
            float(outcome.rewards[0]),
            bool(outcome.terminated[0]),
            bool(outcome.truncated[0]),
            info,
        )

    def render(self) -> UInt8[np.ndarray, "H W C"] | None:
        """Return the newest frame; None without a render mode."""
        return self._obs() if self.render_mode == "rgb_array" else None

    def get_state(self) -> SlotsState:
        """Return all that decides the future, so that `set_state` can go back to it.

        Raises:
            gymnasium.error.ResetNeeded: the episode has not begun.
        """
        return self._slots.get_state()

    def set_state(self, state: SlotsState) -> UInt8[np.ndarray, "H W C"]:
        """Go back to a state of the same world; return its observation."""
        self._slots.np_randoms = [self.np_random]
        self._slots.set_state(state)
        return self._obs()

    def get_keys_to_action(self) -> dict[tuple[str | int, ...], int]:
        """Return keys for `gymnasium.utils.play`: ALE's and the arrows; see `key_table`.

        Latent codes lie on the digits. A world that does not say what its actions mean has none.
        """
        if self.config.action_mode == "latent":
            return {(str(code),): code for code in range(min(self.world.num_latent_actions, 10))}
        return key_table(self.config.game, self.action_meanings)

    def _obs(self) -> UInt8[np.ndarray, "H W C"]:
        frame: np.ndarray = self._slots.frames()[0]
        return frame


def check_render_mode(render_mode: str | None, known: list[str]) -> None:
    """Refuse a render mode that is not known.

    Raises:
        ConfigError: it is not.
    """
    if render_mode is not None and render_mode not in known:
        raise ConfigError(f"render_mode must be None or one of {known}, got {render_mode!r}")
