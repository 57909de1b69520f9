"""Playing single episodes of a recording: each depends only on its number and the settings."""

import atexit
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
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


def play_episode(settings: RecordingSettings, episode_id: int, max_actions: int) -> EpisodeRows:
    """Play one episode of a recording, or its beginning.

    Args:
        settings: the recording's settings.
        episode_id: number of the episode in the recording, from 0.
        max_actions: actions after which the episode is cut and marked as truncated.
    """
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
        truncated = truncated or (len(actions) == max_actions and not terminated)

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


def play_episodes(
    settings: RecordingSettings, first_episode: int, num_actions: int, num_envs: int
) -> Generator[EpisodeRows, None, None]:
    """Play episodes in order until they hold exactly so many actions.

    Args:
        settings: the recording's settings.
        first_episode: number of the first episode.
        num_actions: actions in total; the last episode is cut.
        num_envs: worker processes; with 1 the episodes are played in this process. The episodes
            are the same for any number.
    """
    played = (
        _play_here(settings, first_episode, num_actions)
        if num_envs == 1
        else _play_in_workers(settings, first_episode, num_actions, num_envs)
    )
    with closing(played):
        while num_actions > 0:
            episode = cut_episode(next(played), num_actions)
            num_actions -= episode.num_actions
            yield episode


def _play_here(
    settings: RecordingSettings, first_episode: int, num_actions: int
) -> Generator[EpisodeRows, None, None]:
    for episode_id in itertools.count(first_episode):
        episode = play_episode(settings, episode_id, num_actions)
        num_actions -= episode.num_actions
        yield episode


def _play_in_workers(
    settings: RecordingSettings, first_episode: int, num_actions: int, num_envs: int
) -> Generator[EpisodeRows, None, None]:
    # Spawned, not forked: a fork copies locks that OpenCV's or HDF5's threads may hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_envs, mp_context=context, initializer=_follow_parent)
    try:
        waiting: deque[Future[EpisodeRows]] = deque()
        for episode_id in itertools.count(first_episode):
            waiting.append(pool.submit(play_episode, settings, episode_id, num_actions))
            # One spare per worker keeps all busy while the oldest episode is waited for.
            if len(waiting) == 2 * num_envs:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_exit() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


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
