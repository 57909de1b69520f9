import pytest

from collectors.episodes import play_episode


@pytest.fixture
def break_every_third_episode(monkeypatch):
    """Make the recorder stop at every third episode, as Ctrl-C would; list what was begun."""
    begun = []

    def play_some(*arguments):
        begun.append(arguments)
        if len(begun) % 3 == 0:
            raise KeyboardInterrupt
        return play_episode(*arguments)

    monkeypatch.setattr("collectors.episodes.play_episode", play_some)
    return begun
