"""The ASGI application, and the process that serves it."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from genie_gym import __version__
from genie_gym.errors import ConfigError, GenieError
from genie_gym.serve import problems as kinds
from genie_gym.serve.access import Access, problem_response
from genie_gym.serve.config import ServeConfig
from genie_gym.serve.http import make_router
from genie_gym.serve.problems import Kind, ProblemError, as_problem
from genie_gym.serve.protocol import MAX_MESSAGE_BYTES, ProblemInfo
from genie_gym.serve.server import GameServer
from genie_gym.serve.websocket import play
from genie_gym.serve.worlds import PlannerFactory

PAGE = Path(__file__).parent / "static"
DRAIN_SECONDS = 2.0
"""How long steps that have begun may take when the server shuts down."""
LOG = logging.getLogger("genie_gym.serve")


def make_app(config: ServeConfig, planner: PlannerFactory | None = None) -> FastAPI:
    """Return the application; its `state.server` is the `GameServer` behind it.

    Args:
        config: what is served, and to whom.
        planner: makes planners for sessions; None if none can play.

    Raises:
        ConfigError: two worlds have the same name.
        WorldError: there is no such world, or it cannot be played.
        PolicyError: the policy is damaged, or fits none of the worlds.
        DeviceError: the device is not there.
    """
    server = GameServer(config, planner)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(server.expire())
        yield
        expiring.cancel()
        await server.close(DRAIN_SECONDS)

    # The usual pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="genie-gym", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.server = server
    files = {"/": PAGE / "index.html", **{f"/{file.name}": file for file in PAGE.iterdir()}}
    app.add_middleware(Access, config=config, open_paths=set(files))
    app.include_router(make_router(server))
    # Not StaticFiles: mounted at "/" it answers 404 where another call's method is wrong.
    for path, file in files.items():
        app.add_route(path, _page_file(file), methods=["GET"])

    @app.websocket("/sessions/{id}/play")
    async def play_session(socket: WebSocket, id: str) -> None:
        await play(server, socket, id)

    _add_handlers(app)
    _describe_problems(app)
    return app


def _page_file(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return FileResponse(file)

    return answer


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(GenieError)
    async def _(_: Request, error: GenieError) -> Response:
        return problem_response(as_problem(error))

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return problem_response(ProblemError(kinds.INVALID_REQUEST, f"{place}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        known = {404: kinds.NOT_FOUND, 405: kinds.METHOD_NOT_ALLOWED, 400: kinds.MALFORMED}
        kind = known.get(error.status_code, Kind(error.status_code, "http", "HTTP error"))
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
        response = problem_response(ProblemError(kind, detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _(_: Request, error: Exception) -> Response:
        LOG.error("a request broke off", exc_info=error)
        return problem_response(
            ProblemError(kinds.INTERNAL, "an error of the server's own; see its log")
        )


def _describe_problems(app: FastAPI) -> None:
    """Put the schema of errors, which no call returns, into the OpenAPI document."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        document["components"]["schemas"]["ProblemInfo"] = ProblemInfo.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


class Process(uvicorn.Server):
    """uvicorn, set up for games; it tells its clients before it ends.

    Args:
        app: what `make_app` gave.
    """

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,  # it would write tokens down
            log_level="warning",
            timeout_graceful_shutdown=2,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            server_header=False,
        )
        super().__init__(config)
        self._games: GameServer = app.state.server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the steps that have begun, and close every connection with a reason."""
        await self._games.drain(DRAIN_SECONDS)
        await super().shutdown(sockets)


def serve(
    config: ServeConfig,
    planner: PlannerFactory | None = None,
    *,
    on_ready: Callable[[str], object] = lambda url: None,
) -> None:
    """Serve until SIGTERM, after which it ends within five seconds.

    Args:
        config: what is served, and to whom.
        planner: makes planners for sessions.
        on_ready: called with the address of the page when connections are taken.

    Raises:
        ConfigError: the port is not free, or the address is not this machine's.
        WorldError: there is no such world, or it cannot be played.
        PolicyError: the policy is damaged, or fits none of the worlds.
        DeviceError: the device is not there.
        KeyboardInterrupt: Ctrl-C; it ends in the same way.
    """
    listening = listen(config)
    app = make_app(config, planner)
    host = f"[{config.host}]" if ":" in config.host else config.host
    on_ready(f"http://{host}:{listening.getsockname()[1]}/")
    # uvicorn raises the signal anew when it is done; then there is nothing left to end.
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        Process(app).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, previous)


def listen(config: ServeConfig) -> socket.socket:
    """Return a socket that takes connections.

    Raises:
        ConfigError: the port is not free, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listening = socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror}. Take another "
            "--port, or --port 0 for any free one"
        ) from error
    return listening
