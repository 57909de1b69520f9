"""What goes over the wire: messages in, descriptions out, and the layout of a frame message."""

import base64
import json
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from genie_gym.envs.keys import TURNED
from genie_gym.serve.problems import ProblemError
from genie_gym.serve.session import Session
from genie_gym.serve.steps import PlayerName, Step, unpack
from genie_gym.serve.worlds import ServedWorld, png

MAX_MESSAGE_BYTES = 4096
"""Size of a WebSocket message in."""
MAX_FPS = 60
"""Fastest that a game runs by itself."""
MAX_INDEX = 2**31 - 1
"""Largest number that may stand for an action, a step or a start; the rest is checked later."""
MAX_SEED = 2**63 - 1

Index = Annotated[int, Field(ge=0, le=MAX_INDEX)]


class Strict(BaseModel):
    """No field more than named, and no value bent to fit its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Hold(Strict):
    """The keys now held mean this action."""

    type: Literal["hold"]
    action: Index


class TakeStep(Strict):
    """Pause and take one step."""

    type: Literal["step"]
    action: Index | None = None


class Run(Strict):
    """Step by itself."""

    type: Literal["run"]
    fps: Annotated[float, Field(gt=0, le=MAX_FPS, allow_inf_nan=False)]


class Pause(Strict):
    """Stop running."""

    type: Literal["pause"]


class Rewind(Strict):
    """Pause and go back."""

    type: Literal["rewind"]
    num_steps: Index


class Change(Strict):
    """Change settings; what is absent stays."""

    type: Literal["settings"]
    player: PlayerName | None = None
    action_mode: Literal["ale", "latent"] | None = None
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    num_maskgit_steps: Annotated[int, Field(ge=1, le=64)] | None = None
    show_uncertainty: bool | None = None
    show_value: bool | None = None


Message = Annotated[Hold | TakeStep | Run | Pause | Rewind | Change, Field(discriminator="type")]
_MESSAGES: TypeAdapter[Any] = TypeAdapter(Message)


class BadMessageError(ValueError):
    """Raised when a text is no message."""


def read_message(text: str) -> Any:
    """Return the message in a text.

    Raises:
        BadMessageError: there is none; says in few words what is wrong.
    """
    try:
        return _MESSAGES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadMessageError(f"{place}: {first['msg']}" if place else str(first["msg"])) from error


class Actions(Strict):
    """What to play."""

    actions: list[Index] = Field(min_length=1)


class Back(Strict):
    """How far to go back."""

    num_steps: Index


class Health(BaseModel):
    """How busy the server is."""

    status: Literal["ok"]
    version: str
    num_sessions: int
    max_sessions: int
    num_steps: int


class SettingsInfo(BaseModel):
    """What a player can change while playing."""

    player: PlayerName
    action_mode: Literal["ale", "latent"]
    temperature: float
    num_maskgit_steps: int
    show_uncertainty: bool
    show_value: bool


class WorldInfo(BaseModel):
    """A served world."""

    name: str
    game: str
    height: int
    width: int
    rows: int
    columns: int
    fps: float
    num_starts: int
    num_actions: int
    action_meanings: list[str]
    turned: dict[str, str]
    num_latent_actions: int
    temperature: float
    num_maskgit_steps: int
    has_policy: bool
    has_value: bool
    has_planner: bool
    has_real_game: bool


class SessionInfo(BaseModel):
    """A game of a client."""

    id: str
    world: str
    start: int | Literal["real", "image"]
    seed: int
    settings: SettingsInfo
    max_steps: int
    max_rewind: int


class RealInfo(BaseModel):
    """The real game beside an imagined step."""

    reward: float
    score: float
    is_over: bool


class FrameInfo(BaseModel):
    """What is told of a frame."""

    type: Literal["frame"] = "frame"
    height: int
    width: int
    step: int
    action: int | None
    reward: float | None
    score: float
    expected_reward: float | None
    terminated_prob: float | None
    terminated: bool
    truncated: bool
    value: float | None
    uncertainty: list[float] | None
    can_rewind: int
    steps_per_second: float
    real: RealInfo | None


class StepInfo(FrameInfo):
    """A step over HTTP: what is told of its frame, and the frame itself."""

    frame: str = Field(description="PNG in base64")
    real_frame: str | None = Field(description="PNG in base64, where a real game is played beside")


class Steps(BaseModel):
    """Steps over HTTP, oldest first."""

    steps: list[StepInfo]


class ProblemInfo(BaseModel):
    """An error, as RFC 9457 has them."""

    type: str
    title: str
    status: int
    detail: str


def world_info(served: ServedWorld) -> WorldInfo:
    """Describe a world."""
    world, policy = served.world, served.policy
    config = world.config
    patch = config.tokenizer.patch_size
    has_latent = "lam" in world.parts
    return WorldInfo(
        name=served.name,
        game=config.game,
        height=config.height,
        width=config.width,
        rows=-(-config.height // patch),
        columns=-(-config.width // patch),
        fps=served.fps,
        num_starts=len(world.starts),
        num_actions=world.num_actions,
        action_meanings=served.action_meanings,
        turned=TURNED.get(config.game, {}),
        num_latent_actions=world.num_latent_actions if has_latent else 0,
        temperature=config.dynamics.temperature,
        num_maskgit_steps=config.dynamics.num_maskgit_steps,
        has_policy=policy is not None,
        has_value=policy is not None and policy.has_critic,
        has_planner=served.planner is not None,
        has_real_game=served.has_real_game,
    )


def settings_info(session: Session) -> SettingsInfo:
    """Describe a session's settings."""
    return SettingsInfo.model_validate(session.settings, from_attributes=True)


