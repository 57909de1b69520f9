"""What a recorder finds in its folder, and whether it may go on with it."""

import re
from dataclasses import asdict, replace
from pathlib import Path

from collectors.filling import split_at_gap
from collectors.settings import RecordingSettings
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    file_sha256,
    read_manifest,
    shard_name,
    write_manifest,
)
from genie_gym.data.shards import package_versions
from genie_gym.errors import DataError

SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def open_manifest(folder: Path, settings: RecordingSettings, *, resume: bool) -> Manifest:
    """Return what the folder holds already: nothing yet, or what these settings can go on with.

    Raises:
        DataError: it holds a recording and `resume` is off, or one that cannot be gone on with.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        shards = sorted(path.name for path in folder.glob("shard-*.h5"))
        if shards:
            raise DataError(
                f"{folder} holds {shards[0]} but no {MANIFEST_NAME}, so it cannot be continued. "
                "Name another --out, or move the shards away"
            )
        manifest = Manifest(settings=asdict(settings), is_finished=False, shards=())
        write_manifest(folder, manifest)
        return manifest
    if not resume:
        raise DataError(
            f"{folder} already holds a recording of {manifest.num_actions} steps. Continue it "
            "with --resume, or name another --out"
        )
    _check_settings(folder, manifest, settings)
    _check_gap(folder, manifest, settings)
    whole = tuple(shard for shard in manifest.shards if not shard.is_interrupted)
    if whole != manifest.shards:
        # Out of the manifest first: a file that is being replaced must not be listed.
        manifest = replace(manifest, shards=whole)
        write_manifest(folder, manifest)
    _check_shards(folder, manifest)
    _check_version(folder, manifest, settings)
    return manifest


def _check_settings(folder: Path, manifest: Manifest, settings: RecordingSettings) -> None:
    for key, value in asdict(settings).items():
        # An older manifest does not say which model played.
        if key == "model_sha256" and key not in manifest.settings:
            continue
        old_value = manifest.settings.get(key)
        if old_value != value:
            text = (
                f"{folder} was recorded with {key}={old_value!r}, but is resumed with "
                f"{key}={value!r}. Resume with the same settings, or name another --out"
            )
            raise DataError(SHA256.sub(r"\1...", text))


def _check_shards(folder: Path, manifest: Manifest) -> None:
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file() or file_sha256(path) != shard.sha256:
            state = "changed since it was written" if path.is_file() else "missing"
            raise DataError(
                f"{path} is {state}. Restore it, or set it aside (genie-gym data repair {folder}) "
                "and --resume, which records it again"
            )


def _check_version(folder: Path, manifest: Manifest, settings: RecordingSettings) -> None:
    """Refuse to go on with another emulator, whose games may run otherwise."""
    if not manifest.shards:
        return
    key = "ale_py_version" if settings.is_ale else "gymnasium_version"
    old = Recording.open(folder / manifest.shards[-1].file).attributes.get(key)
    new = package_versions()[key]
    if old not in (new, None):
        raise DataError(
            f"{folder} was recorded with {key} {old}, and this is {new}: the same seeds may play "
            "otherwise. Install that version, or record to another --out"
        )


def _check_gap(folder: Path, manifest: Manifest, settings: RecordingSettings) -> None:
    before, after = split_at_gap(manifest)
    if after and not settings.can_be_played_again:
        raise DataError(
            f"{folder / shard_name(len(before.shards))} is not there, and a person played it: "
            "nobody can play it again. The other shards can be used as they are; record on to "
            "another --out"
        )
