"""The page on a phone, by keyboard alone, behind a token, and when its server comes and goes."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TOKEN = "open-sesame"
FOCUSED = """() => {
    const { activeElement: one } = document;
    const shown = one.matches("input[type=radio]") ? one.nextElementSibling
        : one.matches("[type=file]") ? one.parentElement
        : one.id === "screen" ? one.querySelector(".picture") : one;
    const isSeen = getComputedStyle(shown).outlineStyle !== "none";
    return [one.id || one.name || one.ariaLabel || one.alt || one.tagName, isSeen];
}"""


def test_a_phone_shows_all_of_it_without_sideways_scrolling(visit, pong):
    person = visit(
        viewport={"width": 360, "height": 740},
        is_mobile=True,
        has_touch=True,
        device_scale_factor=2,
    )
    person.open(pong.url)
    assert not person.scrolls_sideways()
    for name in ("Play", "Step", "Up", "Down", "Fire"):  # all in sight, and large enough to hit
        box = person.page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box["y"] + box["height"] <= 740 and box["height"] >= 44
    person.shoot("14_phone")
    person.page.get_by_role("button", name="Play", exact=True).tap()
    person.wait_steps(3)
    person.page.get_by_role("button", name="With real game").tap()
    person.page.locator("#real").wait_for()
    assert not person.scrolls_sideways()
    person.shoot("15_phone_real_game")
    person.page.screenshot(path="out/browser/16_phone_all.png", full_page=True)
    person.page.set_viewport_size({"width": 740, "height": 360})
    assert not person.scrolls_sideways()


def test_everything_is_reached_and_used_by_keys_alone(person):
    keyboard, reached = person.page.keyboard, {}
    for _ in range(60):
        keyboard.press("Tab")
        name, is_seen = person.page.evaluate(FOCUSED)
        reached[name] = is_seen
    reached.pop("BODY", None)
    controls = {
        "screen", "play", "step", "back", "back-more", "again", "Up", "Down", "Fire", "any-start",
        "real-start", "image", "fit", "player", "action_mode", "fps", "temperature",
        "num_maskgit_steps", "show_uncertainty", "save-mp4", "save-replay",
    }  # fmt: skip
    assert controls <= reached.keys()
    assert all(reached.values()), reached

    person.page.locator("#real-start").focus()
    keyboard.press("Tab")  # the starts are one stop; arrows move among them
    for key in ("Home", "ArrowRight", "ArrowDown", "ArrowLeft"):
        keyboard.press(key)
    wanted = person.page.evaluate("document.activeElement.alt").removeprefix("Start ")
    person.shoot("17_keyboard")
    keyboard.press("Enter")
    person.page.get_by_text(f"start {wanted}, seed").wait_for()
    person.wait_connected()
    keyboard.down("w")  # the screen has the focus now
    person.wait_steps(3)
    keyboard.up("w")

    person.page.locator("input[name=player]:checked").focus()
    keyboard.press("ArrowRight")
    person.wait(lambda: person.page.evaluate("document.activeElement.value") == "policy")
    person.page.get_by_label("Temperature").focus()
    keyboard.press("ArrowRight")
    person.page.get_by_label("Show uncertainty").focus()
    keyboard.press("Space")
    assert person.page.get_by_label("Show uncertainty").is_checked()


def test_the_page_heeds_dark_mode_and_less_motion(visit, pong):
    person = visit(color_scheme="dark", reduced_motion="reduce")
    person.open(pong.url)
    ground = person.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) < 40
    person.page.evaluate("document.getElementById('connection').dataset.state = 'lost'")
    dot = "getComputedStyle(document.getElementById('connection'), '::before').animationName"
    assert person.page.evaluate(dot) == "none"
    person.shoot("18_dark")


def test_the_page_comes_back_when_the_server_does(visit, serving):
    with serving() as server:
        person = visit()
        person.open(server.url)
        person.take_steps(2)
        about = person.read("about")
        server.stop()
        person.page.wait_for_selector("#connection[data-state=lost]")
        assert person.read("connection").endswith(". Trying again")
        person.page.get_by_text("The server does not answer. Trying again").wait_for()
        person.shoot("19_server_gone")
        server.start()
        person.wait_connected()
        assert person.read("about") == about  # the same start, the same seed
        person.take_steps(2)
        person.shoot("20_back_again")


def test_a_game_that_nobody_plays_ends_and_is_begun_again_at_a_word(visit, serving):
    with serving("--idle-seconds", "2") as server:
        person = visit()
        person.open(server.url)
        person.page.get_by_text("Nobody played for a while").wait_for()
        person.shoot("21_idle")
        person.page.get_by_role("button", name="Play", exact=True).click()
        person.wait_connected()


def test_a_token_is_asked_for_and_kept_out_of_the_address(visit, serving):
    with serving("--token", TOKEN) as server:
        person = visit()
        person.page.goto(server.url)
        person.page.get_by_text("This server asks for a token").wait_for()
        person.shoot("22_token")
        assert person.page.request.get(f"{server.url}worlds").status == 401
        person.page.keyboard.type("open-sesamo")
        person.page.keyboard.press("Enter")
        person.page.get_by_text("This token is wrong.").wait_for()
        person.page.get_by_role("textbox", name="Token").fill(TOKEN)
        person.page.keyboard.press("Enter")
        person.wait_connected()
        person.take_steps(1)
        person.page.reload()  # the cookie knows it
        person.wait_connected()
        stored = person.page.evaluate("JSON.stringify([document.cookie, {...sessionStorage}])")
        assert json.loads(stored) == ["", {}]

        other = visit()
        other.page.goto(f"{server.url}?token=wrong-token")
        other.page.get_by_text("This server asks for a token").wait_for()
        assert not other.page.context.cookies()
        other.open(f"{server.url}?token={TOKEN}")
        assert other.page.url == server.url
