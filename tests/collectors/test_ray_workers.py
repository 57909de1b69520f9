import os
import signal
import sys

import gymnasium as gym
import pytest

from collectors import record
from collectors.filling import ShardFiller
from genie_gym.cli import main
from genie_gym.data.hdf5 import Recording
from genie_gym.data.repair import repair
from genie_gym.data.shards import read_manifest
from genie_gym.data.verify import find_faults
from genie_gym.errors import ConfigError, DataError, MissingExtraError

ray = pytest.importorskip("ray")

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
        Fused.seconds = 0.01
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
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
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


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_nothing_that_is_recorded(unbroken, fuse, tmp_path, capfd):
    fuse.write_text("kill-one")
    record("gym:Fused-v0", tmp_path, **ON_RAY)
    assert not fuse.exists()
    assert_same_recording(unbroken, tmp_path)
    assert not ray.is_initialized()


@pytest.mark.usefixtures("cluster")
def test_ctrl_c_cuts_the_open_episode_and_this_machine_records_the_rest(unbroken, fuse, tmp_path):
    fuse.write_text(f"interrupt {os.getpid()}")
    with pytest.raises(KeyboardInterrupt):
        record("gym:Fused-v0", tmp_path, **ON_RAY)
    assert read_manifest(tmp_path).shards[-1].is_interrupted
    assert 30 <= Recording.open(tmp_path).episodes[-1].length - 1 < 200
    assert not list(tmp_path.glob(".*.part"))

    record("gym:Fused-v0", tmp_path, resume=True, **OPTIONS)
    assert_same_recording(unbroken, tmp_path)


def test_a_connected_process_fills_gaps_and_stays_connected(cluster, unbroken, fuse, tmp_path):
    (tmp_path / "again").mkdir()
    for path in unbroken.iterdir():
        (tmp_path / "again" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "again" / "shard-00001.h5").write_bytes(b"other")
    repair(tmp_path / "again")
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        record("gym:Fused-v0", tmp_path / "again", resume=True, **ON_RAY)
        assert_same_recording(unbroken, tmp_path / "again")
        assert ray.is_initialized()
    finally:
        ray.shutdown()
