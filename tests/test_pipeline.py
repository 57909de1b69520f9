import json
import shutil

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest
import yaml

import genie_gym  # noqa: F401  (registers the ids)
from genie_gym.cli import main
from genie_gym.data.hdf5 import Recording
from genie_gym.data.verify import find_faults
from genie_gym.models.bundle import read_card
from genie_gym.models.stack import STAGES


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    settings = ["--policy", "random", "--steps", "120", "--seed", "1"]
    assert main(["collect", "Pong", "--out", str(folder), *settings]) == 0
    return folder


def test_collect_records_the_steps_asked_for(pipeline):
    recording = Recording.open(pipeline.recording)
    assert find_faults(pipeline.recording) == []
    assert recording.num_frames == 2500 + recording.num_episodes
    assert recording.frame_shape == (64, 64, 3)
    assert "2500 steps" in pipeline.output


def test_train_leaves_every_stage_finished_with_its_log(pipeline):
    assert "finished stages" in pipeline.output and ", ".join(STAGES) in pipeline.output
    assert not list(pipeline.run.rglob("*.part*"))
    for stage in STAGES:
        folder = pipeline.run / stage
        assert (folder / "weights.safetensors").is_file()
        assert list(folder.glob("events.out.tfevents.*"))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        splits = {line["split"] for line in lines}
        assert splits == {"train", "validation"}
        assert np.isfinite([line["loss"] for line in lines]).all()


def test_training_lowers_the_loss_of_every_stage(pipeline):
    for stage in STAGES:
        lines = [json.loads(line) for line in (pipeline.run / stage / "metrics.jsonl").open()]
        losses = [line["loss"] for line in lines if line["split"] == "train"]
        assert losses[-1] < losses[0], stage


def test_export_writes_a_bundle_that_says_where_it_comes_from(pipeline):
    names = {path.name for path in pipeline.bundle.iterdir()}
    assert names == {"world.yaml", "weights.safetensors", "starts.safetensors"}
    card = yaml.safe_load((pipeline.bundle / "world.yaml").read_text())
    assert card["game"] == "Pong" and card["fps"] == 15
    assert card["action_meanings"][0] == "NOOP" and len(card["action_meanings"]) == 6
    assert card["parts"] == list(STAGES)
    assert card["provenance"]["recording"] == {
        "policy": "random",
        "seed": 0,
        "sticky": 0.0,
        "noop_max": 30,
    }


def test_the_card_says_what_the_action_map_was_told_and_how_often_it_is_right(pipeline):
    figures = read_card(pipeline.bundle)["provenance"]["action_map"]
    assert figures.keys() == {"num_labels", "accuracy", "commonest"}
    assert figures["num_labels"] == 200
    assert 0 <= figures["accuracy"] <= 1 and 0.25 <= figures["commonest"] <= 1


def test_info_prints_the_card_with_sizes(pipeline, capsys):
    assert main(["info", str(pipeline.bundle)]) == 0
    card = yaml.safe_load(capsys.readouterr().out)
    assert card["sizes"]["tokens_per_frame"] == 16
    assert card["sizes"]["start_contexts"] == 16
    assert set(card["sizes"]["parameters"]) == set(STAGES)
    assert card["sizes"]["parameters"].pop("action_map") == 4 + 6 * 4
    assert all(count > 1000 for count in card["sizes"]["parameters"].values())


def test_evaluate_writes_a_report(pipeline, held_out, tmp_path, capsys):
    sizes = ["--windows=8", "--horizon=2", "--num-maskgit-steps=1", "--device=cpu"]
    sizes += ["--set", "far_windows=0", "long_windows=0", "num_events=2", "forced_windows=0"]
    bundle = shutil.copytree(pipeline.bundle, tmp_path / "bundle")
    arguments = ["evaluate", str(bundle), "--data", str(held_out), "--update-card"]
    assert main([*arguments, "--out", str(tmp_path), *sizes]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "report.json") in printed
    assert "reconstruction MSE" in printed

    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    report = json.loads(text)
    assert {"data", "reconstruction", "prediction", "objects", "rewards", "bars"} <= set(report)
    assert report["data"]["frames"] == 121
    assert set(report["prediction"]["by_step"]) == {"1", "2"}
    bars = {row["figure"]: row["value"] for row in report["bars"]}
    figures = read_card(bundle)["figures"]
    assert figures["data"] == report["data"]
    assert {name: row["value"] for name, row in figures["bars"].items()} == bars
    assert not list(tmp_path.glob("*.part*"))


def test_the_world_is_a_gymnasium_environment(pipeline):
    env = gym.make("GenieWorld-Pong-v0", world=str(pipeline.bundle))
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    for _ in range(20):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs) and isinstance(reward, float)
        if terminated or truncated:
            env.reset()
    env.close()


def test_demo_writes_a_film_and_a_contact_sheet(pipeline, tmp_path, capsys):
    assert main(["demo", "--world", str(pipeline.bundle), "--out", str(tmp_path), "--steps=5"]) == 0
    assert "5 imagined steps" in capsys.readouterr().out
    film = iio.imread(tmp_path / "demo.mp4")
    assert 6 <= len(film) <= 11 and film.shape[-1] == 3
    assert film.std() > 1
    assert iio.imread(tmp_path / "demo.png").std() > 1
