import base64
import dataclasses
import io
import json
import time
import zipfile
import zlib

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from genie_gym.envs.replay import load_replay, play_back
from genie_gym.models.bundle import load_world


def decode(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def open_zip(content):
    archive = zipfile.ZipFile(io.BytesIO(content))
    return {name: np.asarray(Image.open(archive.open(name))) for name in archive.namelist()}


def test_the_server_tells_how_it_is(client):
    content = client.get("/health").json
    assert content["status"] == "ok" and content["max_sessions"] == 100


def test_worlds_are_described(client):
    [world] = client.get("/worlds").json
    assert world == {
        "name": client.world,
        "game": "Pong",
        "height": 64,
        "width": 64,
        "rows": 4,
        "columns": 4,
        "fps": 15.0,
        "num_starts": 5,
        "num_actions": 6,
        "action_meanings": ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"],
        "turned": {"RIGHT": "UP", "LEFT": "DOWN"},
        "num_latent_actions": 8,
        "temperature": 1.0,
        "num_maskgit_steps": 2,
        "has_policy": True,
        "has_value": True,
        "has_planner": True,
        "has_real_game": True,
    }


def test_thumbnails_are_the_frames_that_starts_begin_with(client, endless_bundle):
    world = load_world(endless_bundle)
    for index in range(5):
        answer = client.get(f"/worlds/{client.world}/starts/{index}")
        assert answer.media_type == "image/png"
        shown = np.asarray(Image.open(io.BytesIO(answer.body)))
        begun = world.decode(world.start(torch.tensor([index])))[0].numpy()
        np.testing.assert_allclose(shown, begun, atol=1)
    text = "start must lie in [0, 5), got 5"
    assert client.get(f"/worlds/{client.world}/starts/5").problem == (404, "not-found", text)


def test_a_game_is_played_rewound_and_deleted(client):
    session = client.open(start=2, seed=7)
    assert session["start"] == 2 and session["seed"] == 7 and session["max_rewind"] == 5
    path = f"/sessions/{session['id']}"
    assert client.get(path).json == session
    steps = client.post(f"{path}/step", {"actions": [2, 3, 2]}).json["steps"]
    assert [(step["step"], step["action"]) for step in steps] == [(1, 2), (2, 3), (3, 2)]
    assert steps[2]["score"] == sum(step["reward"] for step in steps)
    assert decode(steps[0]["frame"]).shape == (64, 64, 3) and steps[0]["real_frame"] is None
    back = client.post(f"{path}/rewind", {"num_steps": 2}).json
    assert back["frame"] == steps[0]["frame"] and back["can_rewind"] == 1
    again = client.post(f"{path}/step", {"actions": [3]}).json["steps"][0]
    assert again["frame"] == steps[1]["frame"]
    assert client.request("DELETE", path).status == 204
    assert client.get(path).problem[:2] == (404, "unknown-session")


def test_an_episode_is_saved_as_film_pictures_or_replay(client, endless_bundle, tmp_path):
    session = client.open(start=1, seed=3)
    path = f"/sessions/{session['id']}"
    steps = client.post(f"{path}/step", {"actions": [2] * 6}).json["steps"]

    answer = client.get(f"{path}/episode")
    assert answer.media_type == "video/mp4"
    assert answer.headers["content-disposition"] == 'attachment; filename="episode.mp4"'
    (tmp_path / "a.mp4").write_bytes(answer.body)
    assert len(imageio.mimread(tmp_path / "a.mp4")) == 7

    pictures = open_zip(client.get(f"{path}/episode?format=zip").body)
    assert list(pictures) == [f"000{index}.png" for index in range(7)]
    np.testing.assert_array_equal(pictures["0006.png"], decode(steps[-1]["frame"]))

    (tmp_path / "a.json").write_bytes(client.get(f"{path}/episode?format=replay").body)
    replay = load_replay(tmp_path / "a.json")
    assert replay.env.world == endless_bundle.name  # not where it lies
    there = dataclasses.replace(replay.env, world=str(endless_bundle))
    played = play_back(dataclasses.replace(replay, env=there))
    np.testing.assert_array_equal(played, list(pictures.values()))


def test_the_real_game_stands_at_the_right_of_a_film(client):
    path = f"/sessions/{client.open(start='real')['id']}"
    step = client.post(f"{path}/step", {"actions": [2]}).json["steps"][0]
    assert step["real"] == {"reward": 0.0, "score": 0.0, "is_over": False}
    last = open_zip(client.get(f"{path}/episode?format=zip").body)["0001.png"]
    np.testing.assert_array_equal(last[:, -64:], decode(step["real_frame"]))
    np.testing.assert_array_equal(last[:, :64], decode(step["frame"]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "CMYK", "alpha", "wide"])
def test_a_game_begins_from_any_picture(client, picture, kind):
    content = {
        "PNG": lambda: picture(),
        "JPEG": lambda: picture(kind="JPEG"),
        "GIF": lambda: picture(
            kind="GIF", save_all=True, append_images=[Image.new("RGB", (64, 64))]
        ),
        "CMYK": lambda: picture(mode="CMYK", kind="JPEG"),
        "alpha": lambda: picture(mode="RGBA"),
        "wide": lambda: picture(size=(90, 40)),
    }[kind]()
    assert client.open(content)["start"] == "image"


def test_generate_gives_a_frame_more_than_actions(client, picture, tmp_path):
    answer = client.form("/generate", picture(), actions="2, 2,3", format="zip", seed=1)
    assert answer.media_type == "application/zip" and len(open_zip(answer.body)) == 4
    same = client.form("/generate", picture(), actions="2,2,3", format="zip", seed=1)
    assert same.body == answer.body
    answer = client.form("/generate", actions="0,0", start=3)
    (tmp_path / "a.mp4").write_bytes(answer.body)
    assert len(imageio.mimread(tmp_path / "a.mp4")) == 3


@pytest.mark.parametrize(
    ("fields", "image", "expected"),
    [
        ({"world": "pongg"}, None, (404, "unknown-world", "no world 'pongg' is served.")),
        ({"world": "../worlds/pong"}, None, (404, "unknown-world", "no world '../worlds/pong'")),
        ({"world": None}, None, (422, "invalid-request", "body.world: Field required")),
        ({"start": 5}, None, (422, "invalid-request", "must lie in [0, 5), got 5")),
        ({"start": -1}, None, (422, "invalid-request", "body.start")),
        ({"start": "best"}, None, (422, "invalid-request", "body.start")),
        ({"seed": -1}, None, (422, "invalid-request", "body.seed")),
        ({"fit": "zoom"}, None, (422, "invalid-request", "body.fit")),
        ({}, b"", (400, "empty-upload", "the image has no bytes")),
        ({}, b"no picture", (415, "not-an-image", "is no picture")),
        ({"start": 1}, b"x", (422, "invalid-request", "either start or image, not both")),
    ],
)
def test_what_cannot_be_opened_says_why(client, fields, image, expected):
    status, name, text = client.form("/sessions", image, **fields).problem
    assert (status, name) == expected[:2] and expected[2] in text


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(client, picture):
    # The size stands in bytes 16 to 24 of a PNG file.
    bomb = bytearray(picture())
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    for content in (bytes(bomb), picture(size=(101, 100))):
        assert client.form("/sessions", content).problem[:2] == (413, "too-many-pixels")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"actions": [0, 6]}, (422, "invalid-action", "in [0, 6), got 6")),
        ({"actions": [-1]}, (422, "invalid-request", "body.actions.0")),
        ({"actions": []}, (422, "invalid-request", "body.actions")),
        ({"actions": [True]}, (422, "invalid-request", "body.actions.0")),
        ({"actions": [0] * 21}, (422, "invalid-request", "may have 20 actions, got 21")),
        ({"actions": [0], "x": 1}, (422, "invalid-request", "body.x")),
        ([], (422, "invalid-request", "body")),
    ],
)
def test_steps_that_cannot_be_taken_say_why_and_none_is(client, body, expected):
    path = f"/sessions/{client.open()['id']}"
    status, name, text = client.post(f"{path}/step", body).problem
    assert (status, name) == expected[:2] and expected[2] in text
    assert client.post(f"{path}/rewind", {"num_steps": 0}).json["step"] == 0


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ("", (422, "invalid-request", "body.actions")),
        ("0," * 20 + "0", (422, "invalid-request", "may have 20 actions, got 21")),
        ("1;2", (422, "invalid-action", "got '1;2'")),
        ("6", (422, "invalid-action", "in [0, 6), got 6")),
    ],
)
def test_generate_refuses_odd_lists_of_actions(client, actions, expected):
    status, name, text = client.form("/generate", actions=actions).problem
    assert (status, name) == expected[:2] and expected[2] in text


