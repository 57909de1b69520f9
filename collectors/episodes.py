"""Playing single episodes of a recording: each depends only on its number and the settings."""

import atexit
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Shaped, UInt8

from collectors.human_player import PlayableEnv
from collectors.policies import Action, Policy, make_policy
from collectors.rendered_env import RenderedEnv
from collectors.settings import GYM_PREFIX, RecordingSettings
from genie_gym.data.shards import EpisodeRows
from genie_gym.envs.real import RealEnv
from genie_gym.errors import GameError


@runtime_checkable
class RecordedEnv(PlayableEnv, Protocol):
    """What the recorder asks of an environment: observations are frames, steps are Gymnasium's."""

    action_space: Any
    """`Discrete`, or a `Box` with one axis."""

    @property
    def action_meanings(self) -> list[str] | None:
        """Name of every discrete action, in order; None for a `Box`."""

    def reset(self, *, seed: int) -> tuple[UInt8[np.ndarray, "H W C"], dict[str, Any]]:
        """Start an episode that depends on the seed alone."""

    def step(
        self, action: Any
    ) -> tuple[UInt8[np.ndarray, "H W C"], float, bool, bool, dict[str, Any]]:
        """Take an action."""


def play_episode(
    settings: RecordingSettings,
    episode_id: int,
    max_actions: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> EpisodeRows | None:
    """Play one episode of a recording, or its beginning.

    Args:
        settings: the recording's settings.
        episode_id: number of the episode in the recording, from 0.
        max_actions: actions after which the episode is cut and marked as truncated.
        should_stop: asked before every action; True cuts the episode there.

    Returns:
        The rows; None if the episode was stopped before its first action.

    Raises:
        GameError: a reward is not finite.
    """
    if should_stop():
        return None
    env, policy = make_player(settings)
    seeds = np.random.SeedSequence([settings.seed, episode_id]).generate_state(2)
    reset_seed, policy_seed = (int(seed) for seed in seeds)
    obs, _ = env.reset(seed=reset_seed)
    policy.reset(np.random.default_rng(policy_seed))

    frames, rewards = [obs], []
    actions: list[Action] = []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(policy.act(obs))
        obs, reward, terminated, truncated, _ = env.step(actions[-1])
        frames.append(obs)
        rewards.append(reward)
        is_cut = len(actions) == max_actions or should_stop()
        truncated = truncated or (is_cut and not terminated)

    _check_finite(rewards, settings, episode_id)
    ends = np.zeros((2, len(frames)), bool)
    ends[:, -2] = terminated, truncated
    return EpisodeRows(
        episode_id=episode_id,
        frames=np.stack(frames),
        actions=_action_rows(actions),
        rewards=np.array([*rewards, 0], np.float32),
        terminations=ends[0],
        truncations=ends[1],
        policy=policy.description,
        policy_seed=policy_seed,
        reset_seed=reset_seed,
    )


def _check_finite(rewards: list[float], settings: RecordingSettings, episode_id: int) -> None:
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(np.array(rewards, np.float32))
    if not is_finite.all():
        step = int(np.flatnonzero(~is_finite)[0])
        raise GameError(
            f"{settings.game} earned a reward of {rewards[step]} at step {step} of episode "
            f"{episode_id}; a recording holds finite float32 numbers. Wrap the environment so that "
            "its rewards are finite"
        )


def _action_rows(actions: list[Action]) -> Shaped[np.ndarray, "rows ..."]:
    """Return the actions of an episode and one row more, on which none was taken."""
    rows = np.array([*actions, actions[-1]])
    rows = rows.astype(np.int16 if rows.ndim == 1 else np.float32)
    rows[-1] = _no_action(rows)
    return rows


def _no_action(rows: Shaped[np.ndarray, "rows ..."]) -> float:
    return -1.0 if rows.dtype == np.int16 else np.nan


def cut_episode(episode: EpisodeRows, max_actions: int) -> EpisodeRows:
    """Return what `play_episode` would have given with this limit."""
    if episode.num_actions <= max_actions:
        return episode
    rows = {
        key: getattr(episode, key)[: max_actions + 1].copy()
        for key in ("frames", "actions", "rewards", "terminations", "truncations")
    }
    rows["actions"][-1] = _no_action(rows["actions"])
    rows["rewards"][-1] = 0
    rows["truncations"][-2] = True
    return replace(episode, **rows)


@lru_cache(maxsize=1)
def make_player(settings: RecordingSettings) -> tuple[RecordedEnv, Policy]:
    """Return the environment and the policy of a recording, kept from episode to episode.

    Raises:
        GameError: the environment cannot be recorded, or the policy does not play it.
        ConfigError: a setting is out of its range, or the policy is unknown.
    """
    env = make_env(settings)
    space, frame_shape = env.action_space, env.observation_space.shape
    actions = space if isinstance(space, Box) else int(space.n)
    return env, make_policy(
        settings.policy, settings.game, actions, frame_shape=frame_shape, env=env
    )


def make_env(settings: RecordingSettings) -> RecordedEnv:
    """Return the environment of a recording: the real game, or any that renders.

    Raises:
        GameError: the environment cannot be recorded.
        ConfigError: a setting is out of its range.
    """
    if not settings.is_ale:
        return RenderedEnv(
            settings.game.removeprefix(GYM_PREFIX),
            env_module=settings.env_module,
            frame_size=settings.frame_size,
            max_episode_steps=settings.max_episode_steps,
        )
    return RealEnv(
        settings.game,
        frame_size=settings.frame_size,
        frame_skip=settings.frame_skip,
        max_pool=settings.max_pool,
        sticky=settings.sticky,
        noop_max=settings.noop_max,
        max_episode_steps=settings.max_episode_steps,
    )


# An emulator that outlives the interpreter makes ale-py print a page of leaks.
atexit.register(make_player.cache_clear)
