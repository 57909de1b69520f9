"""Recording real play: episodes in, closed shards and a manifest out."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from collectors.episodes import make_player
from collectors.filling import ShardFiller
from collectors.interrupt import deferred_interrupt
from collectors.policies import models_sha256
from collectors.quota import Tally
from collectors.resuming import open_manifest
from collectors.settings import GYM_PREFIX, RecordingSettings, check_workers, make_settings
from collectors.workers import WorkerProcesses, Workers
from genie_gym.data.hdf5 import Recording
from genie_gym.data.lock import locked
from genie_gym.data.manifest import (
    Manifest,
)
from genie_gym.errors import ConfigError, DataError
from genie_gym.games import MAX_STEPS


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingSummary:
    """What `record` did."""

    path: Path
    """Folder of the recording."""
    num_steps: int
    """Actions in the recording, of this run and of those before it."""
    num_episodes: int
    """Episodes in the recording."""
    num_bytes: int
    """Size of all shards on the disk."""
    steps_per_second: float
    """Speed of this run; 0 if there was nothing left to record."""
    class_table: str
    """Rewards, and returns per policy, as text."""
    quota_report: str
    """Whether the quota of each sign was met, as text; empty if none was set."""


def record(
    game: str,
    out: str | Path,
    *,
    steps: int,
    policy: str | None = None,
    seed: int = 0,
    sticky: float | None = None,
    noop_max: int | None = None,
    frame_size: int | None = 64,
    frame_skip: int | None = None,
    max_pool: bool | None = None,
    max_episode_steps: int | None = MAX_STEPS,
    num_envs: int = 1,
    backend: str = "processes",
    shard_steps: int = 10_000,
    min_events: int | None = None,
    env_module: str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RecordingSummary:
    """Record real play into a folder of HDF5 shards.

    Episode k depends only on the seed, k, and the settings, never on `num_envs` or `backend` or on
    how often the recording was broken and resumed. A kill loses at most the open shard. Ctrl-C
    closes the open episode as truncated and the shard with it; resuming records that shard again,
    whole.

    Args:
        game: name or id of an ALE game ("Pong", "ALE/Pong-v5"), or "gym:" and the id of any other
            Gymnasium environment that renders "rgb_array" ("gym:CartPole-v1").
        out: folder to write; created if absent.
        steps: actions in total; an episode still open then is closed as truncated.
        policy: what plays: "random", "repeat", "scripted", "human", "mixed",
            "mixed:NAME=SHARE,...", "agent:PATH" or "sb3:PATH" (`collectors.policies.make_policy`);
            by default "mixed" in ALE games and "random" elsewhere. Loading "sb3:PATH" runs code
            from that file. "human" needs `num_envs` 1.
        seed: seed of the recording; another seed gives other episodes.
        sticky: probability, per raw frame, that the emulator repeats its previous action (0 by
            default). This, `noop_max`, `frame_skip` and `max_pool` are for ALE games alone.
        noop_max: most raw no-op frames after a reset (30 by default).
        frame_size: side of a frame in pixels; None for the console's or the rendering's own size.
        frame_skip: raw frames per action (4 by default).
        max_pool: whether the last two raw frames are merged (they are by default).
        max_episode_steps: actions after which an episode is truncated; None for no limit.
        num_envs: episodes played at once, on as many processes, but no more than there are cores.
            Each process holds one episode in memory. Above 1, a script must hold its calls under
            `if __name__ == "__main__":`, as for any spawned process.
        backend: whose processes those are: "processes" of this machine, or "ray", those of the Ray
            cluster that runs at the environment variable RAY_ADDRESS, or else on this machine.
        shard_steps: actions after which a shard is closed, at the next end of an episode.
        min_events: stop before `steps`, at the first end of an episode with so many positive and
            so many negative rewards in the recording.
        env_module: module to import first, which registers the id of a "gym:" environment.
        resume: go on with the recording in `out`, start it if there is none, and do nothing if it
            is finished.
        progress: whether to show a progress bar.

    Raises:
        GameError: the game is unknown or cannot be recorded, or the policy does not play it.
        ConfigError: a number is out of its range, the policy is unknown, or an option is set that
            the environment does not have; there is no Ray cluster.
        MissingExtraError: `backend` is "ray", and Ray is not installed.
        PolicyError: there is no such trained policy, or it is of another game, frame or action set.
        DataError: `out` holds a recording and `resume` is off, or one with other settings, of
            another model behind the same name or of another emulator; another process records
            into it; the disk is full; a worker process was killed.
        KeyboardInterrupt: Ctrl-C, once the open shard is closed; a second one leaves it open.
    """
    settings = make_settings(
        game,
        policy=policy,
        env_module=env_module,
        emulator={
            "sticky": sticky,
            "noop_max": noop_max,
            "frame_skip": frame_skip,
            "max_pool": max_pool,
        },
        seed=seed,
        steps=steps,
        frame_size=frame_size,
        max_episode_steps=max_episode_steps,
        shard_steps=shard_steps,
        min_events=min_events,
        model_sha256=models_sha256(policy or ""),
    )
    _check_counts(steps=steps, num_envs=num_envs, shard_steps=shard_steps)
    if min_events is not None:
        _check_counts(min_events=min_events)
    check_workers(settings, num_envs, backend)
    attributes = _shard_attributes(settings)

    folder = Path(out)
    # Before the folder is made: without its cluster a recording does not begin.
    with _backend(backend, settings, num_envs) as make_workers, _folder_of_ours(folder):
        manifest = open_manifest(folder, settings, resume=resume)
        num_old_actions = manifest.num_actions
        start_time = time.monotonic()
        with (
            tqdm(total=steps, initial=num_old_actions, unit="step", disable=not progress) as bar,
            deferred_interrupt() as is_interrupted,
        ):
            filler = ShardFiller(
                folder,
                settings,
                attributes,
                make_workers=make_workers,
                should_stop=is_interrupted.is_set,
                on_steps=bar.update,
            )
            manifest = filler.fill(manifest)
    if is_interrupted.is_set():
        raise KeyboardInterrupt
    return _summarize(folder, manifest, settings, num_old_actions, time.monotonic() - start_time)


@contextmanager
def _folder_of_ours(folder: Path) -> Iterator[None]:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; a recording is a folder. Name another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        yield


@contextmanager
def _backend(
    name: str, settings: RecordingSettings, num_envs: int
) -> Iterator[Callable[[], Workers] | None]:
    """Yield what starts the workers; None where this process plays alone."""
    if name == "ray":
        from collectors.ray_workers import RayWorkers, ray_cluster  # needs the extra

        with ray_cluster():
            yield partial(RayWorkers, settings, num_envs)
    else:
        yield partial(WorkerProcesses, settings, num_envs) if num_envs > 1 else None


def _shard_attributes(settings: RecordingSettings) -> dict[str, Any]:
    env, _ = make_player(settings)
    env_keys = ["frame_size", "max_episode_steps"]
    if settings.is_ale:
        env_id = f"ALE/{settings.game}-v5"
        env_keys += ["frame_skip", "max_pool", "sticky", "noop_max"]
    else:
        env_id = settings.game.removeprefix(GYM_PREFIX)
        env_keys += ["env_module"]
    attributes = {
        "env_id": env_id,
        "env_kwargs": json.dumps({key: getattr(settings, key) for key in env_keys}),
        "action_meanings": env.action_meanings,
        "fps": env.fps,
        "frame_skip": settings.frame_skip,
        "max_pool": settings.max_pool,
        "sticky": settings.sticky,
        "noop_max": settings.noop_max,
        "policy": settings.policy,
        "seed": settings.seed,
    }
    # What the environment does not state is left out: no name for a vector, perhaps no rate.
    return {key: value for key, value in attributes.items() if value is not None}


def _summarize(
    folder: Path,
    manifest: Manifest,
    settings: RecordingSettings,
    num_old_actions: int,
    seconds: float,
) -> RecordingSummary:
    num_new_actions = manifest.num_actions - num_old_actions
    return RecordingSummary(
        path=folder,
        num_steps=manifest.num_actions,
        num_episodes=manifest.num_episodes,
        num_bytes=sum((folder / shard.file).stat().st_size for shard in manifest.shards),
        steps_per_second=num_new_actions / seconds if num_new_actions else 0.0,
        class_table=Recording.open(folder).class_table(),
        quota_report=Tally.of(manifest).report(settings),
    )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} must be at least 1, got {count}")
