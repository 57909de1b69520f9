"""Episodes played side by side by workers, and given to the recorder in order."""

import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from typing import Protocol, runtime_checkable

import numpy as np
from isal import isal_zlib

from collectors.episodes import cut_episode, play_episode
from collectors.interrupt import blocked_interrupt
from collectors.settings import RecordingSettings
from genie_gym.data.shards import EpisodeRows
from genie_gym.errors import DataError

SECONDS_BETWEEN_LOOKS = 0.1
_should_stop: Event  # set when a worker process begins


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedEpisode:
    """An episode on its way to the recorder: of Pong 60 times smaller than its frames."""

    rows: EpisodeRows
    """The episode without its frames."""
    frame_shape: tuple[int, ...]
    """Rows, height, width and channels of the frames."""
    frames: bytes
    """The frames, compressed."""

    @classmethod
    def pack(cls, episode: EpisodeRows) -> "PackedEpisode":
        """Compress an episode's frames."""
        return cls(
            rows=replace(episode, frames=episode.frames[:0]),
            frame_shape=episode.frames.shape,
            frames=isal_zlib.compress(episode.frames.data, level=1),
        )

    def unpack(self) -> EpisodeRows:
        """Return the episode as it was; its frames are read-only."""
        data = isal_zlib.decompress(self.frames, bufsize=int(np.prod(self.frame_shape)))
        return replace(self.rows, frames=np.frombuffer(data, np.uint8).reshape(self.frame_shape))


@runtime_checkable
class Workers(Protocol):
    """What plays several episodes of a recording at once."""

    num_workers: int
    """Episodes played at once."""

    def submit(self, episode_id: int, max_actions: int) -> "Future[PackedEpisode | None]":
        """Begin an episode as soon as a worker is free; None if it was stopped before that."""

    def stop(self) -> None:
        """Cut every open episode at its next action, and begin no other."""

    def close(self) -> None:
        """Stop, and end the workers."""


class WorkerProcesses:
    """Processes of this machine, no more than it has cores.

    Args:
        settings: the recording's settings.
        num_envs: most processes.
    """

    def __init__(self, settings: RecordingSettings, num_envs: int) -> None:
        self.num_workers = min(num_envs, num_cores())
        self._settings = settings
        # Spawned, not forked: a fork copies locks that OpenCV's or HDF5's threads may hold.
        context = multiprocessing.get_context("spawn")
        self._should_stop = context.Event()
        self._pool = ProcessPoolExecutor(
            self.num_workers,
            mp_context=context,
            initializer=_begin_worker,
            initargs=(self._should_stop,),
        )

    def submit(self, episode_id: int, max_actions: int) -> "Future[PackedEpisode | None]":
        """Begin an episode as soon as a process is free."""
        # It may start one, and the terminal sends Ctrl-C to the parent and all its children.
        with blocked_interrupt():
            return self._pool.submit(_play_in_worker, self._settings, episode_id, max_actions)

    def stop(self) -> None:
        """Cut every open episode at its next action."""
        self._should_stop.set()

    def close(self) -> None:
        """Stop, and wait for the processes to end."""
        self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)


def play_episodes(
    settings: RecordingSettings,
    first_episode: int,
    num_actions: int,
    *,
    make_workers: Callable[[], Workers] | None,
    should_stop: Callable[[], bool],
) -> Generator[EpisodeRows, None, None]:
    """Play episodes in order until they hold exactly so many actions, or until stopped.

    Args:
        settings: the recording's settings.
        first_episode: number of the first episode.
        num_actions: actions in total; the last episode is cut.
        make_workers: starts the workers that play; with None the episodes are played here, one
            after the other. The episodes are the same either way.
        should_stop: True cuts the open episode, which is then the last.

    Raises:
        DataError: a worker process was killed.
    """
    if make_workers is None:
        played = _play_here(settings, first_episode, num_actions, should_stop)
    else:
        played = _play_in_order(make_workers(), first_episode, num_actions, should_stop)
    with closing(played):
        for episode in played:
            episode = cut_episode(episode, num_actions)
            num_actions -= episode.num_actions
            yield episode
            if not num_actions:
                return


def _play_here(
    settings: RecordingSettings,
    first_episode: int,
    num_actions: int,
    should_stop: Callable[[], bool],
) -> Generator[EpisodeRows, None, None]:
    for episode_id in itertools.count(first_episode):
        episode = play_episode(settings, episode_id, num_actions, should_stop=should_stop)
        if episode is None:
            return
        num_actions -= episode.num_actions
        yield episode


def _play_in_order(
    workers: Workers, first_episode: int, num_actions: int, should_stop: Callable[[], bool]
) -> Generator[EpisodeRows, None, None]:
    waiting: deque[Future[PackedEpisode | None]] = deque()
    try:
        with closing(workers):
            for episode_id in itertools.count(first_episode):
                waiting.append(workers.submit(episode_id, num_actions))
                # One spare per worker keeps all busy while the oldest episode is waited for.
                if len(waiting) < 2 * workers.num_workers:
                    continue
                packed = _wait(waiting.popleft(), workers, should_stop)
                if packed is None:
                    return
                num_actions -= packed.rows.num_actions
                yield packed.unpack()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, perhaps because memory ran out. All closed shards are "
            "whole: go on with --resume, and with a smaller --num-envs"
        ) from error


def _wait(
    episode: "Future[PackedEpisode | None]", workers: Workers, should_stop: Callable[[], bool]
) -> PackedEpisode | None:
    while True:
        if should_stop():
            workers.stop()
        try:
            return episode.result(timeout=SECONDS_BETWEEN_LOOKS)
        except TimeoutError:
            continue


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin_worker(should_stop: Event) -> None:
    """Stop when the parent says so, and end with it even if it is killed."""
    global _should_stop
    _should_stop = should_stop
    # The processes share the cores already: a model's own threads would only fight over them.
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_exit() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def _play_in_worker(
    settings: RecordingSettings, episode_id: int, max_actions: int
) -> PackedEpisode | None:
    episode = play_episode(settings, episode_id, max_actions, should_stop=_should_stop.is_set)
    return None if episode is None else PackedEpisode.pack(episode)
