"""`genie-gym serve`: worlds in the browser, and over HTTP and WebSocket."""

import argparse
import secrets
from typing import TYPE_CHECKING, Any

from genie_gym.cli_plan import PLANNERS, make_planner

if TYPE_CHECKING:
    from genie_gym.models.state import WorldState
    from genie_gym.models.world import World
    from genie_gym.serve.worlds import Decide, PlannerFactory

LIMITS = {
    "max_sessions": (int, "games at once"),
    "max_steps": (int, "steps of a game"),
    "max_rewind": (int, "steps that can be taken back"),
    "max_actions": (int, "actions of one request"),
    "max_upload_bytes": (int, "bytes of one request"),
    "max_pixels": (int, "pixels of an uploaded picture"),
    "idle_seconds": (float, "time after which an unused session is freed"),
    "requests_per_second": (float, "requests of one address, messages of one WebSocket"),
}


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--world", action="append", help="world to serve, may be given again (default: pong)"
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port; 0 for a free one (default: 8000)")
    parser.add_argument(
        "--token",
        help="what clients must know; made and printed where others can connect and none is given",
    )
    parser.add_argument(
        "--policy", help="policy that may play (default: the world's own, if it has one)"
    )
    parser.add_argument(
        "--planner",
        choices=(*PLANNERS, "none"),
        default="cem",
        help="planner that may play (default: cem)",
    )
    parser.add_argument("--horizon", type=int, help="steps of its plans")
    parser.add_argument(
        "--num-samples", type=int, default=16, help="its plans an iteration (default: 16)"
    )
    parser.add_argument(
        "--budget-ms", type=float, default=200.0, help="milliseconds a decision (default: 200)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument("--dtype", help="float32 or bfloat16 (default: float32)")
    for name, (kind, text) in LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"limit: {text}")


def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from genie_gym.config import from_dict
    from genie_gym.errors import MissingExtraError
    from genie_gym.serve.config import LOOPBACK, ServeConfig

    try:
        from genie_gym.serve.app import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "starlette", "uvicorn", "pydantic"):
            raise
        raise MissingExtraError(
            f"genie-gym serve needs the package {error.name}, which is not installed. Install it: "
            "pip install 'genie-gym[serve]'"
        ) from error

    names = ("host", "port", "token", "policy", "device", "dtype", *LIMITS)
    values = {name: getattr(options, name) for name in names}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if options.world:
        given["worlds"] = options.world
    is_local = given.get("host", LOOPBACK[0]) in LOOPBACK
    if not is_local and "token" not in given:
        given["token"] = secrets.token_urlsafe(24)
    config = from_dict(ServeConfig, given, "serve")

    def on_ready(url: str) -> None:
        query = "" if config.token is None else f"?token={config.token}"
        print(f"serving {', '.join(config.worlds)} at {url}{query}", flush=True)

    run(config, planner_factory(options), on_ready=on_ready)


def planner_factory(options: argparse.Namespace) -> "PlannerFactory | None":
    """Return what makes the planner that the flags ask for; None for none.

    Raises:
        ConfigError: the planner refuses a flag.
    """
    from genie_gym.errors import ConfigError
    from planners import PlannerError

    if options.planner == "none":
        return None
    # A policy plays in its own right here; it proposes no plans.
    unset: dict[str, Any] = {
        "num_iterations": None,
        "budget_frames": None,
        "set": [],
        "policy": None,
    }
    options = argparse.Namespace(**{**vars(options), **unset})
    try:
        make_planner(options)
    except PlannerError as error:
        raise ConfigError(str(error)) from error

    def make(world: "World", seed: int) -> "Decide":
        import torch

        from genie_gym.envs.planning import WorldModel

        planner, proposal = make_planner(options), None
        planner.generator.manual_seed(seed)

        def decide(state: "WorldState") -> int:
            nonlocal proposal
            try:
                plan = planner.plan(WorldModel(world, state, num_maskgit_steps=1), proposal)
            except PlannerError as error:
                raise ConfigError(f"the planner cannot play this world: {error}") from error
            proposal = plan.proposal.advance(torch.zeros(1, dtype=torch.bool))
            return int(plan.actions[0, 0])

        return decide

    return make
