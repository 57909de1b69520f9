import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from collectors import record
from collectors.policies import make_policy, models_sha256
from genie_gym.agents.algorithms import make_policy as make_network
from genie_gym.agents.config import NetworkConfig
from genie_gym.agents.policy import PolicyCard, save_policy
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import file_sha256, read_manifest
from genie_gym.errors import DataError, PolicyError

NETWORK = NetworkConfig(num_frames=3, channels=(2, 3), feature_dim=8)


def save(folder, *, game="Pong", num_actions=6, seed=0):
    """Save an untrained policy, far from uniform; return its name as one of the recorder's."""
    torch.manual_seed(seed)
    network = make_network("ppo", NETWORK, (64, 64), num_actions)
    with torch.no_grad():
        network.action_net.weight.mul_(200)
    card = PolicyCard(
        game=game,
        height=64,
        width=64,
        num_actions=num_actions,
        algo="ppo",
        network=NETWORK,
        world="pong",
        world_hash="0",
        imagined_steps=1,
        real_steps=2,
        check_steps=3,
        seed=0,
    )
    save_policy(folder / "policy", card, network.state_dict())
    return f"agent:{folder / 'policy'}"


def actions_of(policy, seed, num_steps=40):
    frames = np.random.default_rng(9).integers(0, 256, (num_steps, 64, 64, 3), np.uint8)
    policy.reset(np.random.default_rng(seed))
    return [policy.act(frame) for frame in frames]


def test_a_policy_plays_the_same_again_from_the_same_seed(tmp_path):
    policy = make_policy(save(tmp_path), "Pong", 6)
    state = torch.get_rng_state()
    first = actions_of(policy, 0)
    assert first == actions_of(policy, 0) != actions_of(policy, 1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(type(action) is int and 0 <= action < 6 for action in first)


def test_a_policy_remembers_its_episode_and_forgets_the_one_before(tmp_path):
    policy = make_policy(save(tmp_path), "Pong", 6)
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    policy.reset(np.random.default_rng(0))
    for frame in frames:
        policy.act(frame)
    stack, _ = policy._state
    assert len(np.unique(stack[0], axis=0)) == 3  # frames it sees at once
    policy.reset(np.random.default_rng(0))
    policy.act(frames[0])
    stack, _ = policy._state
    assert len(np.unique(stack[0], axis=0)) == 1


def test_a_policy_takes_its_part_in_a_mixture(tmp_path):
    name = save(tmp_path)
    policy = make_policy(f"mixed:{name}=0.5,repeat=0.5", "Pong", 6)
    played = set()
    for seed in range(20):
        policy.reset(np.random.default_rng(seed))
        played.add(policy.description)
    sha256 = file_sha256(tmp_path / "policy" / "policy.safetensors")
    assert played == {f"agent:policy({sha256[:12]})", "repeat(0.9)"}
    assert models_sha256(f"mixed:{name}=0.5,repeat=0.5") == models_sha256(name) == sha256


def test_the_number_of_threads_is_left_alone(tmp_path):
    policy = make_policy(save(tmp_path), "Pong", 6)
    alone = actions_of(policy, 0)
    torch.set_num_threads(2)
    try:
        assert actions_of(policy, 0) == alone and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow  # each worker imports torch
def test_two_workers_record_what_one_does(tmp_path, assert_same_recording):
    options = {"steps": 90, "max_episode_steps": 20, "progress": False, "policy": save(tmp_path)}
    for num_envs in (1, 2):
        record("Pong", tmp_path / str(num_envs), num_envs=num_envs, **options)
    assert_same_recording(tmp_path / "1", tmp_path / "2")


def test_a_recording_is_not_resumed_with_a_changed_policy(tmp_path):
    options = {"steps": 30, "max_episode_steps": 20, "progress": False, "policy": save(tmp_path)}
    record("Pong", tmp_path / "out", **options)
    sha256 = file_sha256(tmp_path / "policy" / "policy.safetensors")
    assert read_manifest(tmp_path / "out").settings["model_sha256"] == sha256
    [first, _] = Recording.open(tmp_path / "out").episodes
    assert first.policy == f"agent:policy({sha256[:12]})"
    record("Pong", tmp_path / "out", resume=True, **options)
    save(tmp_path, seed=1)
    with pytest.raises(DataError, match=rf"was recorded with model_sha256='{sha256[:12]}\.\.\.'"):
        record("Pong", tmp_path / "out", resume=True, **options)


@pytest.mark.parametrize(
    ("saved", "game", "actions", "size", "text"),
    [
        ({}, "Breakout", 6, 64, "learned Pong, but Breakout is recorded. Name a policy"),
        ({}, "gym:Any-v0", 6, 64, "learned Pong, but gym:Any-v0 is recorded"),
        (
            {},
            "Pong",
            6,
            84,
            r"sees Box\(0, 255, \(64, 64, 3\), .* shows Box\(0, 255, \(84, ",
        ),
        ({}, "Pong", Box(-1, 1, (2,)), 64, r"has 6 actions, but the environment takes Box"),
        ({"num_actions": 4}, "Pong", 6, 64, r"has 4 actions, but .* takes Discrete\(6\)"),
    ],
)
def test_what_a_policy_did_not_learn_is_refused(tmp_path, saved, game, actions, size, text):
    name = save(tmp_path, **saved)
    with pytest.raises(PolicyError, match=text):
        make_policy(name, game, actions, frame_shape=(size, size, 3))


def test_a_policy_that_is_not_there_is_refused_before_anything_is_recorded(tmp_path):
    with pytest.raises(PolicyError, match="no policy 'nobody'"):
        record("Pong", tmp_path / "out", steps=9, policy="agent:nobody", progress=False)
    assert not (tmp_path / "out").exists()
