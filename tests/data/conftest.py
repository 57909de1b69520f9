import numpy as np
import pytest

from genie_gym.data.manifest import Manifest, write_manifest
from genie_gym.data.shards import EpisodeRows, ShardWriter

ATTRIBUTES = {
    "env_id": "ALE/Pong-v5",
    "env_kwargs": "{}",
    "action_meanings": ["NOOP", "FIRE", "RIGHT"],
    "fps": 15.0,
    "frame_skip": 4,
    "max_pool": True,
    "sticky": 0.0,
    "noop_max": 30,
    "policy": "random",
    "seed": 3,
}


def make_episode(episode_id, num_actions):
    rng = np.random.default_rng(episode_id)
    ends = np.arange(num_actions + 1) == num_actions - 1
    return EpisodeRows(
        episode_id=episode_id,
        frames=rng.integers(256, size=(num_actions + 1, 4, 4, 3), dtype=np.uint8),
        actions=np.append(rng.integers(3, size=num_actions), -1).astype(np.int16),
        rewards=np.where(ends, np.float32(1), np.float32(0)),
        terminations=ends,
        truncations=np.zeros(num_actions + 1, bool),
        policy="random",
        policy_seed=10 + episode_id,
        reset_seed=20 + episode_id,
    )


@pytest.fixture
def whole(tmp_path):
    """Hold episodes 0 to 5 of 9 actions, two in each of three shards: rows 0-9 and 10-19."""
    folder = tmp_path / "whole"
    folder.mkdir()
    entries = []
    for index in range(3):
        with ShardWriter(folder, index, ATTRIBUTES) as writer:
            writer.append(make_episode(2 * index, 9))
            writer.append(make_episode(2 * index + 1, 9))
            entries.append(writer.close())
    manifest = Manifest(settings={"steps": 54}, is_finished=True, shards=tuple(entries))
    write_manifest(folder, manifest)
    return folder
