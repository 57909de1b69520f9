"""The one thread that steps games: those that are due at the same moment share a forward pass."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int64

from genie_gym.envs.slots import Slots, SlotsState, WorldEnvConfig
from genie_gym.serve.session import Session
from genie_gym.serve.steps import Step

LINGER_SECONDS = 0.003
"""How long a batch waits for the next player who was in the one before: a third of a lone step."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Turn:
    """A player's wish to step, and who waits for it."""

    session: Session
    action: int
    is_chosen: bool
    """Whether the action stands; else it is what the person holds, and the policy may choose."""
    future: Future[Step] = field(default_factory=Future)

    def choose(self) -> int:
        """Return the action to play, in the set that is in use now.

        Raises:
            InvalidActionError: it is none of that set, which may have changed meanwhile.
            ProblemError: the game has ended since.
        """
        self.session.check_going_on()
        action = self.action if self.is_chosen else self.session.choose(self.action)
        self.session.check_action(action)
        return action


class Worker:
    """Steps sessions, and calls functions on them, one after the other.

    All that reads or changes a session runs on its thread, so that no session is ever half stepped.
    Planners think beside it, one at a time, so that nobody waits for them.
    """

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._last_size = 0
        self.batch = Batch()
        self.num_steps = 0
        """Steps of all sessions so far."""
        self._thread = threading.Thread(target=self._run, name="genie-gym-worker", daemon=True)
        self._thread.start()
        self._planning = ThreadPoolExecutor(1, "genie-gym-planner")

    async def call(self, function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Return what a function gives on the thread."""
        future: Future[ResultT] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        with self._changed:
            self._calls.append(run)
            self._changed.notify()
        return await asyncio.wrap_future(future)

    async def step(self, session: Session, action: int) -> Step:
        """Play one step; `action` is what the person holds.

        Raises:
            InvalidActionError: a person plays, and it is not in the set in use.
        """
        is_chosen = session.settings.player == "planner"
        if is_chosen:
            loop = asyncio.get_running_loop()
            action = await loop.run_in_executor(self._planning, session.plan)
        turn = Turn(session, action, is_chosen)
        with self._changed:
            self._turns.append(turn)
            self._changed.notify()
        return await asyncio.wrap_future(turn.future)

    def close(self) -> None:
        """Finish what was asked for, then end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        self._planning.shutdown(cancel_futures=True)

    def _run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Wait for work and do it; return whether to go on.

        In a function of its own, no session that is gone is held while there is nothing to do.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turns or self._calls or self._is_closing)
            if not self._turns and not self._calls:
                return False
            if self._turns:
                self._linger()
            # What has begun cannot be cancelled: who waits may leave, but the step is whole.
            turns = [turn for turn in self._turns if turn.future.set_running_or_notify_cancel()]
            calls = list(self._calls)
            self._turns.clear()
            self._calls.clear()
        for call in calls:
            call()
        self._last_size = len(turns)
        for group in _groups(turns):
            self._settle(group)
        self.num_steps += len(turns)
        return True

    def _settle(self, turns: list[Turn]) -> None:
        """Step games together, and tell those who wait; what one cannot do stops no other."""
        able, actions = [], []
        for turn in turns:
            try:
                actions.append(turn.choose())
                able.append(turn)
            except Exception as error:
                turn.future.set_exception(error)
        if not able:
            return
        try:
            steps = self.batch.step([turn.session for turn in able], np.array(actions, np.int64))
        except Exception as error:
            for turn in able:
                turn.future.set_exception(error)
            return
        for turn, step in zip(able, steps, strict=True):
            turn.future.set_result(step)

    def _linger(self) -> None:
        """Wait for players of the last batch whose next turn is on its way, until none comes."""
        while len(self._turns) < self._last_size and not self._calls:
            if not self._changed.wait(LINGER_SECONDS):
                return


def _groups(turns: list[Turn]) -> list[list[Turn]]:
    """Return the turns that can share a pass, in an order that is the same every time."""
    groups: dict[tuple[str, WorldEnvConfig], list[Turn]] = {}
    for turn in sorted(turns, key=lambda turn: turn.session.id):
        key = (turn.session.world.name, turn.session.config)
        groups.setdefault(key, []).append(turn)
    return list(groups.values())


class Batch:
    """Games that were stepped together, still side by side in memory.

    Where the same ones step again, nothing is copied: that would cost a fourth of the step.
    """

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._states: list[SlotsState] = []
        self._joined: SlotsState | None = None

    def step(self, sessions: list[Session], actions: Int64[np.ndarray, " B"]) -> list[Step]:
        """Return what one pass gives to games of the same world and settings."""
        joined = self._join(sessions)
        slots = Slots(sessions[0].config, len(sessions), world=sessions[0].world.world)
        slots.set_state(joined)
        unsure = _uncertainties(sessions, joined, actions, slots)
        outcome, frames = slots.step(actions), slots.frames()
        self._joined = slots.get_state()
        self._sessions, self._states = list(sessions), self._joined.split()
        return [
            session.advance(
                self._states[row], int(action), outcome, row, frame=frames[row], unsure=unsure[row]
            )
            for row, (session, action) in enumerate(zip(sessions, actions, strict=True))
        ]

    def release(self) -> None:
        """Give every game memory of its own: one that stays behind would keep that of all."""
        for session, state in zip(self._sessions, self._states, strict=True):
            if session.state is state:
                session.state = state.clone()
        self._sessions, self._states, self._joined = [], [], None

    def _join(self, sessions: list[Session]) -> SlotsState:
        states = [session.state for session in sessions]
        if self._joined is not None and list(map(id, states)) == list(map(id, self._states)):
            return self._joined
        joined = SlotsState.join(states)
        self.release()
        return joined


def _uncertainties(
    sessions: list[Session], state: SlotsState, actions: Int64[np.ndarray, " B"], slots: Slots
) -> list[Float32[np.ndarray, " S"] | None]:
    """Return how unsure the next tokens are, where that is shown."""
    rows = [row for row, one in enumerate(sessions) if one.settings.show_uncertainty]
    shown: list[Float32[np.ndarray, " S"] | None] = [None] * len(sessions)
    if rows:
        entropies = slots.world.uncertainty(
            state.world.gather(torch.tensor(rows)), torch.from_numpy(actions[rows]), slots.source
        )
        for row, entropy in zip(rows, entropies.float().cpu().numpy(), strict=True):
            shown[row] = entropy.copy()
    return shown
