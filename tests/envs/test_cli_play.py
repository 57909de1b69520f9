"""`genie-gym generate` and `genie-gym play`, as a user calls them; the window is SDL's dummy."""

import json

import imageio.v2 as imageio
import numpy as np
import pygame
import pytest
from PIL import Image

from genie_gym.cli import main
from genie_gym.envs.generation import generate
from genie_gym.envs.prompts import prompt_frames
from genie_gym.envs.replay import load_replay, play_back
from genie_gym.envs.slots import WorldEnvConfig, shared_world


def decoded(path):
    with imageio.get_reader(path, format="FFMPEG") as reader:
        return np.array(list(reader.iter_data()))


def pictures(folder):
    return np.stack([np.array(Image.open(file)) for file in sorted(folder.iterdir())])


@pytest.fixture
def world(endless_bundle):
    """Name the world on the command line."""
    return ["--world", str(endless_bundle)]


@pytest.fixture
def config(endless_bundle):
    return WorldEnvConfig(game="Pong", world=str(endless_bundle))


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(256, size=(3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((400, 300))
    image.save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("num_actions", [1, 4, 14])
def test_a_film_has_one_frame_more_than_actions(tmp_path, world, config, num_actions, capsys):
    actions = ",".join(["2"] * num_actions)
    film, folder = tmp_path / "film.mp4", tmp_path / "frames"
    out = ["--out", str(film), "--frames-dir", str(folder)]
    assert (
        main(["generate", *world, "--actions", actions, "--start", "3", "--seed", "1", *out]) == 0
    )
    frames = generate(config, [2] * num_actions, start=3, seed=1)
    np.testing.assert_array_equal(pictures(folder), frames)
    shown = decoded(film)[:, 2::4, 2::4]
    assert shown.shape == (num_actions + 1, 64, 64, 3)
    assert np.abs(shown.astype(float) - frames).mean() < 6
    assert f"wrote {film}, {num_actions + 1} frames" in capsys.readouterr().out


def test_a_film_begins_from_a_picture(tmp_path, world, config, photo):
    folder = tmp_path / "frames"
    flags = ["--prompt", str(photo), "--fit", "crop", "--frames-dir", str(folder)]
    assert main(["generate", *world, "--actions", "0,3", *flags]) == 0
    prompt = prompt_frames(photo, shared_world(config), fit="crop")
    np.testing.assert_array_equal(pictures(folder), generate(config, [0, 3], prompt=prompt))


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--actions", "0"], "say where the frames go: --out FILE.mp4, --frames-dir DIR, or both"),
        (["--actions", "9", "--out", "x.mp4"], "actions must be ints in 0..5 for Pong, got 9"),
        (
            ["--actions", "up", "--out", "x.mp4"],
            "whole numbers between commas, as 2,2,3,0; got 'up'",
        ),
        (["--actions", "0", "--out", "x.avi"], "must end in .mp4, got 'x.avi'"),
        (["--actions", "0", "--out", "x.mp4", "--start", "5"], "must lie in [0, 5), got 5"),
        (["--actions", "0", "--out", "x.mp4", "--prompt", "no.png"], "no.png cannot be read"),
        (
            ["--actions", "0", "--out", "x.mp4", "--prompt", "no.png", "--start", "1"],
            "give one of --start and --prompt: a game begins once",
        ),
        (["--actions", "0", "--out", "x.mp4", "--text", "pong"], "--text and --pipeline belong"),
        (["--actions", "0", "--frames-dir", "."], "is not empty: frames of two films would mix"),
    ],
)
def test_what_cannot_be_generated_is_told_in_one_line(
    tmp_path, monkeypatch, capsys, world, flags, text
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").touch()
    assert main(["generate", *world, *flags]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["old.png"]


@pytest.fixture
def fingers(monkeypatch):
    """Return a list to be filled: keys that go down (+) and up (-) while each frame is shown.

    Gymnasium's `play` looks at them after the next step, so they decide the one after that.
    """
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    class Fingers(list):
        rates = ()

        def tick(self, fps):
            self.rates = (*self.rates, fps)
            for key in self.pop(0) if self else [+pygame.K_ESCAPE]:
                kind = pygame.KEYDOWN if key > 0 else pygame.KEYUP
                pygame.event.post(pygame.event.Event(kind, key=abs(key)))

    fingers = Fingers()
    monkeypatch.setattr(pygame.time, "Clock", lambda: fingers)
    yield fingers
    pygame.quit()


def test_a_game_played_by_keyboard_plays_back_to_the_same_frames(fingers, world, tmp_path, capsys):
    up, down = pygame.K_UP, pygame.K_s
    fingers += [[up], [], [-up, down], [], [-down], [pygame.K_SPACE], []]
    replay, film = tmp_path / "game.json", tmp_path / "game.mp4"
    assert main(["play", *world, "--start", "2", "--seed", "4", "--record", str(replay)]) == 0
    assert load_replay(replay).actions == (0, 2, 2, 3, 3, 0, 1, 1)
    assert load_replay(replay).start == 2
    assert set(fingers.rates) == {15}

    assert main(["play", "--replay", str(replay), "--out", str(film)]) == 0
    output = capsys.readouterr().out
    assert "keys: arrows or w a s d, space" in output
    assert f"wrote {replay}, 9 frames" in output
    frames = play_back(load_replay(replay))
    shown = decoded(film)[:, 2::4, 2::4]
    assert shown.shape == frames.shape == (9, 64, 64, 3)
    assert np.abs(shown.astype(float) - frames).mean() < 6


def test_a_replay_is_shown_in_the_window(fingers, world, tmp_path, monkeypatch):
    fingers += [[pygame.K_d], []]
    replay = tmp_path / "game.json"
    assert main(["play", *world, "--seed", "4", "--record", str(replay)]) == 0
    frames, shown = play_back(load_replay(replay)), []
    fingers += [[]] * len(frames)

    def flip():
        window = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        shown.append(window[5::10, 5::10])

    monkeypatch.setattr(pygame.display, "flip", flip)
    assert main(["play", "--replay", str(replay)]) == 0
    np.testing.assert_array_equal(shown, frames)


def test_a_game_from_a_picture_is_recorded_as_a_film(
    fingers, world, config, tmp_path, photo, capsys
):
    fingers += [[], [], []]
    film = tmp_path / "game.mp4"
    assert main(["play", *world, "--prompt", str(photo), "--record", str(film)]) == 0
    shown = decoded(film)
    assert shown.shape == (5, 256, 256, 3)
    first = generate(config, [0], prompt=prompt_frames(photo, shared_world(config)))[0]
    assert np.abs(shown[0, 2::4, 2::4].astype(float) - first).mean() < 12
    replay = ["--record", str(tmp_path / "game.json")]
    assert main(["play", *world, "--prompt", str(photo), *replay]) == 2
    assert "cannot hold a prompt: --record FILE.mp4" in capsys.readouterr().err


def test_a_recording_ends_with_the_game(fingers, world, tmp_path, monkeypatch):
    monkeypatch.setattr("genie_gym.cli_play.MAX_IMAGINED_STEPS", 5)
    fingers += [[]] * 20
    assert main(["play", *world, "--record", str(tmp_path / "game.json")]) == 0
    assert len(load_replay(tmp_path / "game.json").actions) == 5


def test_without_a_record_games_follow_each_other(fingers, world, monkeypatch):
    monkeypatch.setattr("genie_gym.cli_play.MAX_IMAGINED_STEPS", 5)
    fingers += [[]] * 20
    assert main(["play", *world]) == 0
    assert len(fingers.rates) == 22


def test_closing_the_window_at_once_writes_nothing(fingers, world, tmp_path, capsys, monkeypatch):
    set_mode = pygame.display.set_mode

    def closing(*arguments):
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        return set_mode(*arguments)

    monkeypatch.setattr(pygame.display, "set_mode", closing)
    assert main(["play", *world, "--record", str(tmp_path / "game.json")]) == 0
    assert "nothing was played" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_latent_actions_lie_on_the_digits(fingers, world, tmp_path, capsys):
    fingers += [[pygame.K_7], []]
    replay = tmp_path / "game.json"
    assert main(["play", *world, "--latent", "--record", str(replay)]) == 0
    assert load_replay(replay).actions == (0, 7, 7)
    assert json.loads(replay.read_text())["env"]["action_mode"] == "latent"
    assert "keys: digits 0 to 7" in capsys.readouterr().out


def test_what_cannot_be_played_is_told_in_one_line(fingers, world, monkeypatch, capsys):
    assert main(["play", *world, "--record", "game.avi"]) == 2
    assert "--record must end in .mp4 or .json, got 'game.avi'" in capsys.readouterr().err
    assert main(["play", *world, "--out", "game.mp4"]) == 2
    assert "to record your play, use --record" in capsys.readouterr().err
    pygame.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    assert main(["play", *world]) == 2
    error = capsys.readouterr().err
    assert "needs a screen" in error and "--replay FILE --out FILM.mp4" in error
