"""`genie-gym plan`: a planner plays the real game or the learned one."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_gym.cli_data import seed_number
from genie_gym.games import MAX_IMAGINED_STEPS, MAX_STEPS

if TYPE_CHECKING:
    import gymnasium as gym

    from genie_gym.agents.policy import Policy
    from genie_gym.envs.planning import WorldModel
    from genie_gym.models.world import World
    from planners import MPCAgent, SequencePlanner

PLANNERS = ("cem", "mppi", "random", "exhaustive", "gumbel")
POLICY_SHARE = 4
"""One plan in so many is the policy's, where there is one and nothing else is said."""
PLANNER_FLAGS = ("horizon", "num_samples", "num_iterations", "budget_frames", "budget_ms")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--world", default="pong", help="world to plan in (default: pong)")
    parser.add_argument(
        "--planner", choices=PLANNERS, default="cem", help="how it plans (default: cem)"
    )
    parser.add_argument(
        "--env", choices=("real", "world"), default="real", help="where it plays (default: real)"
    )
    parser.add_argument(
        "--oracle",
        action="store_true",
        help="plan in copies of the real game instead of the world: what a perfect world allows",
    )
    parser.add_argument(
        "--num-maskgit-steps",
        type=int,
        help="refinement steps of an imagined frame while planning (default: the world's own)",
    )
    parser.add_argument(
        "--policy",
        help="trained policy that proposes plans, and whose critic scores their ends",
    )
    parser.add_argument(
        "--replan-every",
        type=int,
        default=1,
        help="steps of a plan that are played before the next is made (default: 1)",
    )
    parser.add_argument("--episodes", type=int, default=1, help="games to play (default: 1)")
    parser.add_argument(
        "--max-decisions", type=int, help="stop after so many decisions of all games together"
    )
    parser.add_argument(
        "--max-steps", type=int, help="steps a game, at most (default: 27000 real, 5000 imagined)"
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="of the first game; 0 or more")
    parser.add_argument("--horizon", type=int, help="steps of a plan")
    parser.add_argument("--num-samples", type=int, help="plans of an iteration")
    parser.add_argument("--num-iterations", type=int, help="iterations of a search")
    parser.add_argument(
        "--budget-frames", type=int, help="model frames a decision, instead of --num-iterations"
    )
    parser.add_argument(
        "--budget-ms", type=float, help="milliseconds a decision, instead of --num-iterations"
    )
    parser.add_argument(
        "--sticky", type=float, default=0.0, help="sticky actions of the real game (default: 0)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="float32 or bfloat16 (default: float32)",
    )
    parser.add_argument("--out", type=Path, help="JSON file of the results so far")
    parser.add_argument(
        "--resume", action="store_true", help="keep the games that are finished in --out"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="any value of the planner's config: discount=0.98 actions=[0,2,3]",
    )


def plan(options: argparse.Namespace) -> None:
    """Play, and print what each game brought and what deciding took."""
    from genie_gym.agents.policy import load_policy
    from genie_gym.envs.replay import world_hash
    from genie_gym.errors import ConfigError
    from genie_gym.evaluation.plan_games import play_games
    from genie_gym.evaluation.plan_record import PlanRecord
    from planners import PlannerError

    _check(options)
    try:
        planner = make_planner(options)
        policy = load_policy(options.policy, options.device) if options.policy else None
        env, agent, world = make_game(options, planner, policy)
        settings = {**vars(options), "planner_config": asdict(planner.config)}
        for name in ("run", "set", "out", "resume"):
            del settings[name]
        made_with = {
            "settings": settings,
            "world_hash": None if world is None else world_hash(world),
            "policy_hash": None if policy is None else policy.card.weights_hash,
        }
        record = PlanRecord(options.out, made_with, resume=options.resume)
        if record.games:
            print(f"{len(record.games)} of {options.episodes} games are finished in {options.out}")
        games = play_games(
            env,
            agent,
            options.episodes,
            seed=options.seed,
            max_decisions=options.max_decisions,
            finished=record.games,
        )
        for game in games:
            record.add(asdict(game))
    except PlannerError as error:
        raise ConfigError(str(error)) from error
    if options.out:
        print(f"wrote {options.out}")


