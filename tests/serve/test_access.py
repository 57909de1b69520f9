import pytest
from websockets.exceptions import ConnectionClosed

from genie_gym.errors import ConfigError
from genie_gym.serve.access import Bucket
from genie_gym.serve.config import ServeConfig

TOKEN = "open-sesame"


def test_a_bucket_lets_a_burst_through_and_then_its_rate():
    now = [0.0]
    bucket = Bucket(rate=2.0, clock=lambda: now[0])
    assert [bucket.take() for _ in range(20)] == [0.0] * 20
    assert bucket.take() == 0.5
    now[0] = 0.5
    assert bucket.take() == 0.0 and bucket.take() == 0.5 and not bucket.is_full()
    now[0] = 100.0
    assert bucket.is_full()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"host": "0.0.0.0"}, "can be reached by others, so serve.token must be set"),
        ({"token": "short"}, "8 or more of the characters"),
        ({"token": "eight; chars"}, "need no quoting in an address"),
        ({"max_sessions": 0}, "serve.max_sessions must be at least 1, got 0"),
        ({"max_rewind": -1}, "serve.max_rewind must be 0 or more, got -1"),
        ({"idle_seconds": 0.0}, "serve.idle_seconds must be a finite number above 0, got 0.0"),
        ({"port": 65536}, r"serve.port must lie in \[0, 65535\], got 65536"),
        ({"worlds": ()}, "must name at least one world"),
    ],
)
def test_a_setting_is_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        ServeConfig(**changes)


def test_a_server_with_a_token_asks_everyone_for_it(serve_with):
    with serve_with(token=TOKEN) as client:
        for path in ("/health", "/openapi.json", "/nowhere", "/../worlds", "//"):
            status, name, text = client.get(path).problem
            assert (status, name) == (401, "no-token") and "open /?token=TOKEN" in text
            assert client.get(path, authorization="Bearer open-sesamo").status == 401
        assert client.get("/health", authorization=f"Bearer {TOKEN}").status == 200
        # The page itself is for all, so that it can ask for the token; it tells nobody what it is.
        for path in ("/", "/main.js", "/?token=open-sesamo"):
            answer = client.get(path)
            assert answer.status == 200 and "set-cookie" not in answer.headers
        # A page is opened with the token in its address once; its cookie does the rest.
        cookie = client.get(f"/health?token={TOKEN}").headers["set-cookie"]
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
        assert client.get("/health", cookie=cookie.partition(";")[0]).status == 200
        assert client.get("/health", cookie="genie_gym_token=open-sesamo").status == 401
        others = 'a={"x":1}; x@y=1; c; ' + cookie.partition(";")[0]  # another server's at this host
        assert client.get("/health", cookie=others).status == 200

        for path, code in {"": 4401, "?token=wrong": 4401, f"?token={TOKEN}": 4404}.items():
            with client.connect("none", path) as player, pytest.raises(ConnectionClosed) as closed:
                player.receive()
            assert closed.value.rcvd.code == code


def test_another_site_may_not_use_the_server(client):
    here = f"127.0.0.1:{client.port}"
    assert client.get("/health", origin=f"http://{here}").status == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{client.port}", "http://[::1"):
        status, name, text = client.get("/health", origin=origin).problem
        assert (status, name) == (403, "wrong-origin") and repr(origin) in text
        with client.connect("none", origin=origin) as player:
            with pytest.raises(ConnectionClosed) as closed:
                player.receive()
        assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "[::1", "127.0.0.1.nip.io"]
)
def test_a_name_that_was_pointed_here_is_refused(client, host):
    status, name, text = client.get("/health", host=host).problem
    assert (status, name) == (403, "wrong-origin") and "['127.0.0.1', 'localhost', '::1']" in text


def test_who_asks_too_often_is_told_to_wait(serve_with):
    with serve_with(requests_per_second=0.5) as client:
        answers = [client.get("/health") for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert answers[-1].problem[1] == "too-many-requests"
        assert answers[-1].headers["retry-after"] == "1"


def test_an_upload_that_is_too_large_is_refused_with_or_without_its_length(serve_with, picture):
    with serve_with(max_upload_bytes=1000) as client:
        expected = (413, "upload-too-large", "a request may have 1000 bytes. Send a smaller one")
        assert client.form("/sessions", b"x" * 1000).problem == expected
        body = iter([b"{" * 600, b"{" * 600])  # sent in chunks
        answer = client.request("POST", "/sessions/a/step", body, content_type="application/json")
        assert answer.problem == expected
        client.open(picture())


def test_a_page_may_load_nothing_from_elsewhere(client):
    headers = client.get("/health").headers
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
