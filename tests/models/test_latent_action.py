from dataclasses import replace

import pytest
import torch

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.latent_action import (
    MOMENT_GAIN,
    LatentActionConfig,
    LatentActionModel,
    motion_moments,
)
from genie_gym.models.stack import StackConfig
from genie_gym.models.tokenizer import TokenizerConfig
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


@pytest.mark.parametrize("num_frames", [2, 6, 32])
def test_clips_of_any_length_have_the_codes_of_their_parts(untrained_world, num_frames):
    lam = untrained_world.stack.lam
    clip = frames(num_frames).float() / 255
    codes = lam.infer(clip)
    assert codes.shape == (3, num_frames - 1)
    # The window is one pair of frames, so a pair alone has the code it has in a clip.
    assert torch.equal(lam.infer(clip[:, -2:]), codes[:, -1:])
    predicted = lam.predict(clip[:, :-1], codes)
    torch.testing.assert_close(lam.predict(clip[:, -2:-1], codes[:, -1:]), predicted[:, -1:])


FAINT = 1 / 32
"""Brightness at which the squashing still tells one path from another."""


def moved(*, width=28, rows=(4, 4), columns=(3, 3)):
    """Return the moments of a faint grey square, 4 x 4 pixels, that moves from place to place."""
    clip = torch.zeros(1, 2, 20, width, 3)
    for time in (0, 1):
        row, column = rows[time], columns[time]
        clip[0, time, row : row + 4, column : column + 4] = FAINT
    way_half_colour = motion_moments(clip).view(2, 2, 3)
    assert (way_half_colour == way_half_colour[..., :1]).all()  # grey: all colours alike
    return way_half_colour[..., 0]


@pytest.mark.parametrize("width", [27, 28])
def test_moments_are_brightness_times_path_in_the_half_where_it_moved(width):
    # 16 pixels, moved by 2 of the 19 that the frame's 20 rows span from -1 to 1.
    expected = torch.tensor([[(MOMENT_GAIN * 16 * FAINT * 4 / 19) ** 3, 0], [0, 0]]).tanh()
    torch.testing.assert_close(moved(width=width, rows=(4, 6)), expected)
    torch.testing.assert_close(moved(width=width, rows=(6, 4)), -expected)
    right = moved(width=width, rows=(4, 6), columns=(20, 20))
    torch.testing.assert_close(right, expected.flip(1))


def test_moments_do_not_tell_where_something_moved():
    torch.testing.assert_close(moved(rows=(4, 6)), moved(rows=(13, 15), columns=(8, 8)))
    torch.testing.assert_close(moved(columns=(3, 5)), moved(rows=(13, 13), columns=(1, 3)))
    assert moved(columns=(3, 5))[1, 0] > 0.5


def test_what_appears_or_blinks_out_has_not_moved():
    clip = torch.zeros(1, 3, 20, 28, 3)
    clip[0, 1, 15:18, 2:4] = 1
    torch.testing.assert_close(motion_moments(clip), torch.zeros(1, 2, 12), rtol=0, atol=1e-5)


def test_a_long_history_would_do_without_the_code_and_is_refused():
    with pytest.raises(ConfigError, match=r"must be 1 to 4 .* got 5"):
        LatentActionConfig(decoder=TransformerConfig(temporal_window=5))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"entropy_weight": -1.0}, r"lam\.entropy_weight must be 0 or more, got -1\.0"),
        ({"num_labels": -1}, r"lam\.num_labels must be 0 or more, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        LatentActionConfig(**change)


TERMS = {
    "entropy_weight": {},
    "consistency_weight": {},
    "smoothness_weight": {},
    "supervision_weight": {"num_labels": 1},
}


@pytest.mark.parametrize("name", TERMS)
def test_each_term_adds_to_the_loss_by_its_weight_and_teaches_the_encoder(name):
    batch = Batch(frames=frames(), actions=torch.zeros(3, 4, dtype=torch.int64))

    def build(weight):
        torch.manual_seed(0)
        shape = TransformerConfig(num_layers=1, dim=16, num_heads=1, head_dim=16, temporal_window=1)
        terms = {name: weight, **TERMS[name]} if weight else {}
        config = LatentActionConfig(encoder=shape, decoder=shape, patch_size=8, **terms)
        size = {"height": 20, "width": 28, "num_actions": 6, "show_tokens": torch.clone}
        generator = torch.Generator().manual_seed(0)
        return LatentActionModel(config, **size, generator=generator).eval()

    with torch.no_grad():
        losses = [build(weight)(batch)[0] for weight in (0.0, 1.0, 2.0)]
    added = losses[1] - losses[0]
    assert added > 0
    torch.testing.assert_close(losses[2] - losses[0], 2 * added, rtol=1e-3, atol=1e-6)
    plain, heavy = build(0.0), build(1e4)
    for lam in (plain, heavy):
        lam.train()
        lam.quantizer.eval()  # its codes stay where they are
        lam(batch)[0].backward()
    assert heavy.to_code.weight.grad.norm() > 10 * plain.to_code.weight.grad.norm()


def test_codes_can_be_named_from_what_tokens_show_alone(build_untrained_world):
    stack = build_untrained_world().stack
    clip = frames().float() / 255
    shown = stack.tokenizer.decode(stack.tokenizer.encode(clip))
    expected = stack.lam.infer(shown)
    assert not torch.equal(stack.lam.infer(clip), expected)
    stack.lam.config = replace(stack.lam.config, input="tokens")
    assert torch.equal(stack.lam.infer(clip), expected)
    with torch.autocast("cpu", torch.bfloat16):  # training in bf16 sees what inference will
        assert torch.equal(stack.show_tokens(clip), shown)
    # The next frame is still drawn from pixels.
    assert stack.lam.predict(clip[:, :-1], expected).shape == clip[:, :-1].shape


def test_tokens_that_look_back_are_no_input():
    tokenizer = TokenizerConfig(encoder=TransformerConfig(temporal_window=2))
    text = r"stack\.lam\.input may be tokens only where stack\.tokenizer looks at one frame"
    with pytest.raises(ConfigError, match=text):
        StackConfig(tokenizer=tokenizer, lam=LatentActionConfig(input="tokens"))
