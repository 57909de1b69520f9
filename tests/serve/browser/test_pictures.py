"""A person begins a game from a picture."""

import base64

import cv2
import numpy as np
import pytest

from genie_gym.evaluation.objects import find_objects

pytestmark = [pytest.mark.slow, pytest.mark.browser]

DROP = """(screen, base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], "picture.png", { type: "image/png" }));
    for (const type of ["dragover", "drop"]) {
        const options = { dataTransfer, bubbles: true, cancelable: true };
        screen.dispatchEvent(new DragEvent(type, options));
    }
}"""


def drop(person, content):
    person.page.locator("#screen").evaluate(DROP, base64.b64encode(content).decode())


def wait_for_picture(person):
    person.page.get_by_text("from your picture").wait_for()
    person.wait_connected()


def choose(person, content):
    file = {"name": "picture.png", "mimeType": "image/png", "buffer": content}
    person.page.locator("#image").set_input_files(file)


def test_a_screenshot_is_dropped_and_played_on(person):
    shown = person.frame()
    # As a screen of the game looks: 160 x 210, enlarged four times.
    large = cv2.resize(shown, (640, 840), interpolation=cv2.INTER_AREA)
    drop(person, cv2.imencode(".png", large[..., ::-1])[1].tobytes())
    wait_for_picture(person)
    assert np.abs(person.frame().astype(int) - shown).mean() < 8
    before = person.paddle()
    person.page.keyboard.down("ArrowDown" if before < 38 else "ArrowUp")
    person.wait_steps(8)
    person.page.keyboard.press("p")
    assert abs(person.paddle() - before) > 3
    person.shoot("11_dropped")

    # The same picture with another fit begins anew.
    person.page.locator("#starts").get_by_role("radio", name="Crop").check()
    person.wait_connected()
    assert person.page.locator("#preview").is_visible()


def test_a_sketch_is_played(person, drawing):
    choose(person, drawing)
    wait_for_picture(person)
    found = find_objects(person.frame()[None], "Pong")
    assert found.paddles["opponent"][0] < 32 < found.paddles["own"][0] and found.num_balls[0] == 1
    person.shoot("12_sketch")
    person.page.get_by_role("button", name="Play", exact=True).click()
    person.wait_steps(5)


def test_what_is_no_picture_is_refused_and_the_game_goes_on(person):
    person.take_steps(3)
    about = person.read("about")
    choose(person, b"not a picture")
    person.page.get_by_role("alert").filter(has_text="is no picture").wait_for()
    person.shoot("13_no_picture")
    choose(person, b"")
    person.page.get_by_role("alert").filter(has_text="has no bytes").wait_for()
    choose(person, b"x" * (10 * 2**20 + 1))
    person.page.get_by_role("alert").filter(has_text="A request may have").wait_for()
    person.take_steps(1)
    assert person.step == 4 and person.read("about") == about
