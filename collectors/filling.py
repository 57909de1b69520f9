"""Filling a recording with shards: at its end, and in the gaps that a repair left."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from collectors.quota import Tally
from collectors.settings import RecordingSettings
from collectors.workers import Workers, play_episodes
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import Manifest, ShardEntry, write_manifest
from genie_gym.data.shards import EpisodeRows, ShardWriter
from genie_gym.errors import DataError


class ShardFiller:
    """Plays what a recording lacks and writes it, shard by shard.

    Args:
        folder: folder of the recording.
        settings: the recording's settings.
        attributes: HDF5 attributes of every shard.
        make_workers: starts what plays several episodes at once; None plays them here.
        should_stop: True ends the recording: the open episode is cut, the open shard closed.
        on_steps: told the number of actions of every episode that is written.
    """

    def __init__(
        self,
        folder: Path,
        settings: RecordingSettings,
        attributes: dict[str, Any],
        *,
        make_workers: Callable[[], Workers] | None,
        should_stop: Callable[[], bool],
        on_steps: Callable[[int], object],
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._attributes = attributes
        self._make_workers = make_workers
        self._should_stop = should_stop
        self._on_steps = on_steps

    def fill(self, manifest: Manifest) -> Manifest:
        """Record all that is missing; return the manifest, which is also on the disk.

        Raises:
            DataError: a gap cannot be filled, the disk is full, or a worker was killed.
        """
        while not (manifest.is_complete or self._should_stop()):
            old_manifest = manifest
            before, after = split_at_gap(manifest)
            episodes = play_episodes(
                self._settings,
                before.num_episodes,
                self._settings.steps - before.num_actions,
                make_workers=self._make_workers,
                should_stop=self._should_stop,
            )
            with closing(episodes):
                manifest = self._write_shards(before, after, episodes)
            if manifest == old_manifest and not self._should_stop():
                raise _cannot_fill(self._folder, "nothing is left to play before its later shards")
        return manifest

    def _write_shards(
        self, manifest: Manifest, after: tuple[ShardEntry, ...], episodes: Iterator[EpisodeRows]
    ) -> Manifest:
        """Write shards until the recording is whole, or until they reach those behind the gap."""
        tally = Tally.of(manifest)
        while not (tally.is_enough(self._settings) or self._should_stop()):
            index = len(manifest.shards)
            if after and after[0].index == index:
                break
            with ShardWriter(self._folder, index, self._attributes) as writer:
                for episode in episodes:
                    writer.append(episode)
                    tally = tally.plus(episode)
                    self._on_steps(episode.num_actions)
                    is_full = writer.num_actions >= self._settings.shard_steps
                    if is_full or tally.is_enough(self._settings) or self._should_stop():
                        break
                is_interrupted = self._should_stop()
                if not writer.num_actions:
                    if is_interrupted:
                        break
                    reason = f"all {self._settings.steps} steps are taken before its end"
                    raise _cannot_fill(self._folder, reason)
                is_at_end = tally.is_enough(self._settings)
                if after and not is_interrupted and (after[0].index == index + 1 or is_at_end):
                    self._check_reaches(after[0], episode.episode_id + 1)
                entry = replace(
                    writer.close(),
                    is_interrupted=is_interrupted and self._settings.can_be_played_again,
                )
            manifest = replace(manifest, shards=(*manifest.shards, entry))
            write_manifest(self._folder, _join(manifest, after))
        return _join(manifest, after)

    def _check_reaches(self, entry: ShardEntry, next_episode: int) -> None:
        shard = self._folder / entry.file
        first_episode = Recording.open(shard).episodes[0].episode_id
        if first_episode != next_episode:
            raise _cannot_fill(
                shard,
                f"episodes played now lead to {next_episode}, but it begins with {first_episode}",
            )


def split_at_gap(manifest: Manifest) -> tuple[Manifest, tuple[ShardEntry, ...]]:
    """Return the manifest up to the first shard that is not there, and the shards behind it."""
    entries = enumerate(manifest.shards)
    gap = next((i for i, shard in entries if shard.index != i), len(manifest.shards))
    return replace(manifest, shards=manifest.shards[:gap]), manifest.shards[gap:]


def _join(manifest: Manifest, after: tuple[ShardEntry, ...]) -> Manifest:
    whole = replace(manifest, shards=(*manifest.shards, *after))
    return replace(whole, is_finished=whole.is_complete)


def _cannot_fill(path: Path, reason: str) -> DataError:
    return DataError(
        f"the gap in the recording at {path} cannot be filled: {reason}. It was recorded with "
        "another version of the emulator or of the player: install that one, or record again to "
        "another --out"
    )
