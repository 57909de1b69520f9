import json
import re

import pytest

from genie_gym.cli import main
from genie_gym.envs.replay import world_hash
from genie_gym.evaluation import plan_games
from genie_gym.models.bundle import load_world, read_card, save_bundle
from genie_gym.models.world import World


def run(*arguments):
    return main(["plan", *(str(argument) for argument in arguments)])


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith("genie-gym plan: ") and "Traceback" not in captured.err
    return line


SMALL = ("--horizon=3", "--num-samples=8", "--num-iterations=1", "--device=cpu")
LINE = r"episode 0: return -?\d+ \(\d+ won, \d+ lost\), 4 decisions, \d+\.\d{3} s each, not played"


@pytest.mark.parametrize("planner", ["cem", "mppi", "random", "gumbel", "exhaustive"])
def test_every_planner_plays_the_real_game_with_its_oracle(planner, pipeline, capsys):
    flags = ("--oracle", "--planner", planner, "--max-decisions=4", "--set", "actions=[0,2,3]")
    assert run("--world", pipeline.bundle, *SMALL, *flags) == 0
    assert re.search(LINE, capsys.readouterr().out)


@pytest.mark.parametrize("env", ["real", "world"])
def test_the_world_serves_as_model_wherever_it_plays(env, pipeline, capsys, tmp_path):
    out = tmp_path / "deep" / "plan.json"
    flags = ("--env", env, "--max-decisions=4", "--seed=3", "--out", out)
    assert run("--world", pipeline.bundle, *SMALL, *flags) == 0
    printed = capsys.readouterr().out
    assert re.search(LINE, printed) and f"wrote {out}" in printed
    results = json.loads(out.read_text())
    [game] = results["games"]
    assert game["num_decisions"] == 4 and game["seed"] == 3 and not game["is_over"]
    assert game["num_rejected"] == 0 and game["seconds_per_decision"] > 0
    assert results["settings"]["planner_config"]["horizon"] == 3
    assert results["settings"]["env"] == env
    assert results["world_hash"] == world_hash(load_world(pipeline.bundle))
    assert [path.name for path in out.parent.iterdir()] == ["plan.json"]


def test_a_game_is_the_same_whatever_was_played_before_it(pipeline, tmp_path):
    games = {}
    for name, flags in {"both": ("--episodes=2", "--seed=4"), "second": ("--seed=5",)}.items():
        out = tmp_path / name
        flags = (*flags, "--env=world", "--max-steps=3", "--out", out)
        assert run("--world", pipeline.bundle, *SMALL, *flags) == 0
        games[name] = json.loads(out.read_text())["games"]
        del games[name][-1]["seconds_per_decision"]
    assert len(games["both"]) == 2 and games["both"][1] == games["second"][0]
    # Cut at the limit of steps, it has not been played to its end.
    assert games["both"][1]["num_decisions"] == 3 and not games["both"][1]["is_over"]


def test_a_run_stops_at_its_last_decision_whatever_games_are_left(pipeline, tmp_path):
    out = tmp_path / "plan.json"
    flags = ("--env=world", "--max-decisions=3", "--episodes=2", "--out", out)
    assert run("--world", pipeline.bundle, *SMALL, *flags) == 0
    games = json.loads(out.read_text())["games"]
    assert [game["num_decisions"] for game in games] == [3]


def test_a_seed_plays_the_same_game_twice(pipeline, tmp_path):
    scores = []
    for name in ("a", "b"):
        out = tmp_path / name
        flags = ("--env=real", "--max-decisions=3", "--seed=1", "--out", out)
        assert run("--world", pipeline.bundle, *SMALL, *flags) == 0
        game = json.loads(out.read_text())["games"][0]
        scores.append({key: game[key] for key in game if key != "seconds_per_decision"})
    assert scores[0] == scores[1]


def untimed(out):
    content = json.loads(out.read_text())
    for game in content["games"]:
        del game["seconds_per_decision"]
    return content


