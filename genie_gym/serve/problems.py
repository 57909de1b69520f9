"""What a client can do wrong, each with its HTTP status and a name."""

from dataclasses import dataclass

from genie_gym.errors import (
    GenieError,
    InvalidActionError,
    PictureTooLargeError,
    PromptError,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of problems, as RFC 9457 has them."""

    status: int
    name: str
    title: str


EMPTY_UPLOAD = Kind(400, "empty-upload", "Empty upload")
MALFORMED = Kind(400, "malformed", "Malformed request")
NO_TOKEN = Kind(401, "no-token", "Token missing or wrong")
WRONG_ORIGIN = Kind(403, "wrong-origin", "Another origin")
UNKNOWN_WORLD = Kind(404, "unknown-world", "Unknown world")
UNKNOWN_SESSION = Kind(404, "unknown-session", "Unknown session")
NOT_FOUND = Kind(404, "not-found", "Not found")
METHOD_NOT_ALLOWED = Kind(405, "method-not-allowed", "Method not allowed")
SESSION_TAKEN = Kind(409, "session-taken", "Session taken")
EPISODE_OVER = Kind(409, "episode-over", "Episode over")
CANNOT_REWIND = Kind(409, "cannot-rewind", "Cannot rewind so far")
NOT_REPLAYABLE = Kind(409, "not-replayable", "Not replayable")
UNAVAILABLE = Kind(409, "unavailable", "Unavailable in this session")
EXPIRED_SESSION = Kind(410, "expired-session", "Expired session")
UPLOAD_TOO_LARGE = Kind(413, "upload-too-large", "Upload too large")
TOO_MANY_PIXELS = Kind(413, "too-many-pixels", "Picture too large")
NOT_AN_IMAGE = Kind(415, "not-an-image", "Not a picture to start from")
INVALID_ACTION = Kind(422, "invalid-action", "Invalid action")
INVALID_REQUEST = Kind(422, "invalid-request", "Invalid request")
TOO_MANY_REQUESTS = Kind(429, "too-many-requests", "Too many requests")
INTERNAL = Kind(500, "internal", "Internal error")
TOO_MANY_SESSIONS = Kind(503, "too-many-sessions", "Too many sessions")
SHUTTING_DOWN = Kind(503, "shutting-down", "Shutting down")

_KINDS_OF_ERRORS: dict[type[GenieError], Kind] = {
    PictureTooLargeError: TOO_MANY_PIXELS,
    PromptError: NOT_AN_IMAGE,
    InvalidActionError: INVALID_ACTION,
}


class ProblemError(GenieError):
    """Raised when a request cannot be met."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def as_problem(error: GenieError) -> ProblemError:
    """Return any error that a user can cause as a problem."""
    if isinstance(error, ProblemError):
        return error
    for cls, kind in _KINDS_OF_ERRORS.items():
        if isinstance(error, cls):
            return ProblemError(kind, str(error))
    return ProblemError(INVALID_REQUEST, str(error))