def session_info(session: Session, max_rewind: int) -> SessionInfo:
    """Describe a session."""
    return SessionInfo(
        id=session.id,
        world=session.world.name,
        start=session.start,
        seed=session.seed,
        settings=settings_info(session),
        max_steps=session.world.env.max_episode_steps or 0,
        max_rewind=max_rewind,
    )


def frame_info(session: Session, step: Step) -> FrameInfo:
    """Describe the newest step of a session."""
    height, width, _ = session.shape
    unsure, real = step.uncertainty, step.real
    return FrameInfo(
        height=height,
        width=width,
        step=step.index,
        action=step.action,
        reward=step.reward,
        score=step.score,
        expected_reward=step.expected_reward,
        terminated_prob=step.terminated_prob,
        terminated=step.terminated,
        truncated=step.truncated,
        value=step.value,
        uncertainty=None if unsure is None else [round(x, 3) for x in unsure.tolist()],
        can_rewind=len(session.history),
        steps_per_second=round(session.steps_per_second, 2),
        real=None
        if real is None
        else RealInfo(reward=real.reward, score=real.score, is_over=real.is_over),
    )


def step_info(session: Session, step: Step) -> StepInfo:
    """Describe the newest step of a session, picture included."""
    shape = session.shape

    def encoded(picture: bytes) -> str:
        return base64.b64encode(png(unpack(picture, shape))).decode()

    return StepInfo(
        **frame_info(session, step).model_dump(),
        frame=encoded(step.picture),
        real_frame=None if step.real is None else encoded(step.real.picture),
    )


def frame_message(session: Session, step: Step) -> bytes:
    """Return a binary message: length of the metadata, metadata, frame, frame of the real game."""
    about = frame_info(session, step).model_dump_json().encode()
    pictures = [step.picture, *([] if step.real is None else [step.real.picture])]
    frames = [unpack(picture, session.shape).tobytes() for picture in pictures]
    return b"".join([struct.pack("<I", len(about)), about, *frames])


def problem_info(problem: ProblemError) -> ProblemInfo:
    """Describe an error."""
    kind = problem.kind
    return ProblemInfo(
        type=f"urn:genie-gym:{kind.name}", title=kind.title, status=kind.status, detail=str(problem)
    )


def error_message(problem: ProblemError) -> str:
    """Return the message that refuses what was asked for."""
    kind = problem.kind
    content = {"type": "error", "status": kind.status, "title": kind.title, "detail": str(problem)}
    return json.dumps({**content, "problem": kind.name})


def settings_message(session: Session, fps: float | None) -> str:
    """Return the message that tells settings, and how fast the game runs by itself."""
    settings = settings_info(session).model_dump()
    return json.dumps({"type": "settings", "settings": settings, "fps": fps})


def session_message(session: Session, max_rewind: int) -> str:
    """Return the first message of a connection."""
    return json.dumps({"type": "session", **session_info(session, max_rewind).model_dump()})
