import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from genie_gym.agents.network import MIN_SIZE, SmallCnn
from genie_gym.errors import ConfigError


def make_network(height=48, width=40):
    torch.manual_seed(0)
    return SmallCnn(Box(0, 255, (2, height, width), np.uint8), channels=(3, 4), feature_dim=5)


def test_unmeasured_it_sees_frames_from_0_to_1():
    network = make_network()
    frames = torch.randint(256, (3, 2, 48, 40)).float()
    expected = network.to_features(network.convolutions(frames / 255))
    torch.testing.assert_close(network(frames), expected)


def test_a_background_makes_no_difference():
    things = torch.randint(100, (16, 48, 40), dtype=torch.uint8)
    backdrop = torch.randint(100, (48, 40), dtype=torch.uint8)
    plain, decorated = make_network(), make_network()
    plain.measure(things)
    decorated.measure(things + backdrop)
    stack = things[:6].view(3, 2, 48, 40)
    torch.testing.assert_close(decorated((stack + backdrop).float()), plain(stack.float()))


def test_what_differs_from_the_mean_frame_has_a_mean_square_of_1():
    frames = torch.randint(256, (16, 48, 40), dtype=torch.uint8)
    network = make_network()
    network.measure(frames)
    seen = (frames - network.background) / network.contrast
    torch.testing.assert_close(seen.square().mean(), torch.tensor(1.0))


def test_frames_that_are_all_the_same_can_be_measured():
    frames = torch.full((4, 48, 40), 7, dtype=torch.uint8)
    network = make_network()
    network.measure(frames)
    assert network(frames[:2].view(1, 2, 48, 40).float()).isfinite().all()


def test_frames_too_small_for_the_convolutions_are_refused():
    assert make_network(MIN_SIZE, MIN_SIZE)(torch.zeros(1, 2, MIN_SIZE, MIN_SIZE)).shape == (1, 5)
    with pytest.raises(ConfigError, match="must be at least 20 pixels high and wide, got 20 x 19"):
        make_network(MIN_SIZE, MIN_SIZE - 1)
