import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from collectors import record
from genie_gym.data.hdf5 import Recording
from genie_gym.errors import ConfigError, DataError, WorldError
from genie_gym.models.action_map import ActionMapConfig
from genie_gym.models.bundle import load_world
from genie_gym.models.reward import RewardConfig
from genie_gym.models.stack import STAGES, GenieStack
from genie_gym.training.config import StageConfig
from genie_gym.training.export import export
from genie_gym.training.run import RunFolder, run_training

CPU = torch.device("cpu")
SHORT = StageConfig(max_steps=2, batch_size=2, clip_length=4)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Record three short episodes: tokenizing them takes no time."""
    folder = tmp_path_factory.mktemp("short")
    record("Pong", folder, steps=120, max_episode_steps=40, policy="random", progress=False)
    return folder


def shorten(config):
    names = ("tokenizer", "lam", "dynamics", "reward")
    return replace(config, training=replace(config.training, **dict.fromkeys(names, SHORT)))


def test_an_existing_run_is_refused_without_resume(pipeline, config):
    before = (pipeline.run / "config.yaml").read_bytes()
    text = "tokenizer has been trained already. Go on with --resume, or take another --out"
    with pytest.raises(DataError, match=text):
        run_training(shorten(config), pipeline.recording, pipeline.run, device=CPU)
    assert (pipeline.run / "config.yaml").read_bytes() == before


def test_a_run_of_another_stack_is_refused_even_to_resume(pipeline, config):
    other = replace(config.stack.reward, action_dropout=0.4)
    other = replace(config, stack=replace(config.stack, reward=other))
    text = "was trained with stack.reward={.*'action_dropout': 0.1.*Use the old value, or take"
    with pytest.raises(DataError, match=text):
        run_training(other, pipeline.recording, pipeline.run, resume=True, device=CPU)


def test_a_part_that_was_not_begun_may_still_be_configured_anew(config, tmp_path):
    run = RunFolder(tmp_path)
    run.open(config, resume=False, stages=["tokenizer"])
    other = replace(config.stack.reward, action_dropout=0.4)
    other = replace(config, stack=replace(config.stack, reward=other))
    (tmp_path / "tokenizer").mkdir()
    run.open(other, resume=True, stages=STAGES)
    assert run.read_config() == other
    (tmp_path / "reward").mkdir()
    with pytest.raises(DataError, match=r"was trained with stack\.reward"):
        run.open(config, resume=True, stages=STAGES)


def test_a_run_from_before_a_setting_existed_had_its_default(config, tmp_path):
    run = RunFolder(tmp_path)
    run.open(config, resume=False, stages=["reward"])
    (tmp_path / "reward").mkdir()
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["stack"]["reward"].pop("action_dropout") == RewardConfig().action_dropout
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    run.open(config, resume=True, stages=["reward"])
    assert run.read_config() == config


def test_too_many_labels_are_refused_before_anything_is_trained(recording, config, tmp_path):
    text = r"stack\.action_map\.num_labels is 200, but the training episodes hold \d+ clips of 2"
    with pytest.raises(DataError, match=text):
        run_training(shorten(config), recording, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "needed"),
    [
        ("dynamics", ["tokenizer", "lam"]),
        ("reward", ["tokenizer", "lam", "dynamics"]),
        ("action_map", ["tokenizer", "lam"]),
    ],
)
def test_a_stage_that_needs_earlier_ones_names_them(pipeline, config, tmp_path, stage, needed):
    with pytest.raises(DataError) as error:
        run_training(shorten(config), pipeline.recording, tmp_path, stages=[stage], device=CPU)
    assert str(error.value) == (
        f"stage {stage!r} needs {needed} trained first in {tmp_path}. Run genie-gym train "
        "--stage tokenizer with the same --out"
    )
    assert not (tmp_path / stage).exists()


def test_stages_can_be_trained_one_by_one(recording, config, tmp_path):
    few = replace(config.stack, action_map=ActionMapConfig(num_labels=20))
    settings = {"config": replace(shorten(config), stack=few), "device": CPU}
    for count, stage in enumerate(STAGES, 1):
        run = run_training(data_paths=recording, out=tmp_path, stages=[stage], **settings)
        assert run.finished_stages() == list(STAGES[:count])


def test_one_by_one_or_in_one_go_the_weights_are_the_same(recording, config, tmp_path):
    stages = ["tokenizer", "lam"]
    settings = {"config": shorten(config), "data_paths": recording, "device": CPU}
    whole = run_training(out=tmp_path / "whole", stages=stages, **settings)
    for stage in stages:
        parts = run_training(out=tmp_path / "parts", stages=[stage], **settings)
    for stage in stages:
        assert whole.weights_file(stage).read_bytes() == parts.weights_file(stage).read_bytes()


def test_resuming_a_finished_run_changes_no_weights(recording, config, tmp_path):
    settings = {"stages": ["tokenizer"], "device": CPU}
    run = run_training(shorten(config), recording, tmp_path, **settings)
    before = run.weights_file("tokenizer").read_bytes()
    run_training(shorten(config), recording, tmp_path, resume=True, **settings)
    assert run.weights_file("tokenizer").read_bytes() == before


def test_a_run_folder_says_what_was_asked_for_and_from_which_recording(pipeline, config):
    assert RunFolder(pipeline.run).read_config() == config
    card = yaml.safe_load((pipeline.run / "data.yaml").read_text())
    assert card["paths"] == [str(pipeline.recording)]
    assert card["attributes"]["env_id"] == "ALE/Pong-v5"


def test_weights_of_other_shapes_are_refused(pipeline, config, tmp_path):
    run = RunFolder(tmp_path)
    run.weights_file("lam").parent.mkdir()
    run.weights_file("tokenizer").parent.mkdir()
    source = pipeline.run / "lam" / "weights.safetensors"
    shutil.copy(source, run.weights_file("tokenizer"))
    stack = GenieStack(config.stack, generator=torch.Generator())
    with pytest.raises(DataError, match=r"is damaged, or of another config: .* train this stage"):
        run.load(stack)
    run.weights_file("tokenizer").write_bytes(source.read_bytes()[:500])
    with pytest.raises(DataError, match="is damaged, or of another config"):
        run.load(stack)


def test_an_export_needs_the_parts_that_every_world_needs(pipeline, tmp_path):
    shutil.copytree(pipeline.run / "tokenizer", tmp_path / "run" / "tokenizer")
    shutil.copy(pipeline.run / "config.yaml", tmp_path / "run")
    with pytest.raises(WorldError, match=r"has no finished \['lam', 'dynamics'\]; a world needs"):
        export(tmp_path / "run", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_export_refuses_another_recording(pipeline, tmp_path):
    record("Pong", tmp_path / "other", steps=60, max_episode_steps=30, seed=9, progress=False)
    with pytest.raises(DataError, match=r"is not what .* was trained on"):
        export(pipeline.run, tmp_path / "bundle", tmp_path / "other")
    assert not (tmp_path / "bundle").exists()


def test_start_contexts_come_from_held_out_recordings_where_asked(pipeline, world, tmp_path):
    held_out = tmp_path / "held-out"
    record("Pong", held_out, steps=120, max_episode_steps=60, seed=9, progress=False)
    folder = export(pipeline.run, tmp_path / "out", start_paths=[held_out], num_starts=3)
    starts = load_world(folder).starts
    rows = Recording.open(held_out).load()
    assert starts.tokens.shape == (3, *world.starts.tokens.shape[1:])
    length = starts.actions.shape[1]
    for tokens, actions in zip(starts.tokens, starts.actions.numpy(), strict=True):
        places = [
            row
            for row in range(len(rows.actions) - length)
            if (rows.actions[row : row + length] == actions).all()
        ]
        clips = torch.from_numpy(np.stack([rows.frames[row : row + length + 1] for row in places]))
        played = torch.from_numpy(actions).expand(len(places), -1)
        ends = world.encode(clips, played).tokens
        assert (ends == tokens[-1]).all(1).any()


def test_start_contexts_from_a_recording_of_other_frames_are_refused(pipeline, tmp_path):
    large = {"frame_size": 84, "max_episode_steps": 30, "seed": 9, "progress": False}
    record("Pong", tmp_path / "large", steps=60, **large)
    with pytest.raises(ConfigError, match=r"holds frames of shape \(84, 84, 3\)"):
        export(pipeline.run, tmp_path / "bundle", start_paths=[tmp_path / "large"])
    assert not (tmp_path / "bundle").exists()


def test_start_contexts_are_calm_stretches_of_validation_episodes(pipeline, config, data, world):
    starts = world.starts
    assert len(starts) == config.num_starts
    assert starts.tokens.shape[1] == config.start_length
    assert starts.actions.shape == (config.num_starts, config.start_length - 1)
    length = starts.actions.shape[1]
    seen = {tuple(data.rows.actions[row : row + length]) for row in data.is_validation.nonzero()[0]}
    assert all(tuple(actions) in seen for actions in starts.actions.tolist())
