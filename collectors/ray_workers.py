"""Workers on the machines of a Ray cluster; the shards are still written here."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from collectors.episodes import play_episode
from collectors.policies import models_sha256
from collectors.settings import RecordingSettings
from collectors.workers import SECONDS_BETWEEN_LOOKS, PackedEpisode
from genie_gym.errors import ConfigError, DataError, GenieError, MissingExtraError

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise MissingExtraError(
        "backend 'ray' needs the package ray, which is not installed. Install it, on every machine "
        "of the cluster: pip install 'genie-gym[ray]'"
    ) from error

SECONDS_TO_CONNECT = 10
SECONDS_TO_START = 60
"""How long a recording waits for the first worker; a new machine may take as long to start."""
MAX_LOSSES = 3
"""Workers that one episode may cost: then it is the episode that kills them."""


class Player:
    """Plays whole episodes, one at a time, in a process of its own somewhere in the cluster.

    Ray sends it by its name: every machine imports its own genie-gym.
    """

    def __init__(self) -> None:
        self._should_stop = threading.Event()

    def start(self) -> None:
        """Do nothing; that it returns shows that the process is there."""

    def play(
        self, settings: RecordingSettings, episode_id: int, max_actions: int
    ) -> PackedEpisode | None:
        """Play one episode; None if it was stopped before its first action.

        Raises:
            DataError: a saved model of the policy is another one here.
        """
        if models_sha256(settings.policy) != settings.model_sha256:
            raise DataError(
                f"policy {settings.policy!r} names another model on {socket.gethostname()} than "
                "where the recording began. Copy the same file to every machine of the cluster"
            )
        should_stop = self._should_stop.is_set
        episode = play_episode(settings, episode_id, max_actions, should_stop=should_stop)
        return None if episode is None else PackedEpisode.pack(episode)

    def stop(self) -> None:
        """Cut the open episode at its next action, and begin no other."""
        self._should_stop.set()


PlayerActor = ray.remote(num_cpus=1, concurrency_groups={"control": 1})(Player)


class RayWorkers:
    """Processes of a Ray cluster, one CPU each, as many as it has room for.

    Those that find no room wait for it. A process that is lost is replaced, wherever there is room,
    and its episode is played again.

    Args:
        settings: the recording's settings.
        num_envs: most processes.
    """

    def __init__(self, settings: RecordingSettings, num_envs: int) -> None:
        self.num_workers = num_envs
        self._settings = settings
        self._should_stop = threading.Event()
        self._actors: set[Any] = set()
        self._started: set[Any] = set()
        self._free: SimpleQueue[Any] = SimpleQueue()
        # Each thread waits for one episode at a time, from whichever actor was free first.
        self._threads = ThreadPoolExecutor(num_envs)
        for _ in range(num_envs):
            self._hire()

    def submit(self, episode_id: int, max_actions: int) -> "Future[PackedEpisode | None]":
        """Begin an episode as soon as a process is free."""
        return self._threads.submit(self._play, episode_id, max_actions)

    def stop(self) -> None:
        """Cut every open episode at its next action."""
        if self._should_stop.is_set():
            return
        self._should_stop.set()
        for actor in self._started.copy():
            # Not in the thread that `play` holds.
            actor.stop.options(concurrency_group="control").remote()

    def close(self) -> None:
        """Stop, and kill the processes."""
        self.stop()
        for actor in self._actors.copy():
            ray.kill(actor)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _play(self, episode_id: int, max_actions: int) -> PackedEpisode | None:
        for _ in range(MAX_LOSSES):
            actor = self._wait_for_actor()
            # Asked after the waiting: an actor that starts just then is not told to stop.
            if self._should_stop.is_set():
                return None
            try:
                packed: PackedEpisode | None = ray.get(
                    actor.play.remote(self._settings, episode_id, max_actions)
                )
            except RayTaskError as error:
                if isinstance(error.cause, GenieError):
                    raise error.cause from None
                raise
            except RayError as error:
                reason = error
                self._replace(actor)
            else:
                self._free.put(actor)
                return packed
        raise DataError(
            f"episode {episode_id} was begun {MAX_LOSSES} times, and each time its worker was lost "
            "or could not start. Every machine of the cluster needs this version of genie-gym, and "
            "memory for its workers. All closed shards are whole: go on with --resume. Ray says of "
            f"the last worker: {reason}"
        ) from reason

    def _wait_for_actor(self) -> Any:
        """Return a free actor, or None if stopped while waiting."""
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._should_stop.is_set():
            try:
                actor = self._free.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                if not self._started and time.monotonic() > deadline:
                    raise DataError(
                        f"no worker has started in {SECONDS_TO_START} s: each needs a free CPU of "
                        f"the Ray cluster, which has {ray.cluster_resources().get('CPU', 0):g}, "
                        f"{ray.available_resources().get('CPU', 0):g} of them free. Wait until "
                        "there is one, or add a machine, and go on with --resume"
                    ) from None
                continue
            # One that was lost while it was idle is no fault of the next episode.
            if actor not in self._started or _answers(actor):
                return actor
            self._replace(actor)
        return None

    def _hire(self) -> None:
        """Ask the cluster for an actor, which is free as soon as it has started."""
        actor = PlayerActor.remote()
        self._actors.add(actor)

        def set_free(start: "Future[None]") -> None:
            if start.exception() is None:
                self._started.add(actor)
            # Also if it failed to start: then playing fails too, and says why.
            self._free.put(actor)

        actor.start.remote().future().add_done_callback(set_free)

    def _replace(self, actor: Any) -> None:
        self._started.discard(actor)
        self._actors.discard(actor)
        # It may live on, if only its answer was lost.
        ray.kill(actor)
        if not self._should_stop.is_set():
            self._hire()


def _answers(actor: Any) -> bool:
    try:
        ray.get(actor.start.remote())
    except RayError:
        return False
    return True


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Connect to the running cluster inside the block, unless this process is connected already.

    Raises:
        ConfigError: there is none at RAY_ADDRESS, or, if that is not set, on this machine.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _check_listening(address)
        # The workers' own output would tear the progress bar.
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"cannot connect to a Ray cluster at RAY_ADDRESS={address!r}. Start one with "
            "`ray start --head`, or set RAY_ADDRESS to HOST:PORT of the one that runs; 'auto' "
            f"looks on this machine. The reason: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """Knock first: where nobody is, Ray tries for minutes, deaf to Ctrl-C.

    Raises:
        OSError: nobody is there.
    """
    if address == "auto":
        # What `ray start` noted on this machine, perhaps of a cluster that is long gone.
        address = ray._private.services.canonicalize_bootstrap_address(address)
    url = urlsplit(address if "://" in address else f"//{address}")
    if url.port is not None:
        socket.create_connection((url.hostname, url.port), SECONDS_TO_CONNECT).close()
