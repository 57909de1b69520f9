"""A real but untrained world, small enough to build in a second."""

import numpy as np
import pytest
import torch

from genie_gym.models.bundle import save_bundle
from genie_gym.models.dynamics import DynamicsConfig
from genie_gym.models.latent_action import LatentActionConfig
from genie_gym.models.reward import RewardConfig
from genie_gym.models.stack import STAGES, GenieStack, StackConfig
from genie_gym.models.state import Starts
from genie_gym.models.tokenizer import TokenizerConfig
from genie_gym.nn.quantizer import QuantizerConfig
from genie_gym.nn.transformer import TransformerConfig

NUM_STARTS = 5
ACTION_MEANINGS = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]


def transformer(temporal_window):
    return TransformerConfig(
        num_layers=1, dim=32, num_heads=2, head_dim=8, temporal_window=temporal_window
    )


def tiny_config():
    return StackConfig(
        game="Pong",
        num_actions=6,
        tokenizer=TokenizerConfig(
            encoder=transformer(1),
            decoder=transformer(2),
            quantizer=QuantizerConfig(num_codes=64, code_dim=8),
        ),
        lam=LatentActionConfig(
            encoder=transformer(2),
            decoder=transformer(1),
            quantizer=QuantizerConfig(num_codes=8, code_dim=12),
        ),
        dynamics=DynamicsConfig(transformer=transformer(4), num_maskgit_steps=2),
        reward=RewardConfig(transformer=transformer(2)),
    )


def save_tiny_bundle(folder, *, seed=0, end_rate=0.05):
    """Write a world whose games end at times that hang on its frames, at about this rate a step."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        stack = GenieStack(tiny_config(), generator=torch.Generator().manual_seed(seed))
        # Untrained it copies the last frame: every frame would be the first.
        stack.dynamics.to_copy.bias.zero_()
        # Far from uniform, so that a wrong draw or a wrong token shows in what follows.
        stack.reward.to_reward.weight.mul_(4)
        stack.reward.to_end.weight.mul_(4)
        stack.reward.to_end.bias.copy_(end_bias(stack.reward, end_rate))
        starts = Starts(torch.randint(64, (NUM_STARTS, 3, 16)), torch.randint(6, (NUM_STARTS, 2)))
    card = {"action_meanings": ACTION_MEANINGS}
    save_bundle(folder, stack=stack, starts=starts, parts=frozenset(STAGES), card=card)


def end_bias(reward_model, end_rate):
    """Return the bias with which that share of random frames is an end."""
    if end_rate == 0:
        return torch.tensor([1000.0, 0.0])
    reward_model.to_end.bias.zero_()
    tokens, actions = torch.randint(64, (512, 16)), torch.randint(6, (512,))
    cache, table = reward_model.empty_cache(512), reward_model.code_embeddings()
    prediction, _ = reward_model.step(tokens, tokens, actions, cache, table)
    return torch.stack(
        [prediction.terminated_prob.logit().quantile(1 - end_rate), torch.tensor(0.0)]
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_world")
    save_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def endless_bundle(tmp_path_factory):
    """A tiny world whose games are never over."""
    folder = tmp_path_factory.mktemp("endless_world")
    save_tiny_bundle(folder, end_rate=0)
    return folder


@pytest.fixture
def clip():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
