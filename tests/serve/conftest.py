"""A real server on a free port, in a thread, and a client that speaks to it over the network."""

import argparse
import http.client
import io
import json
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")
websockets = pytest.importorskip("websockets.sync.client")


@dataclass
class Answer:
    """What came back of a request."""

    status: int
    media_type: str
    body: bytes
    headers: dict

    @property
    def json(self):
        """The body, read."""
        return json.loads(self.body)

    @property
    def problem(self):
        """Status, name and text of an error, checked to be one."""
        assert self.media_type == "application/problem+json", self
        content = self.json
        assert content.keys() == {"type", "title", "status", "detail"}
        assert content["status"] == self.status
        return self.status, content["type"].removeprefix("urn:genie-gym:"), content["detail"]


@dataclass
class Frame:
    """A binary message, taken apart."""

    about: dict
    imagined: np.ndarray
    real: np.ndarray | None


class Player:
    """A WebSocket of one session."""

    def __init__(self, socket):
        self.socket = socket

    def send(self, **message):
        """Send a message."""
        self.socket.send(json.dumps(message))

    def receive(self):
        """Return the next text, read, or the next frame."""
        message = self.socket.recv(timeout=20)
        if isinstance(message, str):
            return json.loads(message)
        size = struct.unpack("<I", message[:4])[0]
        about = json.loads(message[4 : 4 + size])
        shape = (about["height"], about["width"], 3)
        pixels = np.frombuffer(message[4 + size :], np.uint8).reshape(-1, *shape)
        assert len(pixels) == 1 + (about["real"] is not None)
        return Frame(about, pixels[0], pixels[1] if len(pixels) > 1 else None)

    def ask(self, **message):
        """Send a message and return what comes next."""
        self.send(**message)
        return self.receive()


class Client:
    """Somebody who knows the server's port, and perhaps its token."""

    def __init__(self, port, world):
        self.port, self.world = port, world

    def request(self, method, path, body=None, **headers):
        """Return the answer; underscores in names of headers stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        response = connection.getresponse()
        media_type = response.headers.get_content_type()
        answer = Answer(response.status, media_type, response.read(), dict(response.headers))
        connection.close()
        return answer

    def get(self, path, **headers):
        """Ask for a path."""
        return self.request("GET", path, **headers)

    def post(self, path, content):
        """Post JSON."""
        return self.request("POST", path, json.dumps(content), content_type="application/json")

    def form(self, path, image=None, **fields):
        """Post a form; a name without a value is left out."""
        fields = {"world": self.world} | fields
        parts = [
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
            if value is not None
        ]
        if image is not None:
            head = 'Content-Disposition: form-data; name="image"; filename="a.png"'
            parts.append(f"--x\r\n{head}\r\n\r\n".encode() + image + b"\r\n")
        body = b"".join([*parts, b"--x--\r\n"])
        return self.request("POST", path, body, content_type="multipart/form-data; boundary=x")

    def open(self, image=None, **fields):
        """Open a session and return what it is."""
        answer = self.form("/sessions", image, **fields)
        assert answer.status == 201, answer
        return answer.json

    @contextmanager
    def connect(self, id, path="", **options):
        """Connect to a session; `path` is put behind the address."""
        address = f"ws://127.0.0.1:{self.port}/sessions/{id}/play{path}"
        with websockets.connect(address, **options) as socket:
            yield Player(socket)

    @contextmanager
    def play(self, **fields):
        """Open a session and connect to it; yield the player behind its first frame."""
        session = self.open(**fields)
        with self.connect(session["id"]) as player:
            assert player.receive() == {"type": "session", **session}
            player.id, player.first = session["id"], player.receive()
            yield player


@contextmanager
def running(config, world, planner=None):
    """Serve in a thread; yield a client."""
    from genie_gym.serve.app import Process, listen, make_app

    listening = listen(config)
    process = Process(make_app(config, planner))
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listening]})
    thread.start()
    client = Client(listening.getsockname()[1], world)
    client.stop = lambda: setattr(process, "should_exit", True)
    try:
        yield client
    finally:
        client.stop()
        thread.join()


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    """An untrained policy of the tiny world's shape."""
    from genie_gym.agents.algorithms import make_policy
    from genie_gym.agents.config import NetworkConfig
    from genie_gym.agents.policy import PolicyCard, save_policy

    network = NetworkConfig(num_frames=2, channels=(2, 3), feature_dim=8)
    card = PolicyCard(
        game="Pong",
        height=64,
        width=64,
        num_actions=6,
        algo="ppo",
        network=network,
        world="tiny",
        world_hash="",
        imagined_steps=0,
        real_steps=0,
        check_steps=0,
        seed=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = make_policy("ppo", network, (64, 64), 6)
    folder = tmp_path_factory.mktemp("policy")
    save_policy(folder, card, policy.state_dict())
    return folder


@pytest.fixture(scope="session")
def make_config(endless_bundle):
    """Return the config of a server of the endless tiny world on a free port."""
    from genie_gym.serve.config import ServeConfig

    def make(**changes):
        return ServeConfig(**{"worlds": (str(endless_bundle),), "port": 0, **changes})

    return make


@pytest.fixture(scope="session")
def planner():
    from genie_gym.cli_serve import planner_factory

    options = {"planner": "random", "horizon": 2, "num_samples": 5, "budget_ms": None}
    return planner_factory(argparse.Namespace(**options))


@pytest.fixture(scope="session")
def client(make_config, policy_folder, planner, endless_bundle):
    """A client of a server that all tests share."""
    limits = {"max_sessions": 100, "max_rewind": 5, "max_actions": 20, "max_pixels": 10_000}
    config = make_config(policy=str(policy_folder), **limits)
    with running(config, endless_bundle.name, planner) as client:
        yield client


@pytest.fixture
def serve_with(make_config, endless_bundle):
    """Return a context manager that serves the endless tiny world with a changed config."""

    def serve(**changes):
        return running(make_config(**changes), endless_bundle.name)

    return serve


@pytest.fixture
def make_client(endless_bundle):
    """Return a function that makes a client of another server of the endless tiny world."""
    return lambda port: Client(port, endless_bundle.name)


@pytest.fixture
def picture():
    """Return a function that makes a picture file of one colour."""

    def make(size=(64, 64), mode="RGB", kind="PNG", **options):
        file = io.BytesIO()
        Image.new(mode, size, 0).save(file, kind, **options)
        return file.getvalue()

    return make
