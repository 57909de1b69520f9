"""A player at a WebSocket. The messages stand in docs/serve.md."""

import asyncio
import logging
from typing import assert_never

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from genie_gym.errors import GenieError
from genie_gym.serve.access import Bucket, close_code
from genie_gym.serve.problems import ProblemError, as_problem
from genie_gym.serve.protocol import (
    MAX_MESSAGE_BYTES,
    BadMessageError,
    Change,
    Hold,
    Pause,
    Rewind,
    Run,
    TakeStep,
    error_message,
    frame_message,
    read_message,
    session_message,
    settings_message,
)
from genie_gym.serve.server import GameServer
from genie_gym.serve.session import Session
from genie_gym.serve.steps import Step

LOG = logging.getLogger("genie_gym.serve")
IDLE_CODE = 4408


class ClosingError(Exception):
    """Raised to end a connection with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


async def play(server: GameServer, socket: WebSocket, id: str) -> None:
    """Serve one connection from its first message to its last; free its session then."""
    await socket.accept()
    try:
        with server.registry.hold(id) as session, server.connected():
            try:
                await Player(server, socket, session).serve()
            finally:
                await server.free(id)
    except WebSocketDisconnect:
        return
    except ClosingError as closing:
        await _close(socket, closing.code, str(closing))
    except ProblemError as problem:
        await _close(socket, close_code(problem.kind), problem.kind.title)
    except Exception:
        await _break_off(socket)


async def _break_off(socket: WebSocket) -> None:
    """Log the error that is being handled and tell the client, unless it left while being told."""
    if socket.application_state is not WebSocketState.DISCONNECTED:
        LOG.exception("a connection broke off")
        await _close(socket, 1011, "internal error")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is not WebSocketState.DISCONNECTED:
        try:
            # A reason may have 123 bytes.
            await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
        except (RuntimeError, WebSocketDisconnect):  # the other side was faster
            return


class Player:
    """One client at one session: reads its messages, and runs the game by itself if asked to."""

    def __init__(self, server: GameServer, socket: WebSocket, session: Session) -> None:
        self._server = server
        self._socket = socket
        self._session = session
        self._held = 0
        self._fps: float | None = None
        self._running: asyncio.Task[None] | None = None
        self._pause = asyncio.Event()
        self._obeying = asyncio.Lock()

    async def serve(self) -> None:
        """Play until the connection ends, which it does by an exception.

        Raises:
            WebSocketDisconnect: the client left.
            ClosingError: it idles, breaks the protocol, or the server shuts down.
        """
        await self._socket.send_text(session_message(self._session, self._server.config.max_rewind))
        await self._show(self._session.steps[-1])
        watches = [self._read(), self._watch_idle(), self._watch_closing()]
        tasks = [asyncio.ensure_future(watch) for watch in watches]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._stop()  # a step that has begun is finished and shown
            async with self._obeying:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self) -> None:
        bucket = Bucket(self._server.config.requests_per_second)
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            while wait := bucket.take():
                await asyncio.sleep(wait)
            self._server.registry.touch(self._session.id)
            text = message.get("text")
            if text is None:
                raise ClosingError(1003, "messages are JSON texts")
            if len(text.encode(errors="replace")) > MAX_MESSAGE_BYTES:
                raise ClosingError(1009, f"a message may have {MAX_MESSAGE_BYTES} bytes")
            try:
                command = read_message(text)
            except BadMessageError as error:
                raise ClosingError(1007, str(error)) from error
            async with self._obeying:
                await self._obey(command)

    async def _obey(self, command: Hold | TakeStep | Run | Pause | Rewind | Change) -> None:
        """Do what a message asks for, or tell why not."""
        try:
            match command:
                case Hold():
                    self._session.check_action(command.action)
                    self._held = command.action
                case TakeStep():
                    await self._take_single(command.action)
                case Run():
                    await self._run(command.fps)
                case Pause():
                    await self._stop()
                    await self._tell_settings()
                case Rewind():
                    await self._halt()
                    call = self._server.worker.call
                    await self._show(await call(self._session.rewind, command.num_steps))
                case Change():
                    changes = command.model_dump(exclude={"type"}, exclude_none=True)
                    await self._server.worker.call(self._session.change, changes)
                    if "action_mode" in changes:
                        self._held = 0  # what was held may be none of the other actions
                    await self._tell_settings()
                case _:
                    assert_never(command)
        except GenieError as error:
            await self._socket.send_text(error_message(as_problem(error)))

    async def _take_single(self, action: int | None) -> None:
        await self._halt()
        await self._step(self._held if action is None else action)

    async def _run(self, fps: float) -> None:
        await self._stop()
        self._session.check_going_on()
        self._fps = fps
        self._pause.clear()
        self._running = asyncio.create_task(self._keep_stepping(fps))
        await self._tell_settings()

    async def _keep_stepping(self, fps: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while not self._pause.is_set():
                step = await self._step(self._held)
                if step.is_over:
                    break
                # A game that came too late does not hurry after.
                due = max(due + 1 / fps, loop.time())
                await self._wait(due - loop.time())
        except GenieError as error:
            await self._socket.send_text(error_message(as_problem(error)))
        except Exception:
            await _break_off(self._socket)
            return
        if not self._pause.is_set():
            self._fps = None
            await self._tell_settings()

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._pause.wait(), seconds)
        except TimeoutError:
            return

    async def _stop(self) -> None:
        """Stop running, after the step that has begun."""
        self._pause.set()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        self._running, self._fps = None, None

    async def _halt(self) -> None:
        """Stop running, and say so if it ran."""
        was_running = self._fps is not None
        await self._stop()
        if was_running:
            await self._tell_settings()

    async def _step(self, action: int) -> Step:
        step = await self._server.step(self._session, action)
        await self._show(step)
        return step

    async def _show(self, step: Step) -> None:
        await self._socket.send_bytes(frame_message(self._session, step))

    async def _tell_settings(self) -> None:
        await self._socket.send_text(settings_message(self._session, self._fps))

    async def _watch_idle(self) -> None:
        while not self._server.registry.is_idle(self._session.id):
            await asyncio.sleep(min(self._server.config.idle_seconds / 4, 5.0))
        raise ClosingError(IDLE_CODE, "idle for too long")

    async def _watch_closing(self) -> None:
        await self._server.closing.wait()
        raise ClosingError(1001, "the server is shutting down")
