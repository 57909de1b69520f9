"""What a server does for its clients, whatever they speak."""

import asyncio
import ctypes
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from genie_gym.envs.prompts import prompt_frames
from genie_gym.evaluation.demo import side_by_side
from genie_gym.serve.config import ServeConfig
from genie_gym.serve.problems import (
    EMPTY_UPLOAD,
    INVALID_REQUEST,
    SHUTTING_DOWN,
    UNAVAILABLE,
    ProblemError,
)
from genie_gym.serve.registry import Registry
from genie_gym.serve.session import Session, begin
from genie_gym.serve.steps import Step, unpack
from genie_gym.serve.worker import Worker
from genie_gym.serve.worlds import PlannerFactory, ServedWorld, find_world, load_worlds

Frames = UInt8[np.ndarray, "T H W C"]
Fit = Literal["letterbox", "crop", "stretch"]
"""How a picture of another shape is brought to size: the FITS of `genie_gym.envs.prompts`."""


class GameServer:
    """Worlds, the sessions in them, and the thread that steps them.

    Args:
        config: what is served.
        planner: makes planners; None if none can play.

    Raises:
        ConfigError: two worlds have the same name.
        WorldError: there is no such world, or it cannot be played.
        PolicyError: the policy is damaged, or fits none of the worlds.
        DeviceError: the device is not there.
    """

    def __init__(self, config: ServeConfig, planner: PlannerFactory | None = None) -> None:
        self.config = config
        self.worlds = load_worlds(config, planner)
        self.registry = Registry(config.max_sessions, config.idle_seconds)
        self.worker = Worker()
        self.closing = asyncio.Event()
        """Set when no further step is to begin."""
        self._num_connected = 0
        self._prompting = threading.Semaphore(2)
        self.saving = asyncio.Semaphore(2)
        """To be held while a game is saved: its frames take memory."""

    async def open(
        self,
        world: ServedWorld,
        *,
        start: int | Literal["real"] | None,
        image: bytes | None,
        fit: Fit,
        seed: int | None,
    ) -> Session:
        """Return a new session.

        Raises:
            ProblemError: start and image exclude each other, there is no such start or real game,
                the upload is empty, or there is no place left.
            PromptError: the image cannot be started from.
        """
        self.check_open()
        with self.registry.opening():
            session = await self._begin(world, start, image, fit, seed, self.config.max_rewind)
            self.registry.add(session)
        return session

    async def generate(
        self,
        world: ServedWorld,
        actions: Sequence[int],
        *,
        start: int | Literal["real"] | None,
        image: bytes | None,
        fit: Fit,
        seed: int | None,
    ) -> Session:
        """Return a session, that is not kept, after a prompt and every action.

        It takes the place of a session while it runs, and steps side by side with them.

        Raises:
            ProblemError: as `open`.
            PromptError: the image cannot be started from.
            InvalidActionError: an action is not one of the game's.
        """
        self.check_open()
        with self.registry.opening():
            session = await self._begin(world, start, image, fit, seed, max_rewind=0)
            for action in actions:
                session.check_action(action)
            for action in actions:
                self.check_open()
                await self.worker.step(session, action)
        return session

    async def play(self, session: Session, actions: Sequence[int]) -> list[Step]:
        """Return the steps of actions, up to the end of the game.

        Raises:
            InvalidActionError: an action is not in the set in use; none is played then.
            ProblemError: the game is over.
        """
        session.check_going_on()
        for action in actions:
            session.check_action(action)
        steps: list[Step] = []
        for action in actions:
            steps.append(await self.step(session, action))
            if steps[-1].is_over:
                break
        return steps

    async def step(self, session: Session, action: int) -> Step:
        """Return one step of a game that is not over; `action` is what the person holds.

        Raises:
            InvalidActionError: a person plays, and it is not in the set in use.
            ProblemError: the game is over, or the server shuts down.
        """
        self.check_open()
        session.check_going_on()
        self.registry.touch(session.id)
        return await self.worker.step(session, action)

    async def frames(self, session: Session) -> Frames:
        """Return all frames of a session, with the real game at the right where there is one."""
        steps = await self.worker.call(session.steps.copy)
        return await asyncio.to_thread(_unpack_all, steps, session.shape)

    async def free(self, id: str, *, is_expired: bool = False) -> None:
        """Forget a session and all it holds.

        Raises:
            ProblemError: there is none, or it has expired.
        """
        session = self.registry.remove(id, is_expired=is_expired)
        await self.worker.call(self.worker.batch.release)
        if session.real is not None:
            await self.worker.call(session.real.close)

    async def expire(self) -> None:
        """Free idle sessions, now and then, for ever."""
        while True:
            await asyncio.sleep(min(self.config.idle_seconds / 4, 5.0))
            while ids := self.registry.idle_ids():  # asked anew: others come and go meanwhile
                await self.free(ids[0], is_expired=True)
            await asyncio.to_thread(_give_back_memory)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Count a connection as long as it lasts."""
        self._num_connected += 1
        try:
            yield
        finally:
            self._num_connected -= 1

    async def drain(self, seconds: float) -> None:
        """Begin no further step, and wait for connections to have told their clients."""
        self.closing.set()
        deadline = time.monotonic() + seconds
        while self._num_connected and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    async def close(self, seconds: float) -> None:
        """Drain, free every session, and end the thread."""
        await self.drain(seconds)
        while ids := self.registry.ids():  # asked anew: others go meanwhile
            await self.free(ids[0])
        await asyncio.to_thread(self.worker.close)

    def check_open(self) -> None:
        """Refuse new work while the server shuts down.

        Raises:
            ProblemError: it does.
        """
        if self.closing.is_set():
            raise ProblemError(SHUTTING_DOWN, "the server is shutting down")

    def find_world(self, name: str) -> ServedWorld:
        """Return a served world.

        Raises:
            ProblemError: none has this name.
        """
        return find_world(self.worlds, name)

    async def _begin(
        self,
        world: ServedWorld,
        start: int | Literal["real"] | None,
        image: bytes | None,
        fit: Fit,
        seed: int | None,
        max_rewind: int,
    ) -> Session:
        prompt = None
        if image is not None:
            if start is not None:
                raise ProblemError(INVALID_REQUEST, "give either start or image, not both")
            if not image:
                raise ProblemError(EMPTY_UPLOAD, "the image has no bytes. Choose a picture file")
            prompt = await asyncio.to_thread(self._read_prompt, image, world, fit)
        if start == "real" and not world.has_real_game:
            raise ProblemError(
                UNAVAILABLE, f"the frames of {world.name!r} are not the emulator's size"
            )
        return await self.worker.call(
            lambda: begin(
                secrets.token_hex(16),
                world,
                seed=secrets.randbits(31) if seed is None else seed,
                start=start,
                prompt=prompt,
                max_rewind=max_rewind,
            )
        )

    def _read_prompt(self, image: bytes, world: ServedWorld, fit: Fit) -> Frames:
        with self._prompting:  # a picture of many pixels takes memory
            return prompt_frames(image, world.world, fit=fit, max_pixels=self.config.max_pixels)


def _give_back_memory() -> None:
    """Let the C library return what it holds free: pieces that lie between long-lived ones.

    Without it, 16 players who come and go had a server of 1.6 GiB after ten minutes, and it grew.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # musl has none


def _unpack_all(steps: list[Step], shape: tuple[int, int, int]) -> Frames:
    imagined = np.stack([unpack(step.picture, shape) for step in steps])
    real = [unpack(step.real.picture, shape) for step in steps if step.real is not None]
    return side_by_side(imagined, np.stack(real)) if real else imagined
