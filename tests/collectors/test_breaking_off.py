"""Recording is broken off in every way there is; nothing closed is lost, and resuming heals it."""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collectors import record
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import read_manifest
from genie_gym.data.repair import repair
from genie_gym.data.verify import find_faults, find_notes
from genie_gym.errors import DataError

STEPS = 1500
SETTINGS = {"seed": 3, "shard_steps": 150, "max_episode_steps": 100}


def start(folder, steps, *, num_envs=1, **more):
    """Record in another process, as the command does, with episodes short enough for a test."""
    options = {**SETTINGS, "steps": steps, "num_envs": num_envs, "progress": False, "resume": True}
    code = (
        "import signal, sys\nfrom collectors import record\n"
        "from genie_gym.errors import GenieError\n"
        # Whoever starts the tests may have told them to ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if __name__ == '__main__':\n"
        f"    try: record('Pong', {str(folder)!r}, **{options!r})\n"
        "    except KeyboardInterrupt: sys.exit(130)\n"
        "    except GenieError as error: sys.exit(str(error))\n"
    )
    # From a file: a spawned worker imports the script that its parent runs.
    script = folder.with_suffix(".py")
    script.write_text(code)
    return subprocess.Popen([sys.executable, str(script)], start_new_session=True, **more)


def wait_for_shards(folder, count, process):
    deadline = time.monotonic() + 60
    while len(list(folder.glob("shard-*.h5"))) < count and time.monotonic() < deadline:
        assert process.poll() is None, "the recording ended before it could be broken off"
        time.sleep(0.005)


def children_of(process):
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return [id for task in tasks for id in (task / "children").read_text().split()]


def resume(folder, steps, **options):
    return record("Pong", folder, steps=steps, resume=True, progress=False, **SETTINGS, **options)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    resume(folder, STEPS)
    return folder


@pytest.mark.parametrize("num_envs", [1, 2])
def test_ctrl_c_closes_the_open_episode_and_exits_with_130(
    unbroken, tmp_path, num_envs, assert_same_recording
):
    folder = tmp_path / "recording"
    process = start(folder, STEPS, num_envs=num_envs)
    wait_for_shards(folder, 2, process)
    # The terminal sends it to the workers too.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130

    assert find_faults(folder) == [] and "is not finished" in " ".join(find_notes(folder))
    broken, whole = Recording.open(folder), Recording.open(unbroken)
    rows, whole_rows = broken.load(), whole.load()
    last = broken.episodes[-1]
    assert rows.truncations[last.start + last.length - 2]
    num_rows = last.start + last.length - 1  # on the last row there is no action any more
    for key in ("frames", "actions", "rewards"):
        expected = getattr(whole_rows, key)[:num_rows]
        np.testing.assert_array_equal(getattr(rows, key)[:num_rows], expected)
    resume(folder, STEPS)
    assert_same_recording(unbroken, folder)
    # Without hashes: on a busy machine ISA-L now and then packs equal frames in other bytes.
    entries, others = (
        [replace(shard, sha256="") for shard in read_manifest(one).shards]
        for one in (folder, unbroken)
    )
    assert entries == others


