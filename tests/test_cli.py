import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from genie_gym.cli import STAGE_NAMES, main
from genie_gym.data.hdf5 import Recording
from genie_gym.models.stack import STAGES

TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"
COMMANDS = ("demo", "collect", "data", "train", "export", "evaluate", "agent", "info")


def refused(arguments, capsys):
    """Run a command that must fail in the one way that user errors do; return its line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith(f"genie-gym {arguments[0]}: ")
    assert captured.out == ""
    return line


def train_on(data, out, *more):
    return ["train", "--config", TINY, "--data", data, "--out", out, "--device", "cpu", *more]


@pytest.fixture
def out(tmp_path):
    """Where a failing command would have written; it must leave nothing whole or half."""
    folder = tmp_path / "out"
    yield folder
    assert not folder.exists()


@pytest.fixture
def shard(pipeline, tmp_path):
    """Copy one file of a recording, to be damaged."""
    return shutil.copy(pipeline.recording / "shard-00000.h5", tmp_path / "shard-00000.h5")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (["Pnog", "--steps=9"], "unknown game 'Pnog'. Did you mean 'Pong'? There are "),
        (["Pong", "--steps=-5"], "steps must be at least 1, got -5"),
        (["Pong", "--steps=0"], "steps must be at least 1, got 0"),
        (["Pong", "--steps=9", "--num-envs=0"], "num_envs must be at least 1, got 0"),
        (["Pong", "--steps=9", "--shard-steps=0"], "shard_steps must be at least 1, got 0"),
        (
            ["Pong", "--steps=9", "--policy=radnom"],
            "unknown policy 'radnom'. Did you mean 'random'",
        ),
        (
            ["Alien", "--steps=9", "--policy=scripted"],
            "plays only Breakout, Freeway, Pong, got game 'Alien'",
        ),
        (["Pong", "--steps=9", "--min-events=0"], "min_events must be at least 1, got 0"),
        (["Pong", "--steps=9", "--policy=sb3:no.zip"], "sb3:no.zip: there is no such file"),
        (["Pong", "--steps=9", "--policy=human", "--num-envs=2"], "needs num_envs 1, got 2"),
        (["Pong", "--steps=9", "--env-module=os"], "env_module is for environments named gym:"),
        (["gym:None-v0", "--steps=9"], "gym:None-v0 cannot be recorded: it cannot be made"),
        (
            ["gym:CartPole-v1", "--steps=9", "--noop-max=3"],
            "noop_max is an option of the Atari emulator, and 'gym:CartPole-v1' has none",
        ),
        (["Pong", "--steps=9", "--sticky=2"], "sticky"),
        (["Pong", "--steps=9", "--frame-size=0"], "frame_size"),
    ],
)
def test_collect_refuses(changes, text, out, capsys):
    assert text in refused(["collect", *changes, "--out", out], capsys)


def test_collect_leaves_a_recording_that_is_there_alone(pipeline, capsys):
    manifest = (pipeline.recording / "manifest.json").read_bytes()
    line = refused(["collect", "Pong", "--steps=5", "--out", pipeline.recording], capsys)
    assert "already holds a recording of 2500 steps. Continue it with --resume" in line
    assert (pipeline.recording / "manifest.json").read_bytes() == manifest


def test_frames_are_recorded_in_the_consoles_own_size_if_asked_for(tmp_path, capsys):
    command = ["collect", "Pong", "--out", str(tmp_path), "--steps=12", "--frame-size=native"]
    assert main([*command, "--policy=random"]) == 0
    recording = Recording.open(tmp_path)
    assert recording.frame_shape == (210, 160, 3)
    assert json.loads(recording.attributes["env_kwargs"])["frame_size"] is None


def test_a_missing_recording_is_refused_with_the_command_that_makes_one(out, tmp_path, capsys):
    line = refused(train_on(tmp_path / "absent", out), capsys)
    assert "absent does not exist. Record one: genie-gym collect ALE/Pong-v5 --out" in line


def test_a_truncated_recording_is_refused(shard, out, capsys):
    os.truncate(shard, 5000)
    assert "It is truncated or no HDF5 file" in refused(train_on(shard, out), capsys)


def test_a_foreign_key_in_a_recording_is_refused(shard, out, capsys):
    with h5py.File(shard, "a") as file:
        file["extra"] = np.zeros(3)
    assert "has an unknown key 'extra'. Allowed: ['frames', " in refused(
        train_on(shard, out), capsys
    )


def test_frames_of_another_size_are_refused(pipeline, out, capsys):
    line = refused(train_on(pipeline.recording, out, "stack.height=84"), capsys)
    assert "frames of shape (64, 64, 3), but stack.height and stack.width make (84, 64, 3)" in line


def test_settings_may_stand_anywhere_in_the_line(pipeline, out, capsys):
    command, *rest = train_on(pipeline.recording, out, "stack.width=80")
    line = refused([command, "stack.height=84", *rest], capsys)
    assert "stack.height and stack.width make (84, 80, 3)" in line
    with pytest.raises(SystemExit):
        main([command, "stack.height=84", *map(str, rest), "--depth=3"])
    assert "unrecognized arguments: --depth=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("stack.tokenizer.patch_sise=8", "stack.tokenizer: unknown key 'patch_sise'. Did you mean"),
        ("sed=1", "config: unknown key 'sed'. Did you mean 'seed'?"),
        ("seed=x", "config.seed must be int, got 'x'"),
        ("seed", "an override is written key.key=value, got 'seed'"),
        ("seed={", "is not YAML"),
        ("training.lam.batch_size=0", "batch_size must be at least 1, got 0"),
        ("validation_share=2", "validation_share must lie between 0 and 1, got 2"),
        ("training.lam.precision=fp8", "precision must be one of ['no', 'bf16'], got 'fp8'"),
    ],
)
def test_train_refuses_a_setting(pipeline, out, capsys, override, text):
    assert text in refused(train_on(pipeline.recording, out, override), capsys)


def test_train_refuses_a_file_with_an_unknown_key(pipeline, out, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"validation_shre": 0.5}))
    arguments = ["train", "--config", config, "--data", pipeline.recording, "--out", out]
    line = refused(arguments, capsys)
    assert "config: unknown key 'validation_shre'. Did you mean 'validation_share'?" in line


def test_train_refuses_a_config_that_does_not_exist(pipeline, out, tmp_path, capsys):
    arguments = ["train", "--config", tmp_path / "x.yaml", "--data", pipeline.recording]
    assert "x.yaml does not exist" in refused([*arguments, "--out", out], capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["train", "evaluate", "demo"])
def test_a_gpu_that_is_not_there_is_refused(pipeline, out, capsys, command):
    arguments = {
        "train": train_on(pipeline.recording, out),
        "evaluate": ["evaluate", pipeline.bundle, "--data", pipeline.recording, "--out", out],
        "demo": ["demo", "--world", pipeline.bundle, "--out", out],
    }
    line = refused([*arguments[command], "--device", "cuda"], capsys)
    assert "device 'cuda' was asked for, but torch" in line and "--device cpu" in line


def test_an_unknown_device_is_refused(pipeline, out, capsys):
    line = refused([*train_on(pipeline.recording, out), "--device", "gpu"], capsys)
    assert "unknown device 'gpu'. Take cpu, cuda, cuda:N or auto" in line


@pytest.mark.parametrize("command", ["info", "evaluate", "demo"])
def test_a_world_that_is_not_there_is_refused_with_the_commands_that_train_one(
    pipeline, out, capsys, command
):
    arguments = {
        "info": ["info", "absent"],
        "evaluate": ["evaluate", "absent", "--data", pipeline.recording, "--out", out],
        "demo": ["demo", "--world", "absent", "--out", out],
    }
    line = refused(arguments[command], capsys)
    assert "no world 'absent'" in line and "genie-gym export" in line


@pytest.fixture
def bundle(pipeline, tmp_path):
    """Copy the bundle, to be damaged."""
    return shutil.copytree(pipeline.bundle, tmp_path / "bundle")


def test_a_bundle_without_weights_is_refused(bundle, capsys):
    (bundle / "weights.safetensors").unlink()
    assert "weights.safetensors is missing. Export the world again" in refused(
        ["info", bundle], capsys
    )


def test_a_bundle_with_truncated_weights_is_refused(bundle, out, capsys):
    file = bundle / "weights.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    line = refused(["demo", "--world", bundle, "--out", out], capsys)
    assert "weights.safetensors is damaged" in line


def test_weights_of_other_shapes_are_refused(bundle, out, capsys):
    weights = load_file(bundle / "weights.safetensors")
    name = "tokenizer.quantizer.codebook"
    weights[name] = weights[name][:5].contiguous()
    save_file(weights, bundle / "weights.safetensors")
    line = refused(["demo", "--world", bundle, "--out", out], capsys)
    assert f"{name} has shape (5, 16), but world.yaml beside it needs (128, 16)" in line


def test_a_player_that_does_not_exist_is_refused(pipeline, out, capsys):
    arguments = ["demo", "--world", pipeline.bundle, "--out", out, "--policy", "scripter"]
    assert "unknown policy 'scripter'. Did you mean 'scripted'?" in refused(arguments, capsys)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_demo_without_steps_is_refused(pipeline, out, capsys, steps):
    arguments = ["demo", "--world", pipeline.bundle, "--out", out, "--steps", steps]
    assert f"steps must be at least 1, got {steps}" in refused(arguments, capsys)


@pytest.mark.parametrize(("flag", "name"), [("--windows", "num_windows"), ("--horizon", "horizon")])
def test_an_evaluation_of_nothing_is_refused(pipeline, out, capsys, flag, name):
    arguments = ["evaluate", pipeline.bundle, "--data", pipeline.recording, "--out", out]
    line = refused([*arguments, flag, "-1"], capsys)
    assert f"{name} must be at least 1, got -1" in line


def test_an_evaluation_on_frames_of_another_size_is_refused(pipeline, out, tmp_path, capsys):
    small = ["--steps=20", "--frame-size=32", "--policy=random"]
    assert main(["collect", "Pong", "--out", str(tmp_path / "small"), *small]) == 0
    arguments = ["evaluate", pipeline.bundle, "--data", tmp_path / "small", "--out", out]
    line = refused(arguments, capsys)
    assert "holds frames of shape (32, 32, 3), but the world imagines (64, 64, 3)" in line


def test_an_unknown_size_of_an_evaluation_is_refused(pipeline, out, capsys):
    arguments = ["evaluate", pipeline.bundle, "--data", pipeline.recording, "--out", out]
    line = refused([*arguments, "--set", "far_window=3"], capsys)
    assert "unknown key 'far_window'. Did you mean 'far_windows'?" in line


def test_a_folder_without_a_run_is_not_exported(out, tmp_path, capsys):
    line = refused(["export", tmp_path, "--out", out], capsys)
    assert "holds no run (no config.yaml). Make one: genie-gym train" in line


def test_a_run_whose_recording_is_gone_is_not_exported(pipeline, out, tmp_path, capsys):
    arguments = ["export", pipeline.run, "--out", out, "--data", tmp_path / "moved"]
    assert "moved does not exist" in refused(arguments, capsys)


def test_a_run_whose_recording_states_no_rate_is_not_exported(pipeline, out, tmp_path, capsys):
    run = shutil.copytree(pipeline.run, tmp_path / "run")
    card = yaml.safe_load((run / "data.yaml").read_text())
    del card["attributes"]["fps"]
    (run / "data.yaml").write_text(yaml.safe_dump(card))
    line = refused(["export", run, "--out", out, "--data", pipeline.recording], capsys)
    assert "has no attributes ['fps'], and the card of a world states them. Add them" in line


@pytest.mark.parametrize("command", ["collect", "train", "export", "demo"])
def test_an_out_folder_that_cannot_be_made_is_one_line(pipeline, tmp_path, capsys, command):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    arguments = {
        "collect": ["collect", "Pong", "--steps=5", "--out", out],
        "train": train_on(pipeline.recording, out),
        "export": ["export", pipeline.run, "--out", out],
        "demo": ["demo", "--world", pipeline.bundle, "--steps=1", "--out", out],
    }
    assert "Not a directory" in refused(arguments[command], capsys)
    assert (tmp_path / "file").read_text() == "in the way"


def test_flags_and_assignments_override_the_file(pipeline, tmp_path, capsys):
    flags = ["--seed=5", "--max-steps=1", "--batch-size=2", "--gradient-accumulation-steps=2"]
    assignments = ["validation_share=0.5", "training.tokenizer.learning_rate=1e-4"]
    arguments = train_on(pipeline.recording, tmp_path, "--stage", "tokenizer", *flags)
    assert main([str(one) for one in [*arguments, "--save-every=7", *assignments]]) == 0
    assert "finished stages" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    stage = config["training"]["tokenizer"]
    assert (config["seed"], config["validation_share"]) == (5, 0.5)
    assert (stage["max_steps"], stage["batch_size"], stage["save_every"]) == (1, 2, 7)
    assert (stage["gradient_accumulation_steps"], stage["learning_rate"]) == (2, 1e-4)
    assert config["training"]["lam"]["max_steps"] == 30


def test_an_action_map_is_learned_on_a_finished_run_from_the_labels_asked_for(
    pipeline, tmp_path, capsys
):
    run = shutil.copytree(pipeline.run, tmp_path / "run", ignore=lambda *_: ["action_map"])
    arguments = train_on(pipeline.recording, run, "--stage", "action-map", "--labels")
    for count, text in (
        (0, r"action_map.num_labels must be at least 1, got 0"),
        (10**6, r"action_map.num_labels is 1000000, but the training episodes hold"),
    ):
        assert text in refused([*arguments, count], capsys)
    for count in (9, 20):  # the second one replaces the map of the first
        assert main([str(one) for one in [*arguments, count]]) == 0
        assert capsys.readouterr().out.rstrip().endswith("reward, action_map")
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["stack"]["action_map"]["num_labels"] == count
    before = (run / "action_map" / "weights.safetensors").read_bytes()
    assert "was trained with stack.action_map={'num_labels': 20}" in refused(
        [*arguments, 9, "--resume"], capsys
    )
    assert "stack.action_map.num_labels is 1000000" in refused([*arguments, 10**6], capsys)
    assert (run / "action_map" / "weights.safetensors").read_bytes() == before


def test_the_stages_of_the_command_are_those_of_the_stack():
    assert STAGE_NAMES == STAGES


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: genie-gym {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["paint"], ["collect", "Pong", "--steps", "many"]])
def test_what_the_parser_refuses_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
@pytest.mark.parametrize(
    "arguments",
    [
        ["demo"],
        ["collect", "Pong", "--steps=5"],
        ["train", "--data=d", "--out=o"],
        ["evaluate", "world", "--data=d"],
        ["data", "train-filter", "sorted", "--out=o"],
        ["agent", "train", "--out=o"],
        ["agent", "evaluate", "policy"],
    ],
)
def test_every_command_takes_seeds_that_can_be_stored(arguments, seed, capsys):
    with pytest.raises(SystemExit) as end:
        main([*arguments, f"--seed={seed}"])
    assert end.value.code == 2
    text = f"argument --seed: must be from 0 to 2**63 - 1, got {seed}"
    assert text in capsys.readouterr().err


def test_the_largest_seed_is_stored(tmp_path):
    command = ["collect", "Pong", "--steps=5", "--policy=random", "--out", str(tmp_path)]
    assert main([*command, f"--seed={2**63 - 1}"]) == 0
    assert Recording.open(tmp_path).attributes["seed"] == 2**63 - 1


def test_the_command_exits_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "genie_gym.cli", "collect", "Pnog", "--steps", "5"]
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "Pnog" in result.stderr
    assert result.stdout == "" and not list(tmp_path.iterdir())


def test_ctrl_c_exits_with_130_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "genie_gym.cli", "collect", "Pong", "--steps", "1000000"]
    process = subprocess.Popen(
        [*command, "--policy", "random", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        # A job started in the background may have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # The progress bar has begun: the recording is under way.
    seen = b""
    while b"step" not in seen:
        seen += os.read(process.stderr.fileno(), 4096) or pytest.fail(seen.decode())
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.decode().splitlines()[-1] == "genie-gym collect: interrupted"
    assert "Traceback" not in (seen + rest).decode()
    assert not list(tmp_path.glob(".*.part*"))
