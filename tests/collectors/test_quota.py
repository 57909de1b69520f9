import shutil

import gymnasium as gym
import numpy as np
import pytest

from collectors import record
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import read_manifest
from genie_gym.data.repair import repair
from genie_gym.data.reward_classes import count_signs, listed_classes, reward_classes
from genie_gym.data.verify import find_faults


class Coin(gym.Env):
    """Two of nine actions are rewarded, with -1 and 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    action_space = gym.spaces.Discrete(9)
    observation_space = gym.spaces.Discrete(1)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        """Do nothing."""
        return 0, {}

    def step(self, action):
        """Pay the action's reward."""
        return 0, {0: -1.0, 8: 1.0}.get(action, 0.0), False, False, {}

    def render(self):
        """Return a black frame."""
        return np.zeros((8, 8, 3), np.uint8)


gym.register("TestCoin-v0", Coin, max_episode_steps=10)
GAME = "gym:TestCoin-v0"
# Two episodes a shard: a break at every third episode leaves one closed shard behind.
QUOTA = {"steps": 5000, "shard_steps": 15, "seed": 1, "min_events": 8, "progress": False}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quota")
    summary = record(GAME, folder, **QUOTA)
    return folder, summary


def test_the_recording_ends_with_the_first_episode_that_meets_the_quota(unbroken):
    folder, summary = unbroken
    recording = Recording.open(folder)
    rewards = recording.load().rewards
    counts = (rewards > 0).sum(), (rewards < 0).sum()
    assert min(counts) >= 8 and summary.num_steps < 5000
    before = rewards[: recording.episodes[-1].start]
    assert min((before > 0).sum(), (before < 0).sum()) < 8
    assert summary.quota_report == (
        f"quota of 8 positive rewards met: {counts[0]}; "
        f"quota of 8 negative rewards met: {counts[1]}"
    )


def test_a_broken_and_resumed_recording_meets_its_quota_at_the_same_row(
    unbroken, tmp_path, break_every_third_episode
):
    folder, _ = unbroken
    while not (tmp_path / "manifest.json").exists() or not read_manifest(tmp_path).is_finished:
        try:
            record(GAME, tmp_path, resume=True, **QUOTA)
        except KeyboardInterrupt:
            pass
    assert len(break_every_third_episode) > 3
    assert [shard.rows for shard in read_manifest(tmp_path).shards] == [
        shard.rows for shard in read_manifest(folder).shards
    ]
    first, second = Recording.open(folder), Recording.open(tmp_path)
    assert first.episodes == second.episodes
    for key in ("frames", "actions", "rewards", "truncations"):
        assert (getattr(first.load(), key) == getattr(second.load(), key)).all()


def test_resuming_a_recording_that_met_its_quota_does_nothing(unbroken):
    folder, summary = unbroken
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = record(GAME, folder, resume=True, **QUOTA)
    assert (again.num_steps, again.steps_per_second) == (summary.num_steps, 0.0)
    assert again.quota_report == summary.quota_report
    assert files == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_gap_that_repair_left_is_filled_although_the_rest_meets_the_quota(unbroken, tmp_path):
    folder = shutil.copytree(unbroken[0], tmp_path / "damaged")
    names = [shard.file for shard in read_manifest(folder).shards]
    (folder / names[1]).write_bytes(b"spoilt")
    assert {fault.file.name for fault in find_faults(folder)} == {names[1]}
    repair(folder)
    assert not read_manifest(folder).is_finished and find_faults(folder) == []
    record(GAME, folder, resume=True, **QUOTA)
    assert read_manifest(folder) == read_manifest(unbroken[0])
    assert find_faults(folder) == []


def test_a_quota_that_is_out_of_reach_ends_with_the_steps_and_says_what_was_missed(tmp_path):
    options = {**QUOTA, "steps": 30}
    summary = record(GAME, tmp_path, **options)
    assert summary.num_steps == 30
    assert summary.quota_report.startswith("quota of 8 positive rewards missed: ")
    assert read_manifest(tmp_path).is_finished


def test_many_rewards_are_counted_by_their_sign_alone():
    costs = {f"{-cost}.5": 2 for cost in range(1, 102)}
    assert listed_classes(costs) == {"-": 202, "0": 0, "+": 0}
    assert count_signs(listed_classes({**costs, "0": 3, "7": 4})) == (4, 202)
    assert listed_classes({"1": 3, "0": 5, "-1": 7}) == {"-1": 7, "0": 5, "1": 3}


def test_rewards_that_print_alike_are_counted_together():
    rewards = np.array([1.0, 1.0 + 2e-7, -1.0], np.float32)
    assert len(np.unique(rewards)) == 3
    assert reward_classes(rewards) == {"-1": 1, "1": 2}
