import pytest
import torch
from torch import nn

from genie_gym.nn.resnet import ResidualBlock, ResNet18


def test_it_has_as_many_parameters_as_the_known_one_of_1000_classes():
    assert sum(x.numel() for x in ResNet18(1000).parameters()) == 11_689_512


@pytest.mark.parametrize(
    ("in_dim", "out_dim", "stride", "shape"),
    [(64, 64, 1, (2, 64, 9, 14)), (64, 128, 2, (2, 128, 5, 7)), (64, 32, 1, (2, 32, 9, 14))],
)
def test_a_stride_of_two_halves_the_sides_rounding_up(in_dim, out_dim, stride, shape):
    block = ResidualBlock(in_dim, out_dim, stride=stride)
    assert block(torch.rand(2, in_dim, 9, 14)).shape == shape


def test_every_32_pixels_become_a_cell():
    network = ResNet18(3)
    # 90 -> 45 -> 23 in the stem, then 12 -> 6 -> 3; 160 -> 80 -> 40, then 20 -> 10 -> 5.
    assert network.stem(torch.rand(1, 3, 90, 160)).shape == (1, 64, 23, 40)
    assert network.blocks(torch.rand(1, 64, 23, 40)).shape == (1, 512, 3, 5)
    assert network(torch.rand(2, 90, 160, 3)).shape == (2, 3)


def test_a_block_adds_to_its_input_what_it_learned():
    block = ResidualBlock(32, 32, stride=1)
    features = torch.randn(2, 32, 5, 5)
    norm = block.residual[-1]
    nn.init.zeros_(norm.weight)
    torch.testing.assert_close(block(features), features.clamp(min=0))
    nn.init.constant_(norm.bias, 0.5)
    torch.testing.assert_close(block(features), (features + 0.5).clamp(min=0))


def test_a_picture_is_seen_alone():
    network, images = ResNet18(2), torch.rand(3, 32, 40, 3)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)
