import dataclasses
import hashlib
import json
import re
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch

import genie_gym
from genie_gym.agents.algorithms import make_policy
from genie_gym.agents.config import NetworkConfig
from genie_gym.agents.games import play_real
from genie_gym.agents.policy import Policy, PolicyCard, load_policy, save_policy
from genie_gym.envs.real import RealEnv
from genie_gym.envs.replay import world_hash
from genie_gym.errors import PolicyError


def make_card(**changes):
    network = NetworkConfig(num_frames=3, channels=(2, 3), feature_dim=8)
    values = {"game": "Pong", "height": 64, "width": 64, "num_actions": 6, "algo": "ppo"}
    values |= {"network": network, "world": "pong", "world_hash": "0"}
    counts = {"imagined_steps": 1, "real_steps": 2, "check_steps": 3, "seed": 0}
    return PolicyCard(**values | counts | changes)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    card = make_card()
    network = make_policy("ppo", card.network, (64, 64), 6)
    with torch.no_grad():
        network.action_net.weight.mul_(200)  # far from uniform, so that what it sees matters
    return Policy(card, network)


@pytest.fixture
def folder(policy, tmp_path):
    save_policy(tmp_path / "policy", policy.card, policy.network.state_dict())
    return tmp_path / "policy"


def frames(num_frames, num_games=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(num_frames, num_games, 64, 64, 3), dtype=np.uint8)


def play(policy, clips, starts=None, deterministic=False):
    policy.generator.manual_seed(0)
    actions, state = [], None
    for step, obs in enumerate(clips):
        is_start = None if starts is None else starts[step]
        action, state = policy.predict(obs, state, is_start, deterministic)
        actions.append(action)
    return np.array(actions), state


def test_the_state_holds_the_last_frames(policy):
    clip = frames(5)
    _, (stack, _) = play(policy, clip)
    assert stack.shape == (2, 3, 64, 64)
    _, (shorter, _) = play(policy, clip[2:])
    np.testing.assert_array_equal(stack, shorter)


def test_a_game_that_begins_forgets_the_one_before(policy):
    clip = frames(4)
    starts = np.array([[True, True], [False, False], [False, True], [False, False]])
    actions, (stack, _) = play(policy, clip, starts, deterministic=True)
    after, (fresh, _) = play(policy, clip[2:], deterministic=True)
    np.testing.assert_array_equal(stack[1], fresh[1])
    np.testing.assert_array_equal(actions[2:, 1], after[:, 1])
    assert (stack[0] != fresh[0]).any()


def test_a_single_frame_is_a_batch_of_one(policy):
    clip = frames(6, num_games=1)
    batched, _ = play(policy, clip)
    single, _ = play(policy, clip[:, 0])
    assert batched.shape == (6, 1) and single.shape == (6,)
    np.testing.assert_array_equal(batched[:, 0], single)
    env = gym.make("GenieWorld-Pong-v0")
    assert env.action_space.contains(policy.predict(clip[0, 0])[0])


def test_draws_are_the_policys_own(policy):
    clip = frames(20)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    drawn, _ = play(policy, clip)
    assert torch.equal(torch.get_rng_state(), before)
    again, _ = play(policy, clip)
    np.testing.assert_array_equal(drawn, again)
    likeliest, _ = play(policy, clip, deterministic=True)
    assert (drawn != likeliest).any()


def test_a_saved_policy_plays_the_same(policy, folder):
    loaded = genie_gym.load_policy(folder)
    content = (folder / "policy.safetensors").read_bytes()
    weights_hash = hashlib.sha256(content).hexdigest()
    assert loaded.card == dataclasses.replace(policy.card, weights_hash=weights_hash)
    np.testing.assert_array_equal(play(loaded, frames(9))[0], play(policy, frames(9))[0])


def test_other_frames_and_actions_are_refused(policy):
    with pytest.raises(PolicyError, match=re.escape("got uint8 (2, 32, 32, 3)")):
        policy.predict(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(PolicyError, match="got float64"):
        policy.predict(np.zeros((64, 64, 3)))
    other_size = RealEnv("Pong", frame_size=84)
    with pytest.raises(PolicyError, match=r"the environment shows Box\(0, 255, \(84, 84, 3\)"):
        policy.check_spaces(other_size.observation_space, other_size.action_space)
    breakout = RealEnv("Breakout")
    with pytest.raises(
        PolicyError, match=r"has 6 actions, but the environment takes Discrete\(4\)"
    ):
        policy.check_spaces(breakout.observation_space, breakout.action_space)


def test_a_policy_that_is_not_there_is_named_with_its_cure(tmp_path):
    with pytest.raises(PolicyError, match=r"no policy 'nobody': .* genie-gym agent train --world"):
        load_policy("nobody")


def test_damaged_files_are_named(folder, tmp_path):
    def damaged(name, change):
        copy = shutil.copytree(folder, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")
        change(copy / name)
        return copy

    def edit(**values):
        return lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | values))

    weights, card = "policy.safetensors", "policy.json"
    for name, change, text in (
        (weights, lambda file: file.unlink(), "policy.safetensors is missing, damaged, or of"),
        (weights, lambda file: file.write_bytes(b"x" * 9), "policy.safetensors is missing"),
        (card, edit(weights_hash="0"), "their SHA-256 is not 0. Train the policy again"),
        (card, edit(algo="dqn"), "tensors are missing or unknown, the first"),
        (card, edit(version=9), "has version 9; this genie_gym reads 1"),
        (card, edit(skill=1), "is no policy's card: .*unknown key 'skill'"),
        (card, lambda file: file.write_text("[]"), "is no policy's card"),
        (card, lambda file: file.write_text("{"), "is no policy's card"),
    ):
        with pytest.raises(PolicyError, match=text):
            load_policy(damaged(name, change))


def test_weights_under_the_card_of_another_save_are_refused(policy, folder):
    card = (folder / "policy.json").read_text()
    with torch.no_grad():
        policy.network.action_net.bias.add_(1)
    save_policy(folder, policy.card, policy.network.state_dict())
    load_policy(folder)
    (folder / "policy.json").write_text(card)  # as if killed between the two files
    with pytest.raises(PolicyError, match="their SHA-256 is not"):
        load_policy(folder)


def test_the_shipped_policy_was_trained_in_the_bundled_world():
    policy = genie_gym.load_policy("pong")
    card = policy.card
    assert card.world == "pong"
    assert card.world_hash == world_hash(genie_gym.load_world("pong", dtype="bfloat16"))
    assert card.imagined_steps > 1_000_000 and card.real_steps == 1_050_000


def test_the_shipped_policy_scores_in_the_real_game():
    games = play_real(genie_gym.load_policy("pong"), 2, seed=0, max_steps=600)
    assert games.returns.sum() > -8  # who stands still or plays at random loses more than 20
