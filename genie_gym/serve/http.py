"""The HTTP API. What its calls mean stands in docs/serve.md."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Path, Query, Response, UploadFile
from pydantic import Field

from genie_gym import __version__
from genie_gym.envs.generation import parse_actions
from genie_gym.serve import problems as kinds
from genie_gym.serve.films import MEDIA_TYPES, Film, film_response, replay_response
from genie_gym.serve.problems import Kind, ProblemError
from genie_gym.serve.protocol import (
    MAX_INDEX,
    MAX_SEED,
    Actions,
    Back,
    Health,
    SessionInfo,
    StepInfo,
    Steps,
    WorldInfo,
    session_info,
    step_info,
    world_info,
)
from genie_gym.serve.server import Fit, GameServer

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemInfo"}}}
NO_SESSION = (kinds.UNKNOWN_SESSION, kinds.EXPIRED_SESSION, kinds.INVALID_REQUEST)
NO_BODY = (kinds.MALFORMED, kinds.UPLOAD_TOO_LARGE, kinds.INVALID_REQUEST, kinds.SHUTTING_DOWN)
NO_GAME = (*NO_BODY, kinds.UNKNOWN_WORLD, kinds.UNAVAILABLE, kinds.NOT_AN_IMAGE)

SessionId = Annotated[str, Path(max_length=64)]
Start = Annotated[Literal["real"] | Annotated[int, Field(ge=0, le=MAX_INDEX)] | None, Form()]
Image = Annotated[UploadFile | None, File()]
Seed = Annotated[int | None, Form(ge=0, le=MAX_SEED)]


def make_router(server: GameServer) -> APIRouter:
    """Return all calls of a server."""
    router = APIRouter()
    names = {"enum": sorted(server.worlds)}  # for the document; other names are unknown worlds
    _add_worlds(router, server, names)
    _add_sessions(router, server, names)
    _add_playing(router, server)
    _add_generate(router, server, names)
    return router


def _add_worlds(router: APIRouter, server: GameServer, names: dict[str, Any]) -> None:
    @router.get("/health", responses=_problems())
    async def health() -> Health:
        """Tell that the server is there, and how busy it is."""
        return Health(
            status="ok",
            version=__version__,
            num_sessions=len(server.registry),
            max_sessions=server.config.max_sessions,
            num_steps=server.worker.num_steps,
        )

    @router.get("/worlds", responses=_problems())
    async def worlds() -> list[WorldInfo]:
        """List the worlds that can be played."""
        return [world_info(served) for served in server.worlds.values()]

    @router.get(
        "/worlds/{world}/starts/{index}",
        response_class=Response,
        responses=_bytes("image/png")
        | _problems(kinds.UNKNOWN_WORLD, kinds.NOT_FOUND, kinds.INVALID_REQUEST),
    )
    async def start(
        world: Annotated[str, Path(json_schema_extra=names)],
        index: Annotated[int, Path(ge=0, le=MAX_INDEX)],
    ) -> Response:
        """Show the frame that a start begins with."""
        thumbnails = server.find_world(world).thumbnails
        if index >= len(thumbnails):
            raise ProblemError(
                kinds.NOT_FOUND, f"start must lie in [0, {len(thumbnails)}), got {index}"
            )
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(thumbnails[index], media_type="image/png", headers=headers)


def _add_sessions(router: APIRouter, server: GameServer, names: dict[str, Any]) -> None:
    @router.post(
        "/sessions",
        status_code=201,
        responses=_problems(*NO_GAME, kinds.EMPTY_UPLOAD, kinds.TOO_MANY_SESSIONS),
    )
    async def open_session(
        world: Annotated[str, Form(json_schema_extra=names)],
        start: Start = None,
        image: Image = None,
        fit: Annotated[Fit, Form()] = "letterbox",
        seed: Seed = None,
    ) -> SessionInfo:
        """Open a game."""
        session = await server.open(
            server.find_world(world),
            start=start,
            image=None if image is None else await image.read(),
            fit=fit,
            seed=seed,
        )
        return session_info(session, server.config.max_rewind)

    @router.get("/sessions/{id}", responses=_problems(*NO_SESSION))
    async def session(id: SessionId) -> SessionInfo:
        """Describe a game."""
        return session_info(server.registry.get(id), server.config.max_rewind)

    @router.delete(
        "/sessions/{id}", status_code=204, responses=_problems(*NO_SESSION, kinds.SESSION_TAKEN)
    )
    async def delete_session(id: SessionId) -> None:
        """End a game and free all it holds."""
        with server.registry.hold(id):
            await server.free(id)


def _add_playing(router: APIRouter, server: GameServer) -> None:
    @router.post(
        "/sessions/{id}/step",
        responses=_problems(
            *NO_SESSION, *NO_BODY, kinds.SESSION_TAKEN, kinds.EPISODE_OVER, kinds.INVALID_ACTION
        ),
    )
    async def step(id: SessionId, body: Actions) -> Steps:
        """Play actions, up to the end of the game."""
        _check_num_actions(server, body.actions)
        with server.registry.hold(id) as held:
            steps = await server.play(held, body.actions)
            # On another thread: a thousand pictures would hold up all who play.
            return await asyncio.to_thread(
                lambda: Steps(steps=[step_info(held, step) for step in steps])
            )

    @router.post(
        "/sessions/{id}/rewind",
        responses=_problems(*NO_SESSION, *NO_BODY, kinds.SESSION_TAKEN, kinds.CANNOT_REWIND),
    )
    async def rewind(id: SessionId, body: Back) -> StepInfo:
        """Go back, and tell what is the newest step then."""
        with server.registry.hold(id) as held:
            newest = await server.worker.call(held.rewind, body.num_steps)
            return step_info(held, newest)

    @router.get(
        "/sessions/{id}/episode",
        response_class=Response,
        responses=_bytes(*MEDIA_TYPES.values(), "application/json")
        | _problems(*NO_SESSION, kinds.NOT_REPLAYABLE),
    )
    async def episode(
        id: SessionId, format: Annotated[Literal["mp4", "zip", "replay"], Query()] = "mp4"
    ) -> Response:
        """Save the episode so far."""
        found = server.registry.get(id)
        if format == "replay":
            return replay_response(await server.worker.call(found.replay), found.world.name)
        async with server.saving:
            frames = await server.frames(found)
            return await film_response(Film(frames, found.world.fps, format))


def _add_generate(router: APIRouter, server: GameServer, names: dict[str, Any]) -> None:
    @router.post(
        "/generate",
        response_class=Response,
        responses=_bytes(*MEDIA_TYPES.values())
        | _problems(*NO_GAME, kinds.EMPTY_UPLOAD, kinds.TOO_MANY_SESSIONS, kinds.INVALID_ACTION),
    )
    async def generate(
        world: Annotated[str, Form(json_schema_extra=names)],
        actions: Annotated[str, Form(description="Indices with commas between them: 2,2,3,0")],
        image: Image = None,
        start: Start = None,
        fit: Annotated[Fit, Form()] = "letterbox",
        seed: Seed = None,
        format: Annotated[Literal["mp4", "zip"], Form()] = "mp4",
    ) -> Response:
        """Imagine what actions lead to, from an image or a start."""
        served = server.find_world(world)
        indices = parse_actions(actions)
        _check_num_actions(server, indices)
        content = None if image is None else await image.read()
        session = await server.generate(
            served, indices, start=start, image=content, fit=fit, seed=seed
        )
        async with server.saving:
            frames = await server.frames(session)
            return await film_response(Film(frames, served.fps, format))


def _check_num_actions(server: GameServer, actions: list[int]) -> None:
    if len(actions) > server.config.max_actions:
        raise ProblemError(
            kinds.INVALID_REQUEST,
            f"a request may have {server.config.max_actions} actions, got {len(actions)}",
        )


def _problems(*expected: Kind) -> dict[int | str, dict[str, Any]]:
    """Return how the errors of a call are documented."""
    titles: dict[int | str, set[str]] = {}
    for kind in (*expected, kinds.NO_TOKEN, kinds.WRONG_ORIGIN, kinds.TOO_MANY_REQUESTS):
        titles.setdefault(kind.status, set()).add(kind.title)
    return {
        status: {"description": " / ".join(sorted(names)), "content": PROBLEM}
        for status, names in titles.items()
    }


def _bytes(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return how a file of one of these types is documented."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    json = {"schema": {"type": "object"}}
    content = {kind: json if kind == "application/json" else binary for kind in media_types}
    return {200: {"description": "A file", "content": content}}
