"""One game of one player: where it stands, all its steps, who plays it."""

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from gymnasium.utils.seeding import np_random
from jaxtyping import Float32, UInt8

from genie_gym.envs.prompts import encode_prompt
from genie_gym.envs.replay import Replay
from genie_gym.envs.slots import Outcome, Slots, SlotsState, WorldEnvConfig
from genie_gym.errors import InvalidActionError
from genie_gym.serve.history import History
from genie_gym.serve.players import PolicyPlayer
from genie_gym.serve.problems import (
    CANNOT_REWIND,
    EPISODE_OVER,
    NOT_REPLAYABLE,
    UNAVAILABLE,
    ProblemError,
)
from genie_gym.serve.real_game import RealGame
from genie_gym.serve.steps import Frame, RealStep, Settings, Step, pack
from genie_gym.serve.worlds import Decide, ServedWorld

Start = int | Literal["real", "image"]


@dataclass
class Session:
    """A game and its player. All but `id` and `world` belongs to the worker's thread."""

    id: str
    world: ServedWorld
    seed: int
    start: Start
    settings: Settings
    state: SlotsState
    history: History
    steps: list[Step]
    real: RealGame | None = None
    policy_player: PolicyPlayer | None = None
    decide: Decide | None = None
    times: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    """When the newest steps were taken."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a frame."""
        return (self.world.world.config.height, self.world.world.config.width, 3)

    @property
    def config(self) -> WorldEnvConfig:
        """What the next step is imagined with."""
        return replace(
            self.world.env,
            temperature=self.settings.temperature,
            num_maskgit_steps=self.settings.num_maskgit_steps,
            action_mode=self.settings.action_mode,
        )

    @property
    def steps_per_second(self) -> float:
        """Return the rate over the last second of stepping."""
        newest = [moment for moment in self.times if moment > self.times[-1] - 1]
        return 0.0 if len(newest) < 2 else (len(newest) - 1) / (newest[-1] - newest[0])

    def check_action(self, action: int) -> None:
        """Refuse an action outside the set in use.

        Raises:
            InvalidActionError: it is.
        """
        world, is_real = self.world.world, self.settings.action_mode == "ale"
        limit = world.num_actions if is_real else world.num_latent_actions
        if not 0 <= action < limit:
            kind = "real" if is_real else "latent"
            raise InvalidActionError(
                f"action must be an index of the {limit} {kind} actions, in [0, {limit}), got "
                f"{action}"
            )

    def check_going_on(self) -> None:
        """Refuse a step after the end.

        Raises:
            ProblemError: the game is over.
        """
        if self.steps[-1].is_over:
            raise ProblemError(
                EPISODE_OVER,
                f"the game is over after {self.steps[-1].index} steps. Rewind it or open another",
            )

    def change(self, changes: dict[str, Any]) -> None:
        """Take over new settings, from the next step on.

        Raises:
            ProblemError: what they need is not there.
        """
        wanted, world = replace(self.settings, **changes), self.world
        policy, parts = world.policy, world.world.parts
        missing = {
            "policy": wanted.player == "policy" and policy is None,
            "planner": wanted.player == "planner" and world.planner is None,
            "policy with a critic": wanted.show_value and not (policy and policy.has_critic),
            "trained latent actions": wanted.action_mode == "latent" and "lam" not in parts,
        }
        for what, is_missing in missing.items():
            if is_missing:
                raise ProblemError(UNAVAILABLE, f"the world {world.name!r} has no {what}")
        if wanted.action_mode == "latent" and (wanted.player != "person" or self.real is not None):
            raise ProblemError(
                UNAVAILABLE,
                "policy, planner and real game take real actions alone. Set action_mode to 'ale', "
                "or let a person play an imagined game",
            )
        self.settings = wanted

    def choose(self, held: int) -> int:
        """Return the action of a person, who holds one, or of the policy."""
        if self.settings.player != "policy":
            return held
        before = self.steps[-2].picture if len(self.steps) > 1 else None
        return self._policy_player().act(before, self.steps[-1].picture)

    def plan(self) -> int:
        """Return the action of the planner; reads the state alone, so any thread may call it."""
        assert self.world.planner is not None
        if self.decide is None:
            self.decide = self.world.planner(self.world.world, self.seed)
        return self.decide(self.state.world)

    def advance(
        self,
        state: SlotsState,
        action: int,
        outcome: Outcome,
        row: int,
        *,
        frame: Frame,
        unsure: Float32[np.ndarray, " S"] | None,
    ) -> Step:
        """Take over what a step gave to this game, one row of a batch."""
        if self.real is not None:
            self.real.step(action)
        reward = float(outcome.rewards[row])
        before, picture = self.steps[-1], pack(frame)
        shows_value = self.settings.show_value
        step = Step(
            index=before.index + 1,
            picture=picture,
            config=self.config,
            action=action,
            reward=reward,
            score=before.score + reward,
            expected_reward=float(outcome.expected_rewards[row]),
            terminated_prob=float(outcome.terminated_probs[row]),
            terminated=bool(outcome.terminated[row]),
            truncated=bool(outcome.truncated[row]),
            value=self._policy_player().value(before.picture, picture) if shows_value else None,
            uncertainty=unsure,
            real=_real_step(self.real),
        )
        self.state = state
        self.history.append(state)
        self.steps.append(step)
        self.times.append(time.monotonic())
        return step

    def rewind(self, num_steps: int) -> Step:
        """Go back, and return what is the newest step then.

        Raises:
            ProblemError: fewer steps are remembered.
        """
        if num_steps > len(self.history):
            raise ProblemError(
                CANNOT_REWIND,
                f"{len(self.history)} steps can be taken back now, got {num_steps}",
            )
        if num_steps > 0:
            self.state = self.history.rewind(num_steps)
            del self.steps[-num_steps:]
            self.decide = None  # its plans began elsewhere
            if self.real is not None:
                self.real.replay(
                    [step.action for step in self.steps[1:] if step.action is not None]
                )
        return self.steps[-1]

    def replay(self) -> Replay:
        """Return the episode as a replay file holds it.

        Raises:
            ProblemError: a replay cannot hold it.
        """
        configs = {step.config for step in self.steps[1:]} or {self.config}
        if not isinstance(self.start, int) or len(configs) > 1:
            raise ProblemError(
                NOT_REPLAYABLE,
                "a replay file holds a start of the world and one set of settings, but this game "
                + (
                    f"began from {'a real game' if self.start == 'real' else 'an image'}"
                    if not isinstance(self.start, int)
                    else "was played with several"
                )
                + ". Save it as mp4 or zip",
            )
        return Replay(
            seed=self.seed,
            start=self.start,
            actions=tuple(step.action for step in self.steps[1:] if step.action is not None),
            env=configs.pop(),
            world_hash=self.world.hash,
        )

    def _policy_player(self) -> PolicyPlayer:
        assert self.world.policy is not None
        if self.policy_player is None:
            self.policy_player = PolicyPlayer(self.world.policy, self.shape, self.seed)
        return self.policy_player


