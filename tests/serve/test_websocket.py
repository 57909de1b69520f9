import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed


def close_of(player):
    """Return code and reason of the close, whatever comes before it."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            player.receive()
    return closed.value.rcvd.code, closed.value.rcvd.reason


def test_a_game_begins_with_its_first_frame(client):
    with client.play(start=2, seed=4) as player:
        about = player.first.about
        assert about["step"] == 0 and about["action"] is None and about["reward"] is None
        assert about["can_rewind"] == 0 and about["real"] is None
        assert player.first.imagined.shape == (64, 64, 3)


def test_single_steps_take_the_action_given_or_held(client):
    with client.play(seed=1) as player:
        assert player.ask(type="step", action=4).about["action"] == 4
        assert player.ask(type="step").about["action"] == 0
        player.send(type="hold", action=3)
        frame = player.ask(type="step")
        assert frame.about["action"] == 3 and frame.about["step"] == 3


def test_a_game_runs_by_itself_with_what_is_held_until_it_is_paused(client):
    with client.play(seed=1) as player:
        player.send(type="hold", action=5)
        told = player.ask(type="run", fps=60)
        assert told["type"] == "settings" and told["fps"] == 60
        frames = [player.receive() for _ in range(4)]
        assert [frame.about["action"] for frame in frames] == [5] * 4
        last = frames[-1]
        player.send(type="pause")
        while not isinstance(answer := player.receive(), dict):
            last = answer
        assert answer["fps"] is None
        # Paused: the next frame is the one asked for.
        assert player.ask(type="step").about["step"] == last.about["step"] + 1


def test_rewinding_pauses_and_the_same_actions_give_the_same_frames(client):
    with client.play(seed=1) as player:
        frames = [player.ask(type="step", action=action) for action in (2, 3, 4)]
        back = player.ask(type="rewind", num_steps=2)
        assert back.about["step"] == 1
        np.testing.assert_array_equal(back.imagined, frames[0].imagined)
        again = player.ask(type="step", action=3)
        np.testing.assert_array_equal(again.imagined, frames[1].imagined)


def test_settings_change_from_the_next_step_on(client):
    with client.play(seed=1) as player:
        told = player.ask(type="settings", temperature=0.0, num_maskgit_steps=1)
        assert told["settings"]["temperature"] == 0.0
        assert told["settings"]["num_maskgit_steps"] == 1
        assert told["settings"]["player"] == "person"
        assert player.ask(type="settings", action_mode="latent")["settings"] == {
            **told["settings"],
            "action_mode": "latent",
        }
        assert player.ask(type="step", action=7).about["action"] == 7


def test_doubt_is_shown_token_by_token(client):
    with client.play(seed=1) as player:
        assert player.ask(type="step").about["uncertainty"] is None
        player.ask(type="settings", show_uncertainty=True)
        shown = player.ask(type="step").about["uncertainty"]
        assert len(shown) == 16 and all(0 <= bits <= 6 for bits in shown)  # of 64 codes


def test_a_policy_plays_and_its_critic_judges(client):
    with client.play(seed=1) as player, client.play(seed=1) as twin:
        for one in (player, twin):
            one.ask(type="settings", player="policy", show_value=True)
        frames = [player.ask(type="step", action=5) for _ in range(6)]
        assert len({frame.about["action"] for frame in frames}) > 1  # its own, not the one held
        assert all(isinstance(frame.about["value"], float) for frame in frames)
        again = [twin.ask(type="step").about["action"] for _ in range(6)]
        assert again == [frame.about["action"] for frame in frames]


def test_a_planner_plays(client):
    with client.play(seed=1) as player:
        player.ask(type="settings", player="planner")
        assert player.ask(type="step").about["action"] in range(6)
        player.ask(type="run", fps=60)
        assert player.receive().about["step"] == 2


def test_the_real_game_comes_beside_the_imagined_one(client):
    with client.play(start="real") as player:
        assert player.first.real is not None
        frame = player.ask(type="step", action=2)
        assert frame.real.shape == (64, 64, 3) and frame.about["real"]["is_over"] is False


@pytest.mark.parametrize(
    ("message", "status", "name"),
    [
        ({"type": "step", "action": 6}, 422, "invalid-action"),
        ({"type": "hold", "action": 6}, 422, "invalid-action"),
        ({"type": "rewind", "num_steps": 1}, 409, "cannot-rewind"),
        ({"type": "settings", "player": "policy", "action_mode": "latent"}, 409, "unavailable"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_game_goes_on(client, message, status, name):
    with client.play() as player:
        error = player.ask(**message)
        assert (error["type"], error["status"], error["problem"]) == ("error", status, name)
        assert error["title"] and error["detail"]
        assert player.ask(type="step").about["step"] == 1


def test_running_stops_at_the_end_of_the_game(serve_with):
    with serve_with(max_steps=2) as client, client.play() as player:
        player.ask(type="run", fps=60)
        assert [player.receive().about["truncated"] for _ in range(2)] == [False, True]
        assert player.receive()["fps"] is None
        assert player.ask(type="step")["problem"] == "episode-over"
        assert player.ask(type="run", fps=60)["problem"] == "episode-over"
        assert player.ask(type="rewind", num_steps=2).about["step"] == 0
        assert player.ask(type="step").about["step"] == 1


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("{}", 1007, "discriminator"),
        ("no json", 1007, "Invalid JSON"),
        ('{"type": "fly"}', 1007, "does not match any of the expected tags"),
        ('{"type": "step", "action": "2"}', 1007, "step.action"),
        ('{"type": "step", "action": 2.0}', 1007, "step.action"),
        ('{"type": "step", "action": -1}', 1007, "step.action"),
        ('{"type": "step", "actions": 2}', 1007, "step.actions"),
        ('{"type": "run", "fps": NaN}', 1007, ""),
        ('{"type": "run", "fps": 0}', 1007, "run.fps"),
        ('{"type": "settings", "temperature": 1e999}', 1007, "settings.temperature"),
        ("[" * 4000, 1007, ""),
        ("x" * 5000, 1009, ""),
        (b"\x00\xff", 1003, "messages are JSON texts"),
    ],
)
def test_what_is_no_message_closes_with_a_code_and_its_reason(client, text, code, reason):
    with client.play() as player:
        player.socket.send(text)
        got, told = close_of(player)
        assert got == code and reason in told
    with client.play() as player:
        assert player.ask(type="step").about["step"] == 1


def test_two_clients_cannot_play_one_session(client):
    with client.play() as player:
        id = player.id
        with client.connect(id) as other:
            assert close_of(other) == (4409, "Session taken")
        answer = client.post(f"/sessions/{id}/step", {"actions": [0]})
        assert answer.problem[:2] == (409, "session-taken")
        assert client.request("DELETE", f"/sessions/{id}").problem[:2] == (409, "session-taken")
        assert client.get(f"/sessions/{id}/episode?format=replay").status == 200
        assert player.ask(type="step").about["step"] == 1


def test_who_leaves_frees_the_session(client):
    session = client.open()
    with client.connect(session["id"]) as player:
        player.receive()
    for _ in range(100):
        if (answer := client.get(f"/sessions/{session['id']}")).status == 404:
            break
        time.sleep(0.02)
    assert answer.problem[:2] == (404, "unknown-session")
    with client.connect(session["id"]) as late:
        assert close_of(late) == (4404, "Unknown session")


def test_who_idles_is_told_so(serve_with):
    with serve_with(idle_seconds=0.3) as client, client.play() as player:
        assert close_of(player) == (4408, "idle for too long")


def test_a_server_that_ends_finishes_its_step_and_tells_its_clients(serve_with):
    with serve_with() as client:
        session = client.open()
        with client.connect(session["id"]) as player:
            player.receive(), player.receive()
            player.ask(type="run", fps=60)
            client.stop()
            assert close_of(player) == (1001, "the server is shutting down")
