import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from collectors import record
from genie_gym.data.batch import to_float
from genie_gym.errors import ConfigError, DataError
from genie_gym.models.latent_action import LatentActionModel
from genie_gym.models.stack import GenieStack
from genie_gym.models.tokenizer import Tokenizer
from genie_gym.training.data import TokenRows, TrainingData, Windows
from genie_gym.training.tokens import CHUNK, encode_patches, looks_at_patches_alone, tokenize


@pytest.fixture(scope="module")
def stack(config):
    torch.manual_seed(0)
    return GenieStack(config.stack, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def other_data(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    settings = {"steps": 60, "max_episode_steps": 30, "policy": "random", "progress": False}
    record("Pong", folder, seed=7, **settings)
    return TrainingData(folder, config.stack, validation_share=0.5)


def doctor(cache):
    """Change a cache's tokens, so that what is read from it shows."""
    with safe_open(cache, framework="numpy") as file:
        metadata = file.metadata()
        tokens, latents = file.get_tensor("tokens"), file.get_tensor("latent_actions")
    save_file({"tokens": tokens * 0 + 99, "latent_actions": latents}, cache, metadata=metadata)


def test_whole_episodes_are_kept_for_validation(data):
    ids = data.rows.episode_ids
    kept = set(ids[data.is_validation])
    assert kept and kept < set(ids)
    np.testing.assert_array_equal(data.is_validation, np.isin(ids, list(kept)))


def test_training_clips_and_validation_clips_share_no_row(data):
    windows = Windows(data, 6)
    for name, is_validation in (("training_starts", False), ("validation_starts", True)):
        rows = getattr(windows, name)[:, None] + np.arange(6)
        assert (data.is_validation[rows] == is_validation).all()
        assert (data.rows.episode_ids[rows] == data.rows.episode_ids[rows[:, :1]]).all()


def test_a_clip_holds_the_rows_it_names(data):
    windows = Windows(data, 3)
    start = windows.training_starts[11]
    clip = windows.clips(np.array([start]))
    np.testing.assert_array_equal(clip.frames[0], data.rows.frames[start : start + 3])
    np.testing.assert_array_equal(clip.actions[0], data.rows.actions[start : start + 2])
    np.testing.assert_array_equal(clip.rewards[0], data.rows.rewards[start : start + 2])
    assert clip.tokens is None and clip.latent_actions is None


def test_a_clip_of_tokens_holds_no_frames(data):
    count = len(data.rows.frames)
    tokens = np.arange(count * 2, dtype=np.int32).reshape(count, 2)
    windows = Windows(data, 3, TokenRows(tokens, np.arange(count, dtype=np.int32)))
    start = int(windows.training_starts[5])
    clip = windows.clips(np.array([start]))
    assert clip.frames is None
    assert clip.tokens[0, :, 0].tolist() == [2 * start, 2 * start + 2, 2 * start + 4]
    assert clip.latent_actions[0].tolist() == [start, start + 1]


def test_several_recordings_are_one_after_the_other(config, data, pipeline, other_data):
    both = TrainingData([pipeline.recording, *other_data.paths], config.stack, validation_share=0.2)
    for column in ("frames", "actions", "rewards", "terminations"):
        parts = [getattr(one.rows, column) for one in (data, other_data)]
        np.testing.assert_array_equal(getattr(both.rows, column), np.concatenate(parts))
    num_episodes = data.recording.num_episodes + other_data.recording.num_episodes
    assert np.unique(both.rows.episode_ids).tolist() == list(range(num_episodes))
    assert {data.fingerprint, other_data.fingerprint}.isdisjoint({both.fingerprint})


def test_a_clip_longer_than_every_episode_is_refused(data):
    with pytest.raises(DataError, match="windows of 9999 frames do not fit"):
        Windows(data, 9999)


def test_a_recording_of_one_episode_is_refused(config, tmp_path):
    record("Pong", tmp_path, steps=20, policy="random", progress=False)
    text = r"holds 1 episode\(s\); training needs at least 2, .* Record more steps"
    with pytest.raises(DataError, match=text):
        TrainingData(tmp_path, config.stack, validation_share=0.1)


def test_frames_of_another_size_are_refused(config, pipeline):
    text = r"frames of shape \(64, 64, 3\), but stack.height and stack.width make \(84, 64, 3\)"
    with pytest.raises(ConfigError, match=text):
        TrainingData(pipeline.recording, replace(config.stack, height=84), validation_share=0.2)


def test_another_number_of_actions_is_refused(config, pipeline):
    text = "was recorded with 6 actions, but stack.num_actions is 4. Set it to 6"
    with pytest.raises(ConfigError, match=text):
        TrainingData(pipeline.recording, replace(config.stack, num_actions=4), validation_share=0.2)


def test_a_recording_that_does_not_name_its_game_is_refused(config, pipeline, tmp_path):
    shard = shutil.copy(pipeline.recording / "shard-00000.h5", tmp_path)
    with h5py.File(shard, "r+") as file:
        del file.attrs["env_id"]
    text = r"shard-00000.h5 has no attribute 'env_id', which .* such as 'ALE/Pong-v5', or record"
    with pytest.raises(DataError, match=text):
        TrainingData(tmp_path, config.stack, validation_share=0.2)


@pytest.fixture(scope="module")
def token_rows(data, stack, tmp_path_factory):
    return tokenize(data, stack.tokenizer, stack.lam, tmp_path_factory.mktemp("tokens") / "cache")


def test_tokens_are_those_of_whole_episodes_although_they_are_made_in_chunks(
    data, stack, token_rows
):
    rows = token_rows
    episode = data.recording.episodes[0]
    assert episode.length > CHUNK
    part = slice(episode.start, episode.start + episode.length)
    frames = to_float(torch.from_numpy(data.rows.frames[part]))[None]
    with torch.inference_mode():
        tokens = stack.tokenizer.encode(frames)[0].numpy()
        latents = stack.lam.infer(frames)[0].numpy()
    # Rounding may tip a token that lies between two codes.
    assert (rows.tokens[part] == tokens).mean() > 0.999
    assert (rows.latent_actions[part][:-1] == latents).mean() > 0.999


@pytest.mark.parametrize("patch_size", [8, 20])
def test_patches_encoded_once_have_the_tokens_of_whole_frames(
    data, config, patch_size, monkeypatch
):
    tokenizer = config.stack.tokenizer
    alone = replace(tokenizer.encoder, is_spatial=False, temporal_window=0)
    generator = torch.Generator().manual_seed(0)
    module = Tokenizer(
        replace(tokenizer, encoder=alone, patch_size=patch_size),
        height=64,
        width=64,
        generator=generator,
    ).eval()
    assert looks_at_patches_alone(module)
    monkeypatch.setattr("genie_gym.training.tokens.MANY", 100)
    tokens = encode_patches(data, module)
    frames = to_float(torch.from_numpy(np.asarray(data.rows.frames)))[:, None]
    with torch.inference_mode():
        expected = torch.cat([module.encode(part)[:, 0] for part in frames.split(CHUNK)])
    # Rounding may tip a token that lies between two codes.
    assert (tokens == expected.numpy()).mean() > 0.999


@pytest.mark.parametrize("is_spatial", [False, True])
def test_models_in_training_keep_their_codes_and_their_mode(
    other_data, config, tmp_path, is_spatial
):
    encoder = replace(config.stack.tokenizer.encoder, is_spatial=is_spatial, temporal_window=0)
    tokenizer = replace(config.stack.tokenizer, encoder=encoder, decoder=encoder)
    lam = replace(config.stack.lam, input="tokens")
    changed = replace(config.stack, tokenizer=tokenizer, lam=lam)
    stack = GenieStack(changed, generator=torch.Generator().manual_seed(0)).train()
    before = {name: weight.clone() for name, weight in stack.state_dict().items()}
    tokenize(other_data, stack.tokenizer, stack.lam, tmp_path / "cache")
    for name, weight in stack.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert stack.tokenizer.training and stack.lam.training


def test_patches_that_see_others_are_not_encoded_alone(stack):
    assert not looks_at_patches_alone(stack.tokenizer)


def test_the_last_row_of_every_episode_has_no_latent_action(data, token_rows):
    is_last = np.diff(data.rows.episode_ids, append=-1) != 0
    np.testing.assert_array_equal(token_rows.latent_actions == -1, is_last)


def test_a_cache_is_read_when_it_belongs_to_the_data_and_the_models(other_data, stack, tmp_path):
    cache = tmp_path / "cache"
    first = tokenize(other_data, stack.tokenizer, stack.lam, cache)
    doctor(cache)
    again = tokenize(other_data, stack.tokenizer, stack.lam, cache)
    assert (again.tokens == 99).all()
    np.testing.assert_array_equal(again.latent_actions, first.latent_actions)


def test_a_cache_of_another_recording_is_made_anew(data, other_data, stack, tmp_path):
    cache = tmp_path / "cache"
    tokenize(other_data, stack.tokenizer, stack.lam, cache)
    assert len(tokenize(data, stack.tokenizer, stack.lam, cache).tokens) == len(data.rows.frames)


@pytest.mark.parametrize("part", ["tokenizer", "lam"])
def test_a_cache_of_other_models_is_made_anew(other_data, stack, config, tmp_path, part):
    cache = tmp_path / "cache"
    tokenize(other_data, stack.tokenizer, stack.lam, cache)
    doctor(cache)
    models = {"tokenizer": stack.tokenizer, "lam": stack.lam}
    kind = {"tokenizer": Tokenizer, "lam": LatentActionModel}[part]
    size = {"height": 64, "width": 64, "generator": torch.Generator()}
    size |= {"num_actions": 6, "show_tokens": torch.clone} if part == "lam" else {}
    models[part] = kind(getattr(config.stack, part), **size)
    again = tokenize(other_data, models["tokenizer"], models["lam"], cache)
    assert not (again.tokens == 99).all()


def test_a_truncated_cache_is_made_anew(other_data, stack, tmp_path):
    cache = tmp_path / "cache"
    first = tokenize(other_data, stack.tokenizer, stack.lam, cache)
    cache.write_bytes(cache.read_bytes()[:-100])
    again = tokenize(other_data, stack.tokenizer, stack.lam, cache)
    np.testing.assert_array_equal(again.tokens, first.tokens)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
