"""A person plays at the page."""

import io
import json
import os
import time

import av
import numpy as np
import pytest

from genie_gym.envs.replay import load_replay, play_back

pytestmark = [pytest.mark.slow, pytest.mark.browser]

NOTHING = "\u2013"
"""A dash: there is no number."""


def begin_in_the_middle(person):
    """Choose a start whose paddle can go both ways."""
    person.page.get_by_role("option", name="Start 3", exact=True).click()
    person.page.get_by_text("start 3, seed").wait_for()
    person.wait_connected()


def test_a_start_is_chosen_and_the_arrow_keys_move_the_paddle(person):
    person.shoot("01_loaded")
    begin_in_the_middle(person)
    for key, sign in {"ArrowDown": 1, "ArrowUp": -1, "s": 1, "w": -1}.items():
        before = person.paddle()
        person.page.keyboard.down(key)  # the first one begins the game
        person.wait_steps(5)
        person.page.keyboard.up(key)
        assert sign * (person.paddle() - before) > 3
    person.shoot("02_played")


def test_a_tap_shorter_than_a_step_is_played(person):
    person.page.keyboard.press("p")
    person.wait_steps(2)
    person.page.keyboard.press("ArrowUp")
    person.wait_text("action", "RIGHT")
    person.wait_text("action", "NOOP")


def test_buttons_on_the_screen_are_held_too(person):
    begin_in_the_middle(person)
    before = person.paddle()
    person.page.get_by_role("button", name="Down").hover()
    person.page.mouse.down()
    person.wait_steps(6)
    assert person.page.get_by_role("button", name="Down", pressed=True).count() == 1
    person.page.mouse.up()
    assert person.paddle() > before + 3
    assert person.page.get_by_role("button", name="Down", pressed=True).count() == 0


def test_how_fast_the_page_plays_is_written_down(person):
    person.page.get_by_role("button", name="Play", exact=True).click()
    person.page.locator("input[name=fps]").fill("60")
    person.wait_steps(10)
    first, begin = person.step, time.monotonic()
    time.sleep(5)
    rate = (person.step - first) / (time.monotonic() - begin)
    line = f"{rate:.1f} frames per second in the page, load {os.getloadavg()[0]:.1f}"
    person.shoot("03_fast")
    with open("out/browser/fps.txt", "w") as file:
        print(line, file=file)
    assert float(person.read("rate")) > 0


def test_uncertainty_lies_over_the_frame(person):
    person.page.get_by_label("Temperature").fill("1.5")  # many tokens are unsure then
    person.page.get_by_label("Show uncertainty").check()
    person.page.get_by_role("button", name="Play", exact=True).click()
    person.wait(lambda: NOTHING != person.read("unsure") > "0.3")
    person.page.get_by_role("button", name="Pause").click()
    person.page.get_by_text("Paused").wait_for()
    cells = person.pixels("#imagined .overlay")
    assert cells.shape == (8, 8, 4) and cells[..., 3].max() > 0
    person.shoot("04_uncertainty")
    person.page.keyboard.press("u")
    person.take_steps(1)
    assert not person.page.locator("#imagined .overlay").is_visible()


def test_what_was_rewound_is_played_again_the_same(person):
    person.take_steps(3)
    frames = {person.step: person.frame()}
    for _ in range(4):
        person.take_steps(1)
        frames[person.step] = person.frame()
    for _ in range(4):
        wanted = f"{person.step - 1}"
        person.page.keyboard.press(",")
        person.wait_text("index", wanted)
    np.testing.assert_array_equal(person.frame(), frames[3])
    person.shoot("05_rewound")
    person.take_steps(4)
    np.testing.assert_array_equal(person.frame(), frames[7])

    person.page.get_by_role("button", name="Back 1 s").click()  # more than there are: all of them
    person.wait_text("index", "0")
    person.page.keyboard.press(",")  # does nothing, and says nothing
    assert person.read("problem") == ""


def test_the_game_is_saved_as_a_film_and_as_a_replay(person, tmp_path):
    person.page.keyboard.down("ArrowUp")
    person.wait_steps(20)
    person.page.keyboard.press("p")
    person.page.get_by_text("Paused").wait_for()
    num_frames = person.step + 1

    with person.page.expect_download() as download:
        person.page.get_by_role("button", name="Film (mp4)").click()
    assert download.value.suggested_filename == "episode.mp4"
    with av.open(io.BytesIO(download.value.path().read_bytes())) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == num_frames

    with person.page.expect_download() as download:
        person.page.get_by_role("button", name="Replay file").click()
    replay = tmp_path / "replay.json"
    download.value.save_as(replay)
    again = play_back(load_replay(replay))
    assert len(again) == num_frames
    assert np.abs(again[-1].astype(int) - person.frame()).mean() < 2
    assert 2 in json.loads(replay.read_text())["actions"]
    person.shoot("06_saved")

    # Two temperatures in one game fit no replay file, and the page says so in the server's words.
    person.page.get_by_label("Temperature").fill("1")
    person.take_steps(1)
    person.page.get_by_role("button", name="Replay file").click()
    person.page.get_by_role("alert").get_by_text("Save it as mp4 or zip").wait_for()
    person.shoot("07_refused")
    person.page.get_by_role("button", name="Close").click()
    assert person.read("problem") == ""


def test_policy_planner_and_latent_actions_take_over(person):
    settings = person.page.locator("#settings")
    settings.get_by_role("radio", name="Policy").check()
    person.page.get_by_role("button", name="Play", exact=True).click()
    person.wait_steps(5)
    assert person.read("value") != NOTHING
    settings.get_by_role("radio", name="Planner").check()
    person.wait_steps(3)
    person.shoot("08_planner")

    settings.get_by_role("radio", name="Latent").click()  # not while the planner plays
    person.page.get_by_text("take real actions alone").wait_for()
    assert settings.get_by_role("radio", name="Real").is_checked()
    settings.get_by_role("radio", name="Person").check()
    settings.get_by_role("radio", name="Latent").check()
    pad = person.page.locator("#pad button")
    person.wait(lambda: pad.count() == 8)
    pad.nth(5).click()
    person.wait_text("action", "code 5")
    person.page.keyboard.press("2")
    person.wait_text("action", "code 2")
    assert pad.nth(2).get_attribute("aria-pressed") == "true"
    person.shoot("09_latent")


def test_the_real_game_is_played_beside_the_imagined_one(person):
    assert not person.page.locator("#real").is_visible()
    person.page.get_by_role("button", name="With real game").click()
    person.page.get_by_text("beside the real game, seed").wait_for()
    person.page.locator("#real").wait_for()
    person.page.keyboard.down("ArrowUp")
    person.wait_steps(6)
    person.page.keyboard.press("p")
    assert person.pixels("#real .frame").shape == (64, 64, 4)
    assert person.read("real-score") == "score 0"
    person.shoot("10_real_game")
