import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genie_gym.models.bundle import load_world

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def run(name, *arguments, folder):
    """Run an example as a user does, from another folder; return what it prints."""
    path = next(path for path in EXAMPLES if path.name == name)
    result = subprocess.run(
        [sys.executable, str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def number(text, output):
    """Return the number that follows a text."""
    return float(re.search(rf"{text}:? (-?[\d.]+)", output).group(1))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert f"python examples/{path.name}" in text.split('"""')[1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_run_by_a_test(path):
    assert f'run("{path.name}"' in Path(__file__).read_text()


def test_collect_pong_records(tmp_path):
    output = run("collect_pong.py", tmp_path / "data", folder=tmp_path)
    assert number("actions taken", output) == 500
    assert 0 < number(r"frames \(501, 64, 64, 3\),", output) < 64 * 64 * 3
    assert (tmp_path / "data" / "manifest.json").is_file()


def test_train_tiny_world_trains_and_exports(tmp_path):
    short = [f"training.{stage}.max_steps=2" for stage in ("tokenizer", "lam")]
    short += [f"training.{stage}.max_steps=1" for stage in ("dynamics", "reward")]
    output = run("train_tiny_world.py", tmp_path / "out", *short, folder=tmp_path)
    assert 0 < number("tokenizer validation mse", output) < 1
    world = load_world(tmp_path / "out" / "world")
    assert world.num_actions == 6 and len(world.starts) == 16


def test_play_in_the_world_plays(pipeline, tmp_path):
    output = run("play_in_the_world.py", pipeline.bundle, folder=tmp_path)
    assert abs(number("total reward", output)) <= 100
    assert number("steps per second", output) > 0


def test_plan_with_cem_plays_the_real_game(pipeline, tmp_path):
    output = run("plan_with_cem.py", pipeline.bundle, folder=tmp_path)
    assert abs(number("total reward", output)) <= 21
    assert number("seconds per decision", output) > 0


def test_train_ppo_in_world_trains(pipeline, tmp_path):
    output = run("train_ppo_in_world.py", pipeline.bundle, 512, folder=tmp_path)
    assert number("imagined steps", output) == 512
    assert abs(number("mean imagined return", output)) <= 50


def test_transfer_to_real_plays_the_real_game(pipeline, tmp_path):
    short = ["steps=64", "num_envs=2", "algo_options.n_steps=8", "algo_options.batch_size=16"]
    output = run("transfer_to_real.py", pipeline.bundle, *short, folder=tmp_path)
    assert number("imagined steps", output) == 64
    assert -21 <= number("points in 300 real steps", output) <= 21


def test_record_video_writes_a_film(pipeline, tmp_path):
    output = run("record_video.py", tmp_path / "videos", pipeline.bundle, folder=tmp_path)
    assert number("steps", output) == 100
    assert (tmp_path / "videos" / "rl-video-episode-0.mp4").is_file()