@pytest.mark.parametrize("limit", [(), ("--max-decisions=7",)])
def test_a_resumed_run_brings_what_an_unbroken_one_does(limit, pipeline, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    flags = ("--world", pipeline.bundle, *SMALL, "--env=world", "--episodes=3", "--max-steps=3")
    flags = (*flags, "--seed=4", *limit, "--resume", "--out")
    assert run(*flags, whole) == 0

    seeds, play_one = [], plan_games._play_one

    def breaking_off(env, agent, seed, *more):
        seeds.append(seed)
        if seeds == [4, 5]:
            env.step(agent.predict(env.reset(seed=seed)[0])[0])
            raise KeyboardInterrupt
        return play_one(env, agent, seed, *more)

    monkeypatch.setattr(plan_games, "_play_one", breaking_off)
    assert run(*flags, broken) == 130
    assert len(untimed(broken)["games"]) == 1
    assert run(*flags, broken) == 0
    assert seeds == [4, 5, 5, 6]
    assert untimed(broken) == untimed(whole)
    assert run(*flags, broken) == 0  # all is played
    assert seeds == [4, 5, 5, 6]


def test_what_was_played_otherwise_is_not_resumed(pipeline, tmp_path, capsys):
    out = tmp_path / "plan.json"
    flags = ("--world", pipeline.bundle, *SMALL, "--env=world", "--max-decisions=1")
    assert run(*flags, "--out", out) == 0
    before = out.read_text()
    other = ("--seed=1", "--set", "discount=0.5", "--resume", "--out", out)
    line = refused(capsys, *flags, *other)
    assert "settings.planner_config.discount was 0.99 and is 0.5; settings.seed was 0" in line
    assert "Resume with the same settings and world, or take another --out" in line
    out.write_text(before.replace('"world_hash": "', '"world_hash": "0'))
    assert "world_hash was '0" in refused(capsys, *flags, "--resume", "--out", out)
    out.write_text(before[:50])
    assert "is no record of a planner's games" in refused(capsys, *flags, "--resume", "--out", out)
    out.write_text(before)
    assert run(*flags, "--out", out) == 0  # without --resume it is played anew


@pytest.mark.parametrize("env", ["real", "world"])
def test_fewer_refinement_steps_are_taken_while_planning_alone(env, pipeline, monkeypatch):
    asked = []
    imagine = World.imagine

    def listening(self, state, actions, generator=None, **options):
        asked.append((generator is None, options["num_maskgit_steps"]))
        return imagine(self, state, actions, generator, **options)

    monkeypatch.setattr(World, "imagine", listening)
    flags = (f"--env={env}", "--max-decisions=2", "--num-maskgit-steps=1")
    assert run("--world", pipeline.bundle, *SMALL, *flags) == 0
    # Planning draws nothing; the imagined game that is played does.
    assert {steps for is_plan, steps in asked if is_plan} == {1}
    assert {steps for is_plan, steps in asked if not is_plan} == (
        {None} if env == "world" else set()
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--episodes=0"], "--episodes must be at least 1, got 0"),
        (["--max-decisions=0"], "--max-decisions must be at least 1, got 0"),
        (["--max-steps=0"], "--max-steps must be at least 1, got 0"),
        (["--resume"], "--resume keeps the games that are finished in --out: name that file"),
        (["--num-maskgit-steps=0"], "--num-maskgit-steps must be at least 1, got 0"),
        (["--oracle", "--num-maskgit-steps=1"], "and --oracle imagines nothing. Leave one of them"),
        (["--oracle", "--policy=pong"], "--policy is for planning in a world, and --oracle"),
        (["--policy=nowhere"], "no policy 'nowhere': no policy.json in"),
        (["--oracle", "--env=world"], "it needs --env real, not world"),
        (["--horizon=0"], "horizon must be at least 1, got 0"),
        (["--budget-frames=0"], "budget_frames must hold at least one plan of horizon=12 steps"),
        (["--budget-ms=0"], "budget_ms must be a finite number above 0, got 0.0"),
        (["--set", "num_elite=3"], "cem: unknown key 'num_elite'. Did you mean 'num_elites'?"),
        (["--oracle", "--set", "actions=[9]"], "some of the model's 6, in [0, 6), got [9]"),
        (["--sticky=2"], "sticky must be a probability in [0, 1], got 2.0"),
    ],
)
def test_a_setting_is_refused_in_one_line(flags, text, pipeline, capsys):
    assert text in refused(capsys, "--world", pipeline.bundle, "--device=cpu", *flags)


def test_a_world_without_rewards_is_refused_with_the_cure(pipeline, capsys, tmp_path):
    world = load_world(pipeline.bundle)
    card = read_card(pipeline.bundle)
    rest = {key: card[key] for key in card if key not in ("bundle_version", "parts", "config")}
    parts = world.parts - {"reward"}
    save_bundle(tmp_path, stack=world.stack, starts=world.starts, parts=parts, card=rest)
    line = refused(capsys, "--world", tmp_path, *SMALL)
    assert "no trained 'reward' part" in line and "genie-gym train --stage reward" in line
