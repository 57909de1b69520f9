import json
import subprocess
import sys

import h5py
import imageio.v2 as imageio
import numpy as np
import pytest

from genie_gym.cli import main
from genie_gym.data.hdf5 import Recording
from genie_gym.models.clip_filter import load_filter


@pytest.fixture
def video(tmp_path):
    """Hold 40 frames at 10 per second, the first 20 of noise and the last 20 black."""
    frames = np.random.default_rng(0).integers(256, size=(40, 32, 32, 3), dtype=np.uint8)
    frames[20:] = 0
    imageio.mimwrite(tmp_path / "video.mp4", frames, fps=10)
    return tmp_path / "video.mp4"


def run(*arguments):
    return main(["data", *(str(argument) for argument in arguments)])


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith("genie-gym data: ") and "Traceback" not in captured.err
    assert captured.out == ""
    return line


def test_import_makes_a_recording_and_says_what_it_left_out(video, tmp_path, capsys):
    flags = ["--fps=5", "--size=48x24", "--clip-length=10", "--min-quality=0.5"]
    assert run("import", video, "--out", tmp_path / "out", *flags) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"1 clips, 10 frames in {tmp_path / 'out'}",
        "1 clips below quality 0.5 left out: 1 frozen",
    ]
    assert Recording.open(tmp_path / "out").frame_shape == (24, 48, 3)


def test_size_may_be_one_side(video, tmp_path):
    assert run("import", video, "--out", tmp_path / "out", "--size=16") == 0
    assert Recording.open(tmp_path / "out").frame_shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--size=160*90", "size must be WIDTHxHEIGHT or one side, as 160x90 or 64, got '160*90'"),
        ("--size=0", "size must be at least 8x8 pixels, got 0x0"),
        ("--fps=-1", "fps must lie in [0.001, 1000], got -1.0"),
        ("--clip-length=0", "clip_length must be at least 2, got 0"),
        ("--min-quality=2", "min_quality must lie in [0, 1], got 2.0"),
    ],
)
def test_import_refuses_a_setting(video, tmp_path, capsys, flag, text):
    assert text in refused(capsys, "import", video, "--out", tmp_path / "out", flag)
    assert not (tmp_path / "out").exists()


def test_a_filter_drops_what_the_cheap_scores_let_pass(
    unseen_videos, trained_filter, tmp_path, capsys
):
    flags = ["--size=32", "--min-quality=0.5"]
    assert run("import", *unseen_videos, "--out", tmp_path / "cheap", *flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2 clips, 32 frames in {tmp_path / 'cheap'}",
        "1 clips below quality 0.5 left out: 1 frozen",
    ]
    flags += ["--filter", trained_filter.path]
    assert run("import", *unseen_videos, "--out", tmp_path / "filtered", *flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 clips, 16 frames in {tmp_path / 'filtered'}",
        "2 clips below quality 0.5 left out: 1 filter, 1 frozen",
    ]
    manifest = json.loads((tmp_path / "filtered" / "manifest.json").read_text())
    assert manifest["settings"]["filter"] == str(trained_filter.path)


def test_quality_is_the_smaller_of_the_cheap_score_and_the_probability(
    unseen_videos, trained_filter, tmp_path
):
    flags = ["--size=32", "--filter", trained_filter.path]
    assert run("import", *unseen_videos, "--out", tmp_path / "out", *flags) == 0
    with h5py.File(tmp_path / "out" / "shard-00000.h5") as file:
        about = [json.loads(file["episode_ids"].attrs[str(index)]) for index in range(3)]
        frames = file["frames"][:16]
    probability = load_filter(trained_filter.path).score(frames)
    assert probability > 0.5
    assert about[0]["quality"] == pytest.approx(probability)
    assert [clip["frozen"] for clip in about] == [0, 0, 1]
    good, noisy, still = (clip["quality"] for clip in about)
    assert good > 0.5 > noisy and still == 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["--filter=nowhere"],
            "nowhere holds no filter (no filter.yaml). Train one: genie-gym data",
        ),
        (["--filter", "FILTER", "--size=16"], "the filter judges frames of 32x32 pixels or more"),
    ],
)
def test_import_refuses_a_filter(video, trained_filter, tmp_path, capsys, flags, text):
    flags = [trained_filter.path if flag == "FILTER" else flag for flag in flags]
    assert text in refused(capsys, "import", video, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_train_filter_refuses_a_folder_that_is_not_sorted(tmp_path, capsys):
    line = refused(capsys, "train-filter", tmp_path, "--out", tmp_path / "filter")
    assert f"{tmp_path / 'good'} is no folder. Put videos worth learning from into good/" in line
    assert list(tmp_path.iterdir()) == []


def test_a_text_file_is_no_video(tmp_path):
    (tmp_path / "notes.mp4").write_text("hello")
    command = [sys.executable, "-m", "genie_gym.cli", "data", "import", tmp_path / "notes.mp4"]
    result = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("genie-gym data: ") and "notes.mp4 cannot be decoded as video" in line
    assert [path.name for path in tmp_path.iterdir()] == ["notes.mp4"]


@pytest.mark.parametrize("out", ["./pong-v0", "pong/random-v0"])
def test_export_writes_a_minari_dataset_and_says_how_to_open_it(tmp_path, capsys, monkeypatch, out):
    pytest.importorskip("minari", reason="minari is not installed: genie-gym[minari]")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MINARI_DATASETS_PATH", "my sets")
    recording = tmp_path / "recording"
    assert main(["collect", "Pong", "--out", str(recording), "--steps=20", "--policy=random"]) == 0
    capsys.readouterr()
    assert run("export", recording, "--format=minari", "--out", out) == 0
    opening, command = capsys.readouterr().out.splitlines()
    assert opening.endswith("; open it with")
    command = command.replace("python", sys.executable)
    result = subprocess.run(command, shell=True, cwd="/", capture_output=True, text=True)
    assert "MinariDataset" in result.stdout, result.stderr


def test_export_without_minari_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    line = refused(capsys, "export", tmp_path, "--format=minari", "--out=pong-v0")
    assert "pip install 'genie-gym[minari]'" in line
