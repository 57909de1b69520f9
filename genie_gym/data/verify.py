"""Finding every fault of a recording: hashes, layout, alignment of its rows, counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genie_gym.data.hdf5 import COLUMNS, Recording
from genie_gym.data.invariants import (
    ATTRIBUTES,
    OPTIONAL_ATTRIBUTES,
    Finding,
    attribute_findings,
    episode_findings,
    row_findings,
)
from genie_gym.data.layout import find_problems, find_shards, list_shards, opened, read_layout
from genie_gym.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardEntry,
    file_sha256,
    read_manifest,
    shard_index,
    shard_name,
)
from genie_gym.errors import DataError

FRAMES_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that is wrong with a recording, named well enough to be put right."""

    file: Path
    """The shard, or the manifest."""
    key: str | None = None
    """Dataset, attribute or field of the manifest; None if the whole file is meant."""
    where: str | None = None
    """Rows (counted from 0 in this file) or episode; None if the whole key is meant."""
    problem: str
    """What must hold, and what was found."""
    cure: str
    """What to do about it."""

    def __str__(self) -> str:
        """Return the fault in one line."""
        place = ", ".join(part for part in (self.key, self.where) if part)
        text = f"{place} {self.problem}" if place else self.problem
        return " ".join(f"{self.file}: {text}. {self.cure}".split())


