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
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from collectors.policies import Policy, make_policy
from genie_gym.data.shards import EpisodeRows
from genie_gym.envs.real import RealEnv


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingSettings:
    """Everything that the rows of a recording depend on."""

    game: str
    """Name of the ALE game."""
    policy: str
    """Name of the policy, as `make_policy` knows it."""
    seed: int
    """Seed of the whole recording."""
    steps: int
    """Actions in total."""
    sticky: float
    """Probability, per raw frame, that the emulator repeats its previous action."""
    noop_max: int
    """Most raw no-op frames after a reset."""
    frame_size: int | None
    """Side of a frame in pixels; None for the console's own size."""
    frame_skip: int
    """Raw frames per action."""
    max_pool: bool
    """Whether the last two raw frames are merged."""
    max_episode_steps: int | None
    """Actions after which an episode is truncated."""
    shard_steps: int
    """Actions after which a shard is closed, at the next end of an episode."""


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

    frames, actions, rewards = [obs], [], []
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
        actions=np.array([*actions, -1], np.int16),
        rewards=np.array([*rewards, 0], np.float32),
        terminations=ends[0],
        truncations=ends[1],
        policy=policy.description,
        policy_seed=policy_seed,
        reset_seed=reset_seed,
    )


def cut_episode(episode: EpisodeRows, max_actions: int) -> EpisodeRows:
    """Return what `play_episode` would have given with this limit."""
    if episode.num_actions <= max_actions:
        return episode
    rows = {
        key: getattr(episode, key)[: max_actions + 1].copy()
        for key in ("frames", "actions", "rewards", "terminations", "truncations")
    }
    rows["actions"][-1] = -1
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
def make_player(settings: RecordingSettings) -> tuple[RealEnv, Policy]:
    """Return the environment and the policy of a recording, kept from episode to episode.

    Raises:
        GameError: the policy does not play the game.
        ConfigError: a setting is out of its range, or the policy is unknown.
    """
    env = RealEnv(
        settings.game,
        frame_size=settings.frame_size,
        frame_skip=settings.frame_skip,
        max_pool=settings.max_pool,
        sticky=settings.sticky,
        noop_max=settings.noop_max,
        max_episode_steps=settings.max_episode_steps,
    )
    return env, make_policy(settings.policy, settings.game, len(env.action_meanings))


# An emulator that outlives the interpreter makes ale-py print a page of leaks.
atexit.register(make_player.cache_clear)
