import pytest
import torch

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.latent_action import LatentActionConfig
from genie_gym.nn.transformer import TransformerConfig


def frames(num_frames=5):
    generator = torch.Generator().manual_seed(0)
    shape = (3, num_frames, 20, 28, 3)
    return torch.randint(256, shape, generator=generator).to(torch.uint8)


def test_every_parameter_learns(build_untrained_world):
    lam = build_untrained_world().stack.lam.train().requires_grad_(True)
    loss, _ = lam(Batch(frames=frames()))
    loss.backward()
    for name, parameter in lam.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_every_transition_has_one_code_that_later_frames_do_not_change(untrained_world):
    lam = untrained_world.stack.lam
    clip = frames().float() / 255
    codes = lam.infer(clip)
    assert codes.shape == (3, 4)
    assert codes.min() >= 0
    assert codes.max() < untrained_world.num_latent_actions
    for num_frames in (2, 3, 4):
        assert torch.equal(lam.infer(clip[:, :num_frames]), codes[:, : num_frames - 1])


def test_a_transition_needs_two_frames(untrained_world):
    with pytest.raises(ValueError, match="a transition needs two frames, got 1"):
        untrained_world.stack.lam.infer(frames(1).float() / 255)


def test_a_prediction_is_a_frame_that_hangs_on_the_action(untrained_world):
    lam = untrained_world.stack.lam
    clip = frames().float() / 255
    actions = torch.zeros(3, 5, dtype=torch.int64)
    predicted = lam.predict(clip, actions)
    assert predicted.shape == clip.shape
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    assert not torch.equal(predicted, lam.predict(clip, actions + 1))


def test_a_long_history_would_do_without_the_code_and_is_refused():
    with pytest.raises(ConfigError, match=r"must be 1 to 4 .* got 5"):
        LatentActionConfig(decoder=TransformerConfig(temporal_window=5))
