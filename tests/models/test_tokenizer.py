import pytest
import torch

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError
from genie_gym.models.tokenizer import TokenizerConfig, change_weights


def frames(batch_size=2, num_frames=9, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (batch_size, num_frames, 20, 28, 3), generator=generator)
    return pixels.to(torch.uint8) if dtype == torch.uint8 else pixels / 255


def test_encoding_frame_by_frame_equals_encoding_the_clip(untrained_world):
    tokenizer = untrained_world.stack.tokenizer
    clip = frames()
    cache = tokenizer.encoder.empty_cache(2, tokenizer.num_tokens)
    stepped = []
    for t in range(clip.shape[1]):
        tokens, cache = tokenizer.encode_step(clip[:, t], cache)
        stepped.append(tokens)
    assert torch.equal(torch.stack(stepped, 1), tokenizer.encode(clip))


def test_decoding_frame_by_frame_equals_decoding_the_clip(untrained_world):
    tokenizer = untrained_world.stack.tokenizer
    tokens = torch.randint(32, (2, 9, 12), generator=torch.Generator().manual_seed(1))
    cache = tokenizer.decoder.empty_cache(2, tokenizer.num_tokens)
    whole = tokenizer.decode(tokens)
    assert whole.shape == (2, 9, 20, 28, 3)
    for t in range(9):
        looked, same = tokenizer.decode_step(tokens[:, t], cache, is_kept=False)
        decoded, cache = tokenizer.decode_step(tokens[:, t], cache)
        assert same.num_frames.tolist() == [t, t]
        assert torch.equal(looked, decoded)
        assert (decoded - whole[:, t]).abs().max() < 1e-5


def test_a_later_frame_changes_no_earlier_token_or_picture(untrained_world):
    tokenizer = untrained_world.stack.tokenizer
    clip = frames()
    tokens = tokenizer.encode(clip)
    decoded = tokenizer.decode(tokens)
    clip[:, 5] = 1 - clip[:, 5]
    edited = tokenizer.encode(clip)
    assert torch.equal(edited[:, :5], tokens[:, :5])
    assert not torch.equal(edited[:, 5], tokens[:, 5])
    assert torch.equal(tokenizer.decode(edited)[:, :5], decoded[:, :5])


def test_pixels_are_weighted_where_a_thing_was_is_and_will_be():
    clip = torch.zeros(1, 4, 1, 5, 3)
    for t, column in enumerate([0, 0, 1, 1]):
        clip[0, t, 0, column] = 1
    weights = change_weights(clip, 10.0)[0, :, 0, :, 0]
    moved = [11, 11, 1, 1, 1]
    still = [1, 1, 1, 1, 1]
    assert weights.tolist() == [still, moved, moved, still]
    assert change_weights(clip[:, :1], 10.0).unique().tolist() == [1]


def test_every_parameter_learns(build_untrained_world):
    tokenizer = build_untrained_world().stack.tokenizer.train().requires_grad_(True)
    loss, _ = tokenizer(Batch(frames=frames(dtype=torch.uint8)))
    loss.backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"tokenizer\.patch_size must be at least 1, got 0"):
        TokenizerConfig(patch_size=0)
    with pytest.raises(ConfigError, match=r"tokenizer\.change_weight must be 0 or more, got -1"):
        TokenizerConfig(change_weight=-1.0)