def test_wrong_paths_methods_and_bodies_have_statuses_of_their_own(client):
    assert client.get("/nowhere").problem[:2] == (404, "not-found")
    assert client.request("PUT", "/health").problem[:2] == (405, "method-not-allowed")
    assert client.get("/sessions/none").problem[:2] == (404, "unknown-session")
    broken = "multipart/form-data; boundary=x"
    answer = client.request("POST", "/sessions", b"--y", content_type=broken)
    assert answer.problem[:2] == (400, "malformed")


def test_a_session_that_nobody_plays_expires_and_others_go_on(serve_with):
    with serve_with(idle_seconds=0.3, max_sessions=1) as client:
        path = f"/sessions/{client.open()['id']}"
        full = client.form("/sessions")
        assert full.problem[:2] == (503, "too-many-sessions") and full.headers["retry-after"]
        for _ in range(100):
            if (answer := client.get(path)).status != 200:
                break
            time.sleep(0.05)
        status, name, text = answer.problem
        assert (status, name) == (410, "expired-session") and "idle for more than 0.3 s" in text
        client.open()


def test_the_game_is_over_at_the_limit_of_steps(serve_with):
    with serve_with(max_steps=3) as client:
        path = f"/sessions/{client.open()['id']}"
        steps = client.post(f"{path}/step", {"actions": [0] * 5}).json["steps"]
        assert [step["truncated"] for step in steps] == [False, False, True]
        status, name, text = client.post(f"{path}/step", {"actions": [0]}).problem
        assert (status, name) == (409, "episode-over") and "over after 3 steps" in text
        assert client.post(f"{path}/rewind", {"num_steps": 9}).problem[:2] == (409, "cannot-rewind")
        client.post(f"{path}/rewind", {"num_steps": 1})
        assert client.post(f"{path}/step", {"actions": [0]}).status == 200


def test_the_openapi_document_names_every_call_and_its_errors(client):
    document = json.loads(client.get("/openapi.json").body)
    calls = {(path, method) for path, item in document["paths"].items() for method in item}
    assert ("/generate", "post") in calls and ("/sessions/{id}", "delete") in calls
    assert len(calls) == 10
    assert document["components"]["schemas"]["ProblemInfo"]["title"] == "ProblemInfo"
    for path, method in calls:
        assert {"401", "403", "429"} <= document["paths"][path][method]["responses"].keys()