def find_faults(path: str | Path) -> list[Fault]:
    """Check a recording folder or one HDF5 file, reading every byte of it.

    Without a manifest there are no hashes to compare, and flipped pixels stay unseen.

    Returns:
        All faults, shard by shard; none for a whole recording.

    Raises:
        DataError: there is no recording, or the folder cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        [shard] = list_shards(path)
        return _file_faults(shard, "Copy it again, or record it again")

    faults: list[Fault] = []
    manifest = None
    shards: list[tuple[Path, ShardEntry | None]]
    try:
        manifest = read_manifest(path)
    except DataError as error:
        faults.append(_refusal(path / MANIFEST_NAME, error, "No hash was compared"))
    if manifest:
        shards = [(path / entry.file, entry) for entry in manifest.shards]
        faults += _finish_faults(path, manifest)
    else:
        shards = [(shard, None) for shard in find_shards(path)]
        if not shards and not faults:
            list_shards(path)  # says why there is no recording
    return faults + _folder_faults(path, shards)


def find_notes(path: str | Path) -> list[str]:
    """Return what is worth knowing of a recording folder although it is no fault."""
    path = Path(path)
    if not path.is_dir():
        return []
    notes = [
        f"{part} is a shard that was still open: nothing reads it, and resuming replaces it"
        for part in sorted(path.glob(".shard-*.h5.part"))
    ]
    manifest = read_manifest(path)
    if manifest is None:
        return [*notes, f"{path} has no {MANIFEST_NAME}: there was no hash to compare"]
    listed = {entry.file for entry in manifest.shards}
    notes += [
        f"{shard} is not in the manifest: nothing reads it, and resuming replaces it"
        for shard in find_shards(path)
        if shard.name not in listed
    ]
    count = max((entry.index + 1 for entry in manifest.shards), default=0)
    is_import = "steps" not in manifest.settings
    cure = "import the videos again" if is_import else "genie-gym collect --resume records it again"
    gaps = [shard_name(index) for index in range(count) if shard_name(index) not in listed]
    notes += [f"{path / name} is not there: {cure}" for name in gaps]
    if not gaps and not is_import and not manifest.is_complete:
        notes.append(f"{path} is not finished: genie-gym collect --resume goes on with it")
    return notes


def summarize_shard(path: Path, sha256: str) -> ShardEntry:
    """Return what a manifest should say of a whole shard."""
    recording = Recording.open(path)
    classes = {}
    if recording.has_actions:
        classes = recording.count_rewards(recording.load_column("rewards"))
    return ShardEntry(
        file=path.name,
        rows=recording.num_frames,
        episodes=recording.num_episodes,
        sha256=sha256,
        reward_classes=classes,
    )


def _folder_faults(path: Path, shards: list[tuple[Path, ShardEntry | None]]) -> list[Fault]:
    cure = f"Restore the file, or set it aside: genie-gym data repair {path}"
    faults: list[Fault] = []
    last_whole: Path | None = None
    for shard, entry in shards:
        # The hash comes first: on some damaged files HDF5 itself crashes.
        found = _hash_faults(shard, entry, cure) if entry else []
        found = found or _file_faults(shard, cure)
        found = found or _neighbour_faults(shard, last_whole, cure)
        if not found:
            last_whole = shard
            found = _entry_faults(path, entry) if entry else []
        faults += found
    return faults


def _file_faults(shard: Path, cure: str) -> list[Fault]:
    """Check what one file can show by itself."""
    faults: list[Fault] = []
    try:
        with opened(shard) as file:
            problems = find_problems(file)
        if problems:
            return [Fault(file=shard, problem=problem, cure=cure) for problem in problems]
        # Findings come one by one: those before an unreadable chunk are kept.
        for finding in _content_findings(shard):
            faults.append(_fault(shard, finding, cure))
    except DataError as error:
        faults.append(_refusal(shard, error, cure))
    return faults


def _content_findings(shard: Path) -> Iterator[Finding]:
    layout, recording = read_layout(shard), Recording.open(shard)
    if not layout.is_video:
        with opened(shard) as file:
            columns = {key: file[key][:] for key in (*COLUMNS, "episode_ids")}
        yield from attribute_findings(layout.attributes, is_discrete=not layout.action_shape)
        yield from episode_findings(layout.episode_attributes, layout.episode_ids)
        yield from row_findings(columns, len(layout.attributes.get("action_meanings", ())))
    for start in range(0, layout.num_rows, FRAMES_AT_ONCE):
        recording.load_frames(start, min(start + FRAMES_AT_ONCE, layout.num_rows))


def _hash_faults(shard: Path, entry: ShardEntry, cure: str) -> list[Fault]:
    try:
        sha256 = file_sha256(shard)
    except OSError:
        return []  # already named as unreadable
    if sha256 == entry.sha256:
        return []
    problem = f"changed since it was written: SHA-256 is {sha256}, the manifest's {entry.sha256}"
    return [Fault(file=shard, problem=problem, cure=cure)]


def _neighbour_faults(shard: Path, last_whole: Path | None, cure: str) -> list[Fault]:
    """Check that a shard goes on where the last whole one ended."""
    layout = read_layout(shard)
    findings = []
    last_index, last_id = -1, -1
    if last_whole:
        last = read_layout(last_whole)
        last_index, last_id = shard_index(last_whole.name), int(last.episode_ids[-1])
        this = {"frames and actions": layout.kind, **layout.attributes}
        other = {"frames and actions": last.kind, **last.attributes}
        findings = [
            Finding(
                key=key,
                problem=f"must be {other.get(key)!r} as in {last_whole.name}, "
                f"got {this.get(key)!r}",
            )
            for key in ("frames and actions", "action_meanings", *OPTIONAL_ATTRIBUTES, *ATTRIBUTES)
            if this.get(key) != other.get(key)
        ]
    first_id = int(layout.episode_ids[0])
    if layout.is_video:
        pass
    elif shard_index(shard.name) == last_index + 1 and first_id != last_id + 1:
        problem = f"must go on with {last_id + 1} after the shard before, got {first_id}"
        findings.append(Finding(key="episode_ids", where="row 0", problem=problem))
    elif first_id <= last_id:
        problem = f"must be above {last_id}, which an earlier shard holds, got {first_id}"
        findings.append(Finding(key="episode_ids", where="row 0", problem=problem))
    return [_fault(shard, finding, cure) for finding in findings]


def _entry_faults(path: Path, entry: ShardEntry) -> list[Fault]:
    """Check what the manifest says of a shard whose hash agrees."""
    truth = summarize_shard(path / entry.file, entry.sha256)
    return [
        Fault(
            file=path / MANIFEST_NAME,
            key=key,
            where=f"of {entry.file}",
            problem=f"must be {getattr(truth, key)}, got {getattr(entry, key)}",
            cure=f"Count again: genie-gym data repair {path}",
        )
        for key in ("rows", "episodes", "reward_classes")
        if getattr(truth, key) != getattr(entry, key)
    ]


def _finish_faults(path: Path, manifest: Manifest) -> list[Fault]:
    steps = manifest.settings.get("steps")  # an import has none, and is finished as it is
    if steps is None or manifest.is_finished == manifest.is_complete:
        return []
    return [
        Fault(
            file=path / MANIFEST_NAME,
            key="is_finished",
            problem=f"is {manifest.is_finished} at {manifest.num_actions} of {steps} actions",
            cure=f"Count again: genie-gym data repair {path}",
        )
    ]


def _fault(shard: Path, finding: Finding, cure: str) -> Fault:
    return Fault(
        file=shard, key=finding.key, where=finding.where, problem=finding.problem, cure=cure
    )


def _refusal(file: Path, error: DataError, cure: str) -> Fault:
    """Turn the reader's error, which begins with the file's name, into a fault."""
    return Fault(file=file, problem=str(error).removeprefix(str(file)).lstrip(": "), cure=cure)