def _check(options: argparse.Namespace) -> None:
    from genie_gym.errors import ConfigError

    for name in ("episodes", "max_decisions", "max_steps", "num_maskgit_steps"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.resume and options.out is None:
        raise ConfigError("--resume keeps the games that are finished in --out: name that file")
    if not options.oracle:
        return
    if options.env != "real":
        raise ConfigError(
            f"--oracle plans in the real game: it needs --env real, not {options.env}"
        )
    for flag in ("num_maskgit_steps", "policy"):
        if getattr(options, flag) is not None:
            raise ConfigError(
                f"--{flag.replace('_', '-')} is for planning in a world, and --oracle imagines "
                "nothing. Leave one of them out"
            )


def make_planner(options: argparse.Namespace) -> "SequencePlanner[Any, Any]":
    """Return the planner that the flags ask for; `play_games` seeds its generator."""
    import torch

    import planners
    from genie_gym.config import from_dict, override

    kinds: dict[str, tuple[Any, Any]] = {
        "cem": (planners.CEM, planners.CEMConfig),
        "mppi": (planners.CategoricalMPPI, planners.CategoricalMPPIConfig),
        "random": (planners.RandomShooting, planners.CategoricalConfig),
        "exhaustive": (planners.Exhaustive, planners.ExhaustiveConfig),
        "gumbel": (planners.GumbelSearch, planners.GumbelConfig),
    }
    make, config_class = kinds[options.planner]
    flags = {name: getattr(options, name) for name in PLANNER_FLAGS}
    values = {name: value for name, value in flags.items() if value is not None}
    values = override(values, options.set)
    config = from_dict(config_class, values, options.planner)
    draws_plans = issubclass(config_class, planners.CategoricalConfig)
    if options.policy and draws_plans and "num_policy_samples" not in values:
        config = replace(config, num_policy_samples=config.num_samples // POLICY_SHARE)
    planner: SequencePlanner[Any, Any] = make(config, generator=torch.Generator())
    return planner


def make_game(
    options: argparse.Namespace,
    planner: "SequencePlanner[Any, Any]",
    policy: "Policy | None",
) -> tuple["gym.Env[Any, Any]", "MPCAgent", "World | None"]:
    """Return what is played, the agent that plays it, and the world that it plans in, if one."""
    from genie_gym.envs.planning import WorldFollower, WorldModel
    from genie_gym.envs.planning_real import RealModel
    from genie_gym.envs.real import RealEnv, frame_side
    from genie_gym.envs.world_env import GenieWorldEnv
    from genie_gym.models.bundle import choose_device, find_bundle, load_world, read_card
    from planners import MPCAgent

    config = read_card(find_bundle(options.world))["config"]
    game, height, width = config["game"], config["height"], config["width"]
    device = str(choose_device(options.device))
    settings: Any = {"obs_shape": (height, width, 3), "replan_every": options.replan_every}
    refinement = {"num_maskgit_steps": options.num_maskgit_steps}
    if options.env == "world":
        imagined = GenieWorldEnv(
            game,
            world=options.world,
            device=device,
            dtype=options.dtype,
            max_episode_steps=options.max_steps or MAX_IMAGINED_STEPS,
        )

        def observe(*_: Any) -> WorldModel:
            return WorldModel(imagined.world, imagined.get_state().world, **refinement)

        follow = _with_policy(options, imagined, observe, imagined.world, policy)
        return imagined, MPCAgent(planner, follow, **settings), imagined.world

    env = RealEnv(
        game,
        frame_size=frame_side(height, width),
        sticky=options.sticky,
        max_episode_steps=options.max_steps or MAX_STEPS,
    )
    if options.oracle:
        oracle = RealModel([env])
        return env, MPCAgent(planner, lambda *_: oracle, **settings), None
    world = load_world(options.world, device, options.dtype)
    follow = _with_policy(options, env, WorldFollower(world, **refinement), world, policy)
    return env, MPCAgent(planner, follow, **settings), world


def _with_policy(
    options: argparse.Namespace,
    env: "gym.Env[Any, Any]",
    follow: "Callable[..., WorldModel]",
    world: "World",
    policy: "Policy | None",
) -> "Callable[..., WorldModel]":
    """Let a policy, if there is one, take part in the plans."""
    from genie_gym.agents.guided_planning import GuidedFollower, make_guide

    if policy is None:
        return follow
    policy.check_spaces(env.observation_space, env.action_space)
    guide = make_guide(policy, world)
    return GuidedFollower(follow, world, guide, num_maskgit_steps=options.num_maskgit_steps)
