"""What a stage receives, from memory or from disk, and augmented or not."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from genie_gym.data.augment import AugmentConfig
from genie_gym.data.stored_frames import StoredFrames
from genie_gym.errors import ConfigError, DataError
from genie_gym.models.stack import GenieStack
from genie_gym.training.config import StageConfig
from genie_gym.training.data import TrainingData, Windows
from genie_gym.training.run import run_training
from genie_gym.training.stages import ClipStage
from genie_gym.training.tokens import tokenize

LENGTH = 4
FIELDS = ("frames", "actions", "rewards", "terminations")


@pytest.fixture(scope="module")
def disk_data(pipeline, config):
    return TrainingData(pipeline.recording, config.stack, validation_share=0.2, memory_gib=0.0)


@pytest.fixture(scope="module")
def stack(config):
    return GenieStack(config.stack, generator=torch.Generator().manual_seed(0)).eval()


def make_stage(data, stack, *, seed=0, **augment):
    config = StageConfig(batch_size=8, clip_length=LENGTH, augment=AugmentConfig(**augment))
    windows = Windows(data, LENGTH, augment=config.augment)
    return ClipStage("tokenizer", stack.tokenizer, windows, config, seed=seed)


def is_equal(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


def test_a_stage_receives_the_same_batches_from_disk_and_from_memory(data, disk_data, stack):
    assert isinstance(disk_data.rows.frames, StoredFrames)
    assert isinstance(data.rows.frames, np.ndarray)
    assert disk_data.fingerprint == data.fingerprint
    from_memory, from_disk = (make_stage(one, stack, max_shift=2) for one in (data, disk_data))
    for step in range(5):
        assert is_equal(from_memory.batch_at(step), from_disk.batch_at(step))
    assert from_memory.validate() == from_disk.validate()


def test_tokens_of_frames_on_disk_are_those_of_frames_in_memory(data, disk_data, stack, tmp_path):
    from_disk = tokenize(disk_data, stack.tokenizer, stack.lam, tmp_path / "disk")
    from_memory = tokenize(data, stack.tokenizer, stack.lam, tmp_path / "memory")
    np.testing.assert_array_equal(from_disk.tokens, from_memory.tokens)
    np.testing.assert_array_equal(from_disk.latent_actions, from_memory.latent_actions)


def run_tokenizer(config, recording, out, memory_gib):
    short = StageConfig(max_steps=2, batch_size=2, clip_length=4)
    training = replace(config.training, tokenizer=short)
    config = replace(config, training=training, memory_gib=memory_gib)
    return run_training(config, recording, out, stages=["tokenizer"], device=torch.device("cpu"))


def test_a_run_from_disk_ends_in_the_same_weights(pipeline, config, tmp_path):
    first, second = (
        run_tokenizer(config, pipeline.recording, tmp_path / str(gib), memory_gib=gib)
        for gib in (4.0, 0.0)
    )
    weights = [run.weights_file("tokenizer").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]


def test_a_run_reads_clips_from_disk_only_when_the_frames_exceed_its_memory(
    pipeline, config, tmp_path
):
    recording = tmp_path / "recording"
    shutil.copytree(pipeline.recording, recording)
    with h5py.File(recording / "shard-00000.h5") as file:
        chunk = file["frames"].id.get_chunk_info(0)
    content = bytearray((recording / "shard-00000.h5").read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 255
    (recording / "shard-00000.h5").write_bytes(content)
    # Whole shards are read through HDF5, clips are not: the damage is told in other words.
    for memory_gib, text in ((4.0, "cannot be read as HDF5"), (0.0, "the frames of rows 0 to 15")):
        with pytest.raises(DataError, match=text):
            run_tokenizer(config, recording, tmp_path / "run", memory_gib=memory_gib)


def test_a_stage_without_augmentation_receives_the_recorded_clips_bit_for_bit(data, stack):
    stage = make_stage(data, stack)
    rng = np.random.default_rng([0, 3])
    starts = rng.choice(stage.windows.training_starts, 8)
    rows = starts[:, None] + np.arange(LENGTH)
    batch = stage.batch_at(3)
    np.testing.assert_array_equal(batch.frames, data.rows.frames[rows])
    for name in ("actions", "rewards", "terminations"):
        recorded = getattr(data.rows, name)[rows[:, :-1]]
        np.testing.assert_array_equal(getattr(batch, name), recorded)


@pytest.mark.parametrize("augment", [{"max_shift": 3}, {"brightness": 0.5}, {"max_stride": 3}])
def test_augmented_training_is_repeatable_and_validation_stays_as_recorded(data, stack, augment):
    plain, first, again = (
        make_stage(data, stack),
        *(make_stage(data, stack, **augment) for _ in range(2)),
    )
    assert torch.equal(first.batch_at(1).frames, again.batch_at(1).frames)
    assert not torch.equal(first.batch_at(1).frames, plain.batch_at(1).frames)
    assert first.batch_at(1).frames.shape == plain.batch_at(1).frames.shape
    assert first.validate() == plain.validate()


def test_every_kth_frame_comes_from_one_training_episode(data, stack):
    windows = make_stage(data, stack, max_stride=5).windows
    span = windows.training_starts[:, None] + np.arange(5 * (LENGTH - 1) + 1)
    ids = data.rows.episode_ids[span]
    assert (ids == ids[:, :1]).all() and not data.is_validation[span].any()
    batch = windows.training_clips(windows.training_starts[:8], np.random.default_rng(0))
    assert batch.frames.shape[1] == LENGTH
    assert batch.actions is None and batch.rewards is None and batch.terminations is None


def test_a_mirror_that_the_recorded_game_does_not_allow_is_refused(data):
    with pytest.raises(ConfigError, match="horizontal_flip must be false for Pong"):
        Windows(data, LENGTH, augment=AugmentConfig(horizontal_flip=True))
