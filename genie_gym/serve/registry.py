"""The sessions of a server by their ids: who holds one, which have expired."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from genie_gym.serve.problems import (
    EXPIRED_SESSION,
    SESSION_TAKEN,
    TOO_MANY_SESSIONS,
    UNKNOWN_SESSION,
    ProblemError,
)
from genie_gym.serve.session import Session

NUM_REMEMBERED = 1000
"""Ids of expired sessions that are told from ids that never were."""


@dataclass
class Entry:
    """A session in use or waiting for its player."""

    session: Session
    is_taken: bool = False
    last_used: float = field(default_factory=time.monotonic)


class Registry:
    """Sessions by id. All of it runs on the event loop's thread.

    Args:
        max_sessions: games at once, those that are being opened included.
        idle_seconds: time after which a session that nobody uses expires.
    """

    def __init__(self, max_sessions: int, idle_seconds: float) -> None:
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._entries: dict[str, Entry] = {}
        self._expired: deque[str] = deque(maxlen=NUM_REMEMBERED)
        self._num_opening = 0

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._entries)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Hold a place for a session while it is made.

        Raises:
            ProblemError: there is none left.
        """
        if len(self._entries) + self._num_opening >= self._max_sessions:
            raise ProblemError(
                TOO_MANY_SESSIONS,
                f"all {self._max_sessions} sessions are in use. Try again later, or start the "
                "server with a larger --max-sessions",
            )
        self._num_opening += 1
        try:
            yield
        finally:
            self._num_opening -= 1

    def add(self, session: Session) -> None:
        """Take in a new session."""
        self._entries[session.id] = Entry(session)

    def get(self, id: str) -> Session:
        """Return a session, whoever holds it.

        Raises:
            ProblemError: there is none, or it has expired.
        """
        return self._entry(id).session

    @contextmanager
    def hold(self, id: str) -> Iterator[Session]:
        """Give a session to one client alone.

        Raises:
            ProblemError: there is none, it has expired, or another client holds it.
        """
        entry = self._entry(id)
        if entry.is_taken:
            raise ProblemError(
                SESSION_TAKEN, "another client plays this session. Open one of your own"
            )
        entry.is_taken = True
        try:
            yield entry.session
        finally:
            entry.is_taken = False
            entry.last_used = time.monotonic()

    def touch(self, id: str) -> None:
        """Note that a session is in use."""
        if id in self._entries:
            self._entries[id].last_used = time.monotonic()

    def is_idle(self, id: str) -> bool:
        """Return whether nobody has used a session for too long; one that is gone counts so."""
        entry = self._entries.get(id)
        return entry is None or time.monotonic() - entry.last_used > self._idle_seconds

    def remove(self, id: str, *, is_expired: bool = False) -> Session:
        """Forget a session and return it.

        Raises:
            ProblemError: there is none, or it has expired.
        """
        session = self._entry(id).session
        del self._entries[id]
        if is_expired:
            self._expired.append(id)
        return session

    def ids(self) -> list[str]:
        """Return all sessions."""
        return list(self._entries)

    def idle_ids(self) -> list[str]:
        """Return the sessions that are to expire: idle, and held by nobody."""
        return [id for id, one in self._entries.items() if not one.is_taken and self.is_idle(id)]

    def _entry(self, id: str) -> Entry:
        if id in self._entries:
            return self._entries[id]
        if id in self._expired:
            raise ProblemError(
                EXPIRED_SESSION,
                f"this session was idle for more than {self._idle_seconds:g} s. Open another",
            )
        raise ProblemError(UNKNOWN_SESSION, "there is no such session. Open one: POST /sessions")