def test_ctrl_c_while_the_workers_start_is_no_killed_worker(tmp_path):
    folder = tmp_path / "recording"
    process = start(folder, STEPS, num_envs=2, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # The resource tracker and two workers; they are still importing.
    while len(children_of(process)) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list(folder.glob("shard-*.h5"))


def test_a_second_recorder_is_refused_and_leaves_the_first_alone(
    unbroken, tmp_path, assert_same_recording
):
    folder = tmp_path / "recording"
    process = start(folder, STEPS)
    wait_for_shards(folder, 1, process)
    for write in (lambda: resume(folder, STEPS), lambda: repair(folder)):
        with pytest.raises(DataError, match=r"another process is writing to .*recording. Wait"):
            write()
    assert process.wait(timeout=60) == 0
    assert_same_recording(unbroken, folder)


def test_a_full_disk_is_one_line_and_leaves_all_closed_shards(
    unbroken, tmp_path, assert_same_recording
):
    folder = tmp_path / "recording"
    process = start(folder, STEPS)
    wait_for_shards(folder, 2, process)
    process.kill()  # what lies there was written when there was room
    process.wait()
    for part in folder.glob(".*.part"):
        part.unlink()
    num_shards = len(read_manifest(folder).shards)
    limit = max(path.stat().st_size for path in folder.iterdir()) // 2

    def fill_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(folder, STEPS, preexec_fn=fill_disk, stderr=subprocess.PIPE, text=True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    line = errors.strip().splitlines()[-1]
    name = f"shard-{num_shards:05d}.h5"
    assert f"{name} cannot be written: File too large" in line and "Traceback" not in errors
    assert "All closed shards are whole: free some space and go on with --resume" in line
    assert find_faults(folder) == [] and not list(folder.glob(".*.part"))
    assert len(read_manifest(folder).shards) == num_shards
    resume(folder, STEPS)
    assert_same_recording(unbroken, folder)


def test_a_killed_worker_ends_the_recording_in_one_line(unbroken, tmp_path):
    folder = tmp_path / "recording"
    # Long enough that it is not over before the loss is noticed.
    process = start(folder, 20 * STEPS, num_envs=2, stderr=subprocess.PIPE, text=True)
    wait_for_shards(folder, 2, process)
    commands = {id: Path(f"/proc/{id}/cmdline").read_text() for id in children_of(process)}
    worker = next(id for id, command in commands.items() if "spawn_main" in command)
    os.kill(int(worker), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert "a worker process was killed, perhaps because memory ran out" in errors
    assert find_faults(folder) == []
    rows, whole_rows = Recording.open(folder).load(), Recording.open(unbroken).load()
    num_rows = min(len(rows.frames), len(whole_rows.frames) - 101)  # its last episode may be cut
    np.testing.assert_array_equal(rows.frames[:num_rows], whole_rows.frames[:num_rows])


def kill_at_random(folder, unbroken, steps, rng, assert_same_recording, *, num_envs):
    """Kill a recording at a random moment of its life, check what is left, and resume it."""
    process = start(folder, steps, num_envs=num_envs)
    time.sleep(rng.uniform(0.3, 3.0))
    process.send_signal(signal.SIGKILL)
    is_over = process.wait() == 0
    manifest = read_manifest(folder) if folder.exists() else None
    if manifest and manifest.shards:
        assert find_faults(folder) == []
        recording, whole = Recording.open(folder), Recording.open(unbroken)
        assert recording.episodes == whole.episodes[: recording.num_episodes]
        frames = recording.load_frames(0, recording.num_frames)
        np.testing.assert_array_equal(frames, whole.load_frames(0, recording.num_frames))
        # Nothing that was closed is missing: only the newest file may not be listed yet.
        closed = sorted(path.name for path in folder.glob("shard-*.h5"))
        assert closed[: len(manifest.shards)] == [shard.file for shard in manifest.shards]
        assert len(closed) <= len(manifest.shards) + 1
    resume(folder, steps, num_envs=num_envs)
    assert_same_recording(unbroken, folder)
    assert find_faults(folder) == []
    return len(manifest.shards) if manifest and not is_over else -1


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_lose_at_most_the_open_shard(
    tmp_path, assert_same_recording
):
    rng = np.random.default_rng(0)
    # As long as a start takes, so that most kills hit while shards are written.
    steps, unbroken = 4 * STEPS, tmp_path / "unbroken"
    resume(unbroken, steps)
    kills = [
        kill_at_random(
            tmp_path / f"{index}",
            unbroken,
            steps,
            rng,
            assert_same_recording,
            num_envs=1 + index % 2,
        )
        for index in range(100)
    ]
    # They hit before the first shard, among the shards, and a few came too late.
    assert min(count for count in kills if count >= 0) == 0
    assert sum(count > 0 for count in kills) > 40
