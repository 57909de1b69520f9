"""Making a damaged recording whole again by setting its bad shards aside; nothing is deleted."""

import os
from dataclasses import replace
from pathlib import Path

from genie_gym.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    file_sha256,
    read_manifest,
    sync_file,
    write_manifest,
)
from genie_gym.data.verify import find_faults, summarize_shard
from genie_gym.errors import DataError

SET_ASIDE = "set-aside"


def repair(folder: str | Path) -> list[str]:
    """Set the bad shards of a recording aside and list the whole ones in its manifest.

    The bad shards keep their names, in `set-aside/`. `collect --resume` records them again.

    Returns:
        What was done, in sentences; nothing for a whole recording.

    Raises:
        DataError: there is no recording folder, or its manifest cannot be read.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; only a recording folder can be repaired. Name it")
    faults = find_faults(folder)
    manifest = read_manifest(folder)
    bad = {fault.file for fault in faults} - {folder / MANIFEST_NAME}
    done = [_set_aside(shard) for shard in sorted(bad)]
    if manifest and faults:
        new = _count_again(folder, manifest, bad)
        write_manifest(folder, new)
        done.append(
            f"{folder / MANIFEST_NAME} now lists {len(new.shards)} whole shards of "
            f"{len(manifest.shards)}, {new.num_actions} actions"
        )
    return done


def _set_aside(shard: Path) -> str:
    if not os.path.lexists(shard):
        return f"{shard} is missing, so there was nothing to set aside"
    target = shard.parent / SET_ASIDE / shard.name
    target.parent.mkdir(exist_ok=True)
    number = 1
    while os.path.lexists(target):
        target = target.with_name(f"{shard.name}.{number}")
        number += 1
    shard.rename(target)
    # The name is gone for good before the manifest says so.
    sync_file(shard.parent)
    return f"{shard} was set aside as {target}"


def _count_again(folder: Path, manifest: Manifest, bad: set[Path]) -> Manifest:
    shards = []
    for entry in manifest.shards:
        shard = folder / entry.file
        if shard not in bad:
            new_entry = summarize_shard(shard, file_sha256(shard))
            shards.append(replace(new_entry, is_interrupted=entry.is_interrupted))
    new = replace(manifest, shards=tuple(shards))
    # An import has no steps to take: nothing can go on with it.
    is_import = "steps" not in manifest.settings
    return replace(new, is_finished=manifest.is_finished if is_import else new.is_complete)