def begin(
    id: str,
    world: ServedWorld,
    *,
    seed: int,
    start: int | Literal["real"] | None,
    prompt: UInt8[np.ndarray, "T H W C"] | None,
    max_rewind: int,
) -> Session:
    """Return a new game.

    Args:
        id: what its clients name it by.
        world: what is played.
        seed: fixes all that is drawn; with a start context the game is that of a `GenieWorldEnv`
            that is reset with the two, but for rounding.
        start: a start context, or "real" to open as a real game that is played beside; None draws
            a context.
        prompt: frames to begin from instead.
        max_rewind: steps that can be taken back.

    Raises:
        WorldError: there is no such start context.
    """
    dynamics = world.world.config.dynamics
    settings = Settings(
        temperature=dynamics.temperature, num_maskgit_steps=dynamics.num_maskgit_steps
    )
    slots = Slots(world.env, 1, world=world.world)
    slots.np_randoms = [np_random(seed)[0]]
    real, began_at = None, -1
    if start == "real":
        size = world.world.config.height, world.world.config.width
        real = RealGame(world.env.game, size, seed)
        prompt = real.opening
    if prompt is not None:
        slots.reset_to(encode_prompt(world.world, prompt))
    else:
        begun = slots.reset(np.ones(1, np.bool_), np.array([-1 if start is None else start]))
        began_at = int(begun[0])
    state = replace(slots.get_state(), np_randoms=())  # no later draw is its
    first = Step(
        index=0, picture=pack(slots.frames()[0]), config=slots.config, real=_real_step(real)
    )
    return Session(
        id=id,
        world=world,
        seed=seed,
        start="real" if real is not None else "image" if prompt is not None else began_at,
        settings=settings,
        state=state,
        history=History(state, max_rewind),
        steps=[first],
        real=real,
    )


def _real_step(real: RealGame | None) -> RealStep | None:
    if real is None:
        return None
    return RealStep(pack(real.frame), real.reward, real.score, real.is_over)
