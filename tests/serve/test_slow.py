"""Long proofs: made-up calls and messages, a crowd of players, and the end of the process."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
CLOSE_CODES = {1003, 1007, 1009}
"""What a connection that breaks the protocol is closed with."""


def test_no_call_made_up_from_the_openapi_document_breaks_the_server(serve_with):
    pytest.importorskip("schemathesis")
    limits = {"requests_per_second": 1e6, "max_sessions": 1000, "idle_seconds": 3.0}
    with serve_with(**limits, max_actions=50, max_pixels=10**6) as client:
        command = [
            sys.executable,
            "-c",
            "from schemathesis.cli import schemathesis as main; main()",
        ]
        address = f"http://127.0.0.1:{client.port}/openapi.json"
        flags = ["--max-examples=50", "--seed=1", "--no-color", f"--checks={','.join(CHECKS)}"]
        result = subprocess.run(
            [*command, "run", address, *flags], capture_output=True, text=True, timeout=600
        )
        assert result.returncode == 0, result.stdout + result.stderr
        num_calls = int(re.search(r"(\d+) generated, \1 passed", result.stdout)[1])
        assert num_calls > 700
        assert client.get("/health").json["status"] == "ok"


def odd_message(rng):
    """Return something that a client might send, right or wrong."""
    values = [0, 3, -1, 6, 2**70, 1.5, "2", None, True, [], {}, "x" * 300, 1e308]
    kinds = ["hold", "step", "run", "pause", "rewind", "settings", "fly", 7, None]
    names = ["action", "fps", "num_steps", "temperature", "player", "num_maskgit_steps", "extra"]
    if rng.random() < 0.15:
        return rng.randbytes(rng.randrange(2000))
    if rng.random() < 0.15:
        texts = ["", "[]", "{", "null", "\x00", "[" * 4000, "é" * 3000, '{"type": "step"}' * 2]
        return rng.choice(texts)
    fields = {name: rng.choice(values) for name in rng.sample(names, rng.randrange(3))}
    return json.dumps({"type": rng.choice(kinds), **fields})


def test_no_message_breaks_the_server_and_what_is_none_ends_its_own_game_alone(serve_with):
    rng = random.Random(0)
    codes = []
    with serve_with() as client, client.play() as bystander:
        for _ in range(150):
            session = client.open()
            with client.connect(session["id"]) as player:
                try:
                    for _ in range(rng.randrange(1, 12)):
                        player.socket.send(odd_message(rng))
                    if rng.random() < 0.3:
                        continue  # leaves without a word
                    player.socket.send("{}")
                    while True:
                        player.receive()
                except ConnectionClosed as closed:
                    codes.append(closed.rcvd.code)
                    with pytest.raises(ConnectionClosed):
                        player.send(type="step")
            assert bystander.ask(type="step").about["step"] >= 1
        assert len(codes) > 50 and set(codes) <= CLOSE_CODES
        bystander.socket.close()
        wait_until(lambda: client.get("/health").json["num_sessions"] == 0)


def wait_until(is_true):
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_one_of_sixteen_players_advances_and_leaves_nothing_behind(serve_with):
    num_steps = 25
    frames = {}

    def play(client, index):
        with client.play(seed=index, start=index % 5) as player:
            frames[index] = [
                player.ask(type="step", action=(index + step) % 6) for step in range(num_steps)
            ]

    with serve_with(max_sessions=17) as client:
        threads = [threading.Thread(target=play, args=(client, index)) for index in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in range(16):
            assert [frame.about["step"] for frame in frames[index]] == list(range(1, num_steps + 1))
        wait_until(lambda: client.get("/health").json["num_sessions"] == 0)
        # In a crowd a game is what it is alone.
        crowd = frames.pop(7)
        play(client, 7)
        assert [one.about["reward"] for one in frames[7]] == [one.about["reward"] for one in crowd]
        assert (frames[7][-1].imagined == crowd[-1].imagined).all()


@pytest.fixture
def process(endless_bundle):
    """A server as a process of its own, from the command line."""
    code = "import sys; from genie_gym.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "--world", str(endless_bundle), "--port", "0"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    yield started
    started.kill()
    started.wait()


def test_sigterm_tells_players_and_ends_the_process_well(process, make_client):
    address = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
    client = make_client(int(address[1]))
    session = client.open()
    with client.connect(session["id"]) as player:
        player.send(type="run", fps=60)
        for _ in range(4):
            player.receive()
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                player.receive()
        assert closed.value.rcvd.code == 1001
    assert process.wait(timeout=5) == 0, time.monotonic() - begin
