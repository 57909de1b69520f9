import json
import re
import shutil

import imageio.v3 as iio
import pytest

from genie_gym.agents.policy import read_card
from genie_gym.cli import main

SHORT = [
    "--steps=32",
    "--num-envs=4",
    "algo_options.n_steps=8",
    "algo_options.batch_size=16",
    "network.feature_dim=8",
    "env.max_episode_steps=5",
    "env.num_maskgit_steps=1",
    "real_check.max_steps=20",
    "real_check.compared_steps=5",
    "real_check.episodes=1",
]


def run(*arguments):
    return main(["agent", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def trained(pipeline, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "ppo"
    assert run("train", "--world", pipeline.bundle, "--out", out, "--seed=7", *SHORT) == 0
    return out


def test_train_leaves_a_policy(trained):
    card = read_card(trained / "policy")
    assert (card.algo, card.seed, card.imagined_steps) == ("ppo", 7, 32)
    assert card.network.feature_dim == 8


def test_a_resumed_run_has_its_settings_and_says_what_came_of_it(trained, capsys):
    assert run("train", "--out", trained, "--resume") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"32 imagined steps, seed 7: policy in {trained / 'policy'}"
    assert re.fullmatch(r"real games: mean return -?\d+\.\d\d of \[-?\d+\.\d\]", second)


@pytest.mark.parametrize("env", ["real", "world"])
def test_evaluate_writes_all_figures(trained, tmp_path, capsys, env):
    out = tmp_path / "new" / "figures.json"
    flags = ["--env", env, "--episodes=2", "--seed=3", "--max-steps=8", "--out", out]
    assert run("evaluate", trained, *flags) == 0
    figures = json.loads(out.read_text())
    assert (figures["env"], figures["games"], figures["seed"]) == (env, 2, 3)
    assert figures["lengths"] == [8, 8] and figures["cut_at_the_limit"] == 2
    line = f"mean return {figures['mean_return']:.2f} (standard deviation"
    assert capsys.readouterr().out.startswith(line)


def test_the_demo_shows_the_policy_that_comes_with_a_world(trained, pipeline, tmp_path, capsys):
    world = shutil.copytree(pipeline.bundle, tmp_path / "world")
    for file in (trained / "policy").iterdir():
        shutil.copy(file, world)
    assert main(["demo", "--world", str(world), "--out", str(tmp_path), "--steps=5"]) == 0
    output = capsys.readouterr().out
    assert "shipped player: 0 points won, 0 lost, 1 episode(s)" in output
    assert "in the real game, right in the film: 0 points won, 0 lost" in output
    film = iio.imread(tmp_path / "demo.mp4")
    assert film.shape == (6, 4 * 64, 4 * (64 + 2 + 64), 3)

    command = ["demo", "--world", str(pipeline.bundle), "--out", str(tmp_path)]
    assert main([*command, "--policy=shipped"]) == 2
    assert "no policy" in capsys.readouterr().err


def test_what_is_wrong_is_one_line(trained, pipeline, tmp_path, capsys):
    world = ["--world", pipeline.bundle, "--out", tmp_path / "run"]
    for command, text in (
        (["train", *world, "--algo=pp"], "config.algo must be one of ['ppo', 'a2c', 'dqn', 'rec"),
        (["train", *world, "stepps=3"], "unknown key 'stepps'. Did you mean 'steps'?"),
        (["train", "--out", tmp_path, "env=3"], "env must be a mapping, got 3"),
        (["train", "--world=nowhere", "--out", tmp_path], "no world 'nowhere'"),
        (["evaluate", "nobody"], "no policy 'nobody'"),
        (
            ["evaluate", trained, "--env=world", "--sticky=0.25"],
            "sticky must be 0 with --env world",
        ),
        (["evaluate", trained, "--episodes=0"], "episodes must be at least 1, got 0"),
        (["evaluate", trained, "--max-steps=0"], "max_episode_steps must be at least 1, or None"),
        (
            ["evaluate", trained, "--env=world", "--max-steps=0"],
            "env.max_episode_steps must be at least 1, or None, got 0",
        ),
        (["evaluate", trained, "--world=pong"], "--world pong needs --env world"),
        (
            ["train", "--out", trained, "--resume", "--config=new.yaml"],
            "--config new.yaml does not count with --resume: the settings of this run",
        ),
    ):
        assert run(*command) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("genie-gym agent: ") and text in line
