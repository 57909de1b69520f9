import socket
import sys

import pytest

from genie_gym.cli import main

pytest.importorskip("fastapi")


def refused(capsys, *arguments):
    assert main(["serve", *(str(argument) for argument in arguments)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("genie-gym serve: ") and "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--world", "nowhere"], "no world 'nowhere'"),
        (["--port=70000"], "serve.port must lie in [0, 65535], got 70000"),
        (["--token=short"], "serve.token must be 8 or more of the characters"),
        (["--max-sessions=0"], "serve.max_sessions must be at least 1, got 0"),
        (["--idle-seconds=0"], "serve.idle_seconds must be a finite number above 0, got 0.0"),
        (["--num-samples=1"], "num_samples must exceed num_kept"),
        (["--host=192.0.2.1"], "cannot listen on 192.0.2.1 port 8000"),
    ],
)
def test_a_flag_is_refused_in_one_line(flags, text, capsys):
    assert text in refused(capsys, *flags)


def test_a_port_that_is_taken_is_refused_with_the_cure(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused(capsys, "--port", taken.getsockname()[1])
    assert "Take another --port, or --port 0 for any free one" in line


def test_two_worlds_of_one_name_are_refused(endless_bundle, capsys):
    line = refused(capsys, "--port=0", "--world", endless_bundle, "--world", endless_bundle)
    assert f"two worlds are called {endless_bundle.name!r}" in line


def test_without_the_extra_the_cure_is_named(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "genie_gym.serve.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refused(capsys)
    assert "needs the package uvicorn, which is not installed" in line
    assert "pip install 'genie-gym[serve]'" in line
