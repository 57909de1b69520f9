import os
import shutil
import sys
from contextlib import closing
from tempfile import TemporaryDirectory

import gymnasium as gym
import pytest
import ray
from ray.cluster_utils import Cluster

from collectors import record
from collectors.ray_workers import RayWorkers
from collectors.settings import RecordingSettings
from genie_gym.cli import main
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import read_manifest
from genie_gym.data.repair import repair
from genie_gym.data.verify import find_faults
from genie_gym.errors import ConfigError, DataError, MissingExtraError

KEYS = ("frames", "actions", "rewards", "terminations", "truncations", "episode_ids")
# A game in which something happens at the 30th step of an episode, if the file FUSE says so.
MODULE = """
import os, signal, time
from pathlib import Path
import gymnasium as gym, numpy as np
from genie_gym.errors import DataError

FUSE = Path(__file__).with_name("fuse")

class Fused(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Box(0, 1, (1,))
    seconds = 0
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps, self.shade = 0, int(self.np_random.integers(100))
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.num_steps += 1
        self.shade = (self.shade + action) % 256
        if self.num_steps == 30:
            burn()
        time.sleep(Fused.seconds)
        return np.zeros(1, np.float32), float(action - 1), False, False, {}
    def render(self):
        return np.full((6, 4, 3), self.shade, np.uint8)

def burn():
    try:
        what, *who = FUSE.read_text().split()
        if what != "kill-all":
            FUSE.unlink()
    except FileNotFoundError:
        return
    if what == "fail":
        raise DataError("the game is broken")
    if what == "interrupt":
        Fused.seconds = 0.05
    os.kill(int(*who or [os.getpid()]), signal.SIGINT if who else signal.SIGKILL)

gym.register("Fused-v0", Fused)
"""
OPTIONS = {
    "steps": 1250,
    "shard_steps": 300,
    "max_episode_steps": 200,
    "frame_size": 8,
    "env_module": "fused_env_test_module",
    "progress": False,
}
ON_RAY = {**OPTIONS, "backend": "ray", "num_envs": 2}


@pytest.fixture(scope="module")
def fuse(tmp_path_factory):
    """Write the game's module where all workers find it; return the file that it watches."""
    folder = tmp_path_factory.mktemp("module")
    (folder / f"{OPTIONS['env_module']}.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        yield folder / "fuse"
    sys.modules.pop(OPTIONS["env_module"], None)
    gym.registry.pop("Fused-v0", None)


@pytest.fixture(scope="module")
def cluster(fuse):
    """Start a cluster of two machines with one CPU each, and name it in RAY_ADDRESS."""
    # Not in pytest's folder: the path of a socket has at most 107 bytes.
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        node = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def unbroken(fuse, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    record("gym:Fused-v0", folder, **OPTIONS)
    return folder


def assert_same_recording(first, second):
    assert find_faults(second) == []
    assert read_manifest(first) == read_manifest(second)
    first, second = Recording.open(first), Recording.open(second)
    assert first.episodes == second.episodes
    rows, other_rows = first.load(), second.load()
    assert all((getattr(rows, key) == getattr(other_rows, key)).all() for key in KEYS)


@pytest.fixture
def connection(cluster):
    """Connect this process to the cluster, as a notebook might."""
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_nothing_that_is_recorded(unbroken, fuse, tmp_path):
    fuse.write_text("kill-one")
    # One more than there is room for: it waits, and takes the place of the killed one.
    record("gym:Fused-v0", tmp_path, **{**ON_RAY, "num_envs": 3})
    assert not fuse.exists()
    assert_same_recording(unbroken, tmp_path)
    assert not ray.is_initialized()


@pytest.mark.usefixtures("cluster")
def test_ctrl_c_cuts_the_open_episode_and_this_machine_records_the_rest(unbroken, fuse, tmp_path):
    fuse.write_text(f"interrupt {os.getpid()}")
    with pytest.raises(KeyboardInterrupt):
        record("gym:Fused-v0", tmp_path, **{**ON_RAY, "num_envs": 1})
    (shard,) = read_manifest(tmp_path).shards
    assert shard.is_interrupted and 30 < shard.rows < 200
    record("gym:Fused-v0", tmp_path, resume=True, **OPTIONS)
    assert_same_recording(unbroken, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("connection")
def test_a_connected_process_fills_gaps_of_this_machine_and_stays_connected(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    (tmp_path / "shard-00001.h5").write_bytes(b"other")
    repair(tmp_path)
    record("gym:Fused-v0", tmp_path, resume=True, **ON_RAY)
    assert_same_recording(unbroken, tmp_path)
    assert ray.is_initialized()


@pytest.mark.slow
@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize(
    "what, text",
    [
        ("fail", "^the game is broken$"),
        ("kill-all", r"episode 0 was begun 3 times, and each time its worker was lost .* --resume"),
    ],
)
def test_what_ends_an_episode_for_good_is_an_error_of_one_kind(fuse, tmp_path, what, text):
    fuse.write_text(what)
    with pytest.raises(DataError, match=text):
        record("gym:Fused-v0", tmp_path, **{**ON_RAY, "num_envs": 1})
    fuse.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.usefixtures("connection")
def test_a_worker_that_is_lost_while_idle_is_not_counted_against_an_episode(unbroken, monkeypatch):
    monkeypatch.setattr("collectors.ray_workers.MAX_LOSSES", 1)
    settings = RecordingSettings(**read_manifest(unbroken).settings)
    with closing(RayWorkers(settings, 1)) as workers:
        workers.submit(0, 50).result()
        ray.kill(*workers._started)
        assert workers.submit(1, 50).result().rows.episode_id == 1


@pytest.mark.usefixtures("connection")
def test_a_cluster_without_a_free_cpu_is_waited_for_and_then_an_error(tmp_path, monkeypatch):
    class Idle:
        pass

    monkeypatch.setattr("collectors.ray_workers.SECONDS_TO_START", 0.5)
    idle = [ray.remote(num_cpus=1)(Idle).remote() for _ in range(2)]
    ray.get([actor.__ray_ready__.remote() for actor in idle])
    with pytest.raises(
        DataError, match=r"in 0.5 s: each needs a free CPU .* has 2, 0 of them free"
    ):
        record("gym:Fused-v0", tmp_path, **ON_RAY)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "pong", "pong:x"])
def test_without_a_cluster_nothing_is_written(tmp_path, monkeypatch, capsys, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    out = tmp_path / "new"
    assert main(["collect", "Pong", "--out", str(out), "--steps", "9", "--backend", "ray"]) == 2
    error = capsys.readouterr().err
    assert f"Ray cluster at RAY_ADDRESS={address!r}" in error and "`ray start --head`" in error
    assert not out.exists()


def test_a_backend_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"one of processes, ray, got 'rey'. Did you mean 'ray'"):
        record("Pong", tmp_path / "new", steps=9, backend="rey")
    with pytest.raises(ConfigError, match=r"'human' needs backend processes, got ray"):
        record("Pong", tmp_path / "new", steps=9, policy="human", backend="ray")
    assert not (tmp_path / "new").exists()


def test_without_ray_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "collectors.ray_workers", raising=False)
    with pytest.raises(MissingExtraError, match=r"Install it, .*: pip install 'genie-gym\[ray\]'"):
        record("Pong", tmp_path / "new", steps=9, backend="ray")
    assert not (tmp_path / "new").exists()
