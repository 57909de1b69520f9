"""The whole evaluation on another game than Pong: a tiny untrained world and a short recording."""

import json
from dataclasses import replace

import pytest
import torch

from collectors import record
from genie_gym.cli import main
from genie_gym.models.bundle import save_bundle
from genie_gym.models.stack import STAGES, GenieStack
from genie_gym.models.state import Starts


@pytest.fixture(scope="module")
def bundle(world, tmp_path_factory):
    config = replace(world.config, game="Breakout", num_actions=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack = GenieStack(config, generator=torch.Generator().manual_seed(0))
        starts = Starts(torch.randint(64, (2, 3, 16)), torch.randint(4, (2, 2)))
    folder = tmp_path_factory.mktemp("breakout")
    card = {"action_meanings": ["NOOP", "FIRE", "RIGHT", "LEFT"], "fps": 15}
    save_bundle(folder, stack=stack, starts=starts, parts=frozenset(STAGES), card=card)
    return folder


def test_a_breakout_world_is_judged_by_ball_and_paddle(bundle, tmp_path, capsys):
    play, out = tmp_path / "play", tmp_path / "report"
    record("Breakout", play, steps=100, seed=1, policy="scripted", progress=False)
    sizes = ["--windows=4", "--horizon=3", "--num-maskgit-steps=1", "--device=cpu", "--set"]
    sizes += ["far_windows=1", "far_horizon=5", "long_windows=1", "long_horizon=6", "num_events=2"]
    sizes += ["forced_windows=2", "num_frames=30"]
    assert main(["evaluate", str(bundle), "--data", str(play), "--out", str(out), *sizes]) == 0
    assert "ball within 2 px at step 1 " in capsys.readouterr().out

    report = json.loads((out / "report.json").read_text())
    assert report["reconstruction"]["frames_with_ball"] > 10
    assert 0 <= report["reconstruction"]["own_paddle_within_1px"] <= 1
    objects = report["objects"]
    assert list(objects["by_step"]) == ["1", "2", "3", "5"]
    first = objects["by_step"]["1"]
    assert first["scored"] == 4 and first["copy_own_paddle_within_2px"] is not None
    assert 0 <= objects["lost_or_doubled_per_100"] <= 100
    assert objects["opponent_paddle"]["reason"] == "Breakout has one paddle, the player's own"
    assert "known of Pong alone, not of Breakout" in objects["long"]["reason"]
    assert "this is Breakout at 64 x 64" in report["control"]["paddle_obeys"]["reason"]
    bars = {row["figure"]: row for row in report["bars"]}
    assert bars["ball lost or doubled per 100 steps"]["value"] is not None
    assert "Pong alone" in bars["frames of long rollouts that are still Pong"]["reason"]
    page = (out / "report.html").read_text()
    assert "Breakout: a learned world" in page and "one paddle" in page
