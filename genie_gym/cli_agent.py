"""The commands `genie-gym agent ...`. Each imports its code only when it runs."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genie_gym.cli_data import seed_number
from genie_gym.errors import ConfigError
from genie_gym.games import MAX_IMAGINED_STEPS, MAX_STEPS

FLAGS = {name: (name,) for name in ("algo", "steps", "num_envs", "seed", "save_every")}
FLAGS |= {"world": ("env.world",), "device": ("env.device",)}
"""Flags and the settings that they override."""


def add_agent(parser: argparse.ArgumentParser) -> Any:
    """Add the commands to the parser of `genie-gym agent`; return what adds more of them."""
    commands = parser.add_subparsers(dest="agent_command", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    _add_train(command("train", train, "train an agent inside a world"))
    _add_evaluate(command("evaluate", evaluate, "let a policy play, in the real game or a world"))
    return commands


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--config", type=Path, help="YAML with any of the settings")
    parser.add_argument("--world", help="world to learn in; overrides env.world (default: pong)")
    parser.add_argument(
        "--algo",
        help="ppo, a2c, dqn, dreamer, or recurrent_ppo (needs sb3-contrib) (default: ppo)",
    )
    parser.add_argument("--steps", type=int, help="imagined steps (default: 1000000)")
    parser.add_argument("--num-envs", type=int, help="imagined games at once (default: 64)")
    parser.add_argument("--seed", type=seed_number, help="0 or more (default: 0)")
    parser.add_argument("--save-every", type=int, help="steps between saves (default: 100000)")
    parser.add_argument("--device", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in --out, with the settings that lie there",
    )
    parser.add_argument(
        "override",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides any setting: learning_rate=3e-4, algo_options.n_steps=32, "
        "env.max_episode_steps=500, network.num_frames=2, real_check.every=50000, "
        "init_from=runs/ppo (a policy to go on from); the keys of config.yaml in a run folder",
    )


def train(options: argparse.Namespace) -> None:
    """Train an agent and say how it does."""
    from genie_gym.agents.config import AgentConfig
    from genie_gym.agents.policy import read_card
    from genie_gym.agents.run import train_agent
    from genie_gym.config import from_dict
    from genie_gym.models.bundle import find_bundle
    from genie_gym.models.bundle import read_card as read_world_card

    values = read_settings(options, FLAGS)
    env = values.get("env") or {}
    if not isinstance(env, dict):
        raise ConfigError(f"env must be a mapping, got {env!r}")
    world = str(env.get("world") or env.get("game") or "pong")
    game = read_world_card(find_bundle(world))["config"]["game"]
    config = from_dict(AgentConfig, {**values, "env": {"game": game, "world": world, **env}})
    folder = train_agent(config, options.out, resume=options.resume)

    card = read_card(folder)
    print(f"{card.imagined_steps} imagined steps, seed {card.seed}: policy in {folder}")
    if "real_return" in card.figures:
        print(
            f"real games: mean return {card.figures['real_return']:.2f} of "
            f"{card.figures['real_returns']}"
        )


def read_settings(
    options: argparse.Namespace, flags: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the settings of a run: its own with --resume, or else --config's; flags put in.

    Raises:
        ConfigError: --config is given although the run has settings of its own.
    """
    from genie_gym.agents.run import CONFIG_FILE
    from genie_gym.config import load_yaml, override

    file, begun = options.config, options.out / CONFIG_FILE
    if options.resume and begun.is_file():
        if file:
            raise ConfigError(
                f"--config {file} does not count with --resume: the settings of this run lie in "
                f"{begun}. Leave it out"
            )
        file = begun
    asked = [
        f"{key}={value}"
        for flag, keys in flags.items()
        if (value := getattr(options, flag)) is not None
        for key in keys
    ]
    return override(load_yaml(file) if file else {}, [*options.override, *asked])


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="policy folder, run folder, or name of a shipped policy")
    parser.add_argument("--env", choices=("real", "world"), default="real", help="default: real")
    parser.add_argument("--episodes", type=int, default=100, help="full games (default: 100)")
    parser.add_argument("--seed", type=seed_number, default=0, help="0 or more")
    parser.add_argument(
        "--sticky", type=float, default=0.0, help="probability of sticky actions (default: 0)"
    )
    parser.add_argument(
        "--deterministic", action="store_true", help="take the likeliest action, do not draw one"
    )
    parser.add_argument("--world", help="world to play in (default: the one it was trained in)")
    parser.add_argument(
        "--max-steps", type=int, help="steps a game, at most (default: 27000 real, 5000 imagined)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")


def evaluate(options: argparse.Namespace) -> None:
    """Let a policy play full games; print its mean return and write all figures."""
    from tqdm import tqdm

    from genie_gym.agents.games import play_imagined, play_real
    from genie_gym.agents.policy import load_policy
    from genie_gym.envs.slots import WorldEnvConfig
    from genie_gym.files import write_text

    if options.env == "world" and options.sticky:
        raise ConfigError("sticky must be 0 with --env world: only the emulator repeats actions")
    if options.env == "real" and options.world:
        raise ConfigError(f"--world {options.world} needs --env world: the real game has no world")
    max_steps = options.max_steps
    if max_steps is None:
        max_steps = MAX_STEPS if options.env == "real" else MAX_IMAGINED_STEPS
    policy = load_policy(options.policy, options.device)
    settings = {"seed": options.seed, "deterministic": options.deterministic}
    if options.env == "real":
        with tqdm(total=options.episodes, unit="game") as bar:
            games = play_real(
                policy,
                options.episodes,
                sticky=options.sticky,
                max_steps=max_steps,
                on_game=bar.update,
                **settings,
            )
    else:
        config = WorldEnvConfig(
            game=policy.card.game,
            world=options.world or policy.card.world,
            device=options.device,
            max_episode_steps=max_steps,
        )
        with tqdm(unit="step") as bar:
            games = play_imagined(policy, options.episodes, config, on_step=bar.update, **settings)
    figures = {
        "policy": str(options.policy),
        "env": options.env,
        "sticky": options.sticky,
        **settings,
        **games.figures(),
    }
    if options.out:
        write_text(options.out, json.dumps(figures, indent=1) + "\n")
    cut = f", {games.num_cut} cut at the limit of steps" if games.num_cut else ""
    print(
        f"mean return {figures['mean_return']:.2f} (standard deviation "
        f"{figures['std_return']:.2f}) in {options.episodes} full games{cut}; "
        f"{figures['mean_length']:.0f} steps a game"
    )
