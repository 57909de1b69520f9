"""Who may connect, how often, and with how much: checked before anything else runs."""

import secrets
import time
from collections.abc import Callable, Set
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genie_gym.serve.config import LOOPBACK, ServeConfig
from genie_gym.serve.problems import (
    NO_TOKEN,
    TOO_MANY_REQUESTS,
    TOO_MANY_SESSIONS,
    UPLOAD_TOO_LARGE,
    WRONG_ORIGIN,
    Kind,
    ProblemError,
)
from genie_gym.serve.protocol import problem_info

BURST_SECONDS = 10
"""Seconds' worth of requests that may come at once: a page of thumbnails does."""
MAX_ADDRESSES = 10_000
"""Addresses that are counted; then those that have been quiet are forgotten."""
COOKIE = "genie_gym_token"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Bucket:
    """Lets through so many requests a second, and bursts.

    Args:
        rate: requests a second.
        clock: seconds; another one in tests.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left = self._full = max(rate * BURST_SECONDS, 1.0)
        self._since = clock()

    def take(self) -> float:
        """Take one request; return the seconds to wait for it, 0 if none."""
        self._refill()
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._rate

    def is_full(self) -> bool:
        """Return whether nothing has been taken for long."""
        self._refill()
        return self._left == self._full

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._full, self._left + (now - self._since) * self._rate)
        self._since = now


class Access:
    """ASGI middleware: host, origin, rate, token and size of every request and WebSocket.

    Args:
        app: what runs behind it.
        config: who may connect.
        open_paths: what anyone may read: the page, which asks for the token.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, open_paths: Set[str]) -> None:
        self._app = app
        self._config = config
        self._open_paths = open_paths
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a connection through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        try:
            self._check(scope)
        except ProblemError as problem:
            if scope["type"] == "websocket":
                return await _refuse_socket(problem, receive, send)
            return await problem_response(problem)(scope, receive, send)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        await self._answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._config.is_local and _host_name(host) not in LOOPBACK:
            raise ProblemError(
                WRONG_ORIGIN,
                f"this server answers to {list(LOOPBACK)} alone, got host {host[:80]!r}",
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise ProblemError(
                WRONG_ORIGIN, f"a page of {origin[:80]!r} may not use the server at {host[:80]!r}"
            )
        if wait := self._bucket(scope).take():
            raise ProblemError(TOO_MANY_REQUESTS, f"too many requests. Try again in {wait:.2f} s")
        is_open = scope["type"] == "http" and scope["path"] in self._open_paths
        if self._config.token is not None and not is_open and not self._knows_token(scope, headers):
            raise ProblemError(
                NO_TOKEN,
                "the token that the server was started with is missing or wrong. Send "
                "'Authorization: Bearer TOKEN', or open /?token=TOKEN",
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return
        if int(length[:20]) > self._config.max_upload_bytes:
            raise _too_large(self._config)

    def _bucket(self, scope: Scope) -> Bucket:
        address = (scope.get("client") or ("",))[0]
        if address not in self._buckets and len(self._buckets) >= MAX_ADDRESSES:
            busy = {key: one for key, one in self._buckets.items() if not one.is_full()}
            self._buckets = busy
        return self._buckets.setdefault(address, Bucket(self._config.requests_per_second))

    def _knows_token(self, scope: Scope, headers: Headers) -> bool:
        told = [headers.get("authorization", "").removeprefix("Bearer ")]
        told += _query_tokens(scope)
        # SimpleCookie gives all of them up at one that it dislikes; other servers set theirs.
        cookies = cookie_parser(headers.get("cookie", ""))
        told += [cookies[COOKIE]] if COOKIE in cookies else []
        return self._is_among(told)

    def _is_among(self, told: list[str]) -> bool:
        assert self._config.token is not None
        own = self._config.token.encode()
        # Every one is compared, in constant time.
        return any([secrets.compare_digest(one.encode(), own) for one in told])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a request whose body may have no stated length, and add headers to its answer."""
        num_bytes, is_begun, is_too_large = 0, False, False

        async def counted() -> Message:
            nonlocal num_bytes, is_too_large
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._config.max_upload_bytes:
                is_too_large = True
                return {"type": "http.disconnect"}
            return message

        async def dressed(message: Message) -> None:
            nonlocal is_begun
            if is_too_large and not is_begun:
                return
            if message["type"] == "http.response.start":
                is_begun = True
                self._add_headers(scope, message)
            await send(message)

        try:
            await self._app(scope, counted, dressed)
        except Exception:
            if not is_too_large or is_begun:
                raise
        if is_too_large and not is_begun:
            await problem_response(_too_large(self._config))(scope, receive, send)

    def _add_headers(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in SECURITY_HEADERS.items():
            headers[name] = value
        headers.setdefault("Cache-Control", "no-cache")  # the page's files change together
        if self._config.token is not None and self._is_among(_query_tokens(scope)):
            headers.append(
                "Set-Cookie", f"{COOKIE}={self._config.token}; Path=/; HttpOnly; SameSite=Strict"
            )


def problem_response(problem: ProblemError) -> JSONResponse:
    """Return an error as an HTTP answer."""
    waits = problem.kind in (TOO_MANY_REQUESTS, TOO_MANY_SESSIONS)
    headers = {"Retry-After": "1"} if waits else {}
    if problem.kind is NO_TOKEN:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        problem_info(problem).model_dump(),
        status_code=problem.kind.status,
        headers=headers,
        media_type="application/problem+json",
    )


def close_code(kind: Kind) -> int:
    """Return the code that a WebSocket is closed with."""
    return 4000 + kind.status


async def _refuse_socket(problem: ProblemError, receive: Receive, send: Send) -> None:
    """Accept and close: a refused handshake would tell a page no reason."""
    await receive()
    await send({"type": "websocket.accept"})
    code = close_code(problem.kind)
    await send({"type": "websocket.close", "code": code, "reason": problem.kind.title})


def _too_large(config: ServeConfig) -> ProblemError:
    return ProblemError(
        UPLOAD_TOO_LARGE, f"a request may have {config.max_upload_bytes} bytes. Send a smaller one"
    )


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _query_tokens(scope: Scope) -> list[str]:
    query: Any = scope.get("query_string", b"")
    try:
        return parse_qs(query.decode("latin-1"), max_num_fields=100).get("token", [])
    except ValueError:
        return []
