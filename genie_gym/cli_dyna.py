"""`genie-gym agent dyna`: collect, train the world, train the agent in it, and repeat."""

import argparse
from pathlib import Path
from typing import Any

from genie_gym.cli_agent import read_settings
from genie_gym.cli_data import seed_number
from genie_gym.errors import ConfigError

FLAGS = {
    "game": ("world.stack.game", "agent.env.game"),
    "real_steps": ("real_steps",),
    "rounds": ("rounds",),
    "seed": ("seed", "world.seed", "agent.seed"),
    "device": ("agent.env.device",),
}
"""Flags and the settings that they override."""


def add_dyna(commands: Any) -> None:
    """Add the command to those of `genie-gym agent`."""
    text = "collect, train the world and train an agent in it, in turn"
    parser: argparse.ArgumentParser = commands.add_parser("dyna", help=text, description=text)
    parser.set_defaults(run=dyna)
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--config", type=Path, help="YAML, see configs/dyna-pong.yaml")
    parser.add_argument("--game", help="ALE game (default: the config's)")
    parser.add_argument(
        "--real-steps", type=int, help="real steps of all rounds together (default: 100000)"
    )
    parser.add_argument("--rounds", type=int, help="rounds (default: 5)")
    parser.add_argument("--seed", type=seed_number, help="of real play, worlds and agents")
    parser.add_argument("--device", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, with the settings that lie there",
    )
    parser.add_argument(
        "override",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides any setting: first_share=0.4, dynamics_steps=800, agent.steps=300000, "
        "world.training.dynamics.max_steps=2000; the keys of config.yaml in a run folder",
    )


def dyna(options: argparse.Namespace) -> None:
    """Go through the rounds and say what came of each."""
    from collectors import record
    from genie_gym.agents.dyna import train_dyna
    from genie_gym.agents.dyna_config import DynaConfig
    from genie_gym.agents.policy import read_card
    from genie_gym.config import from_dict

    values = read_settings(options, FLAGS)
    if "world" not in values:
        raise ConfigError("name a --game, or a --config that does, such as dyna-pong.yaml")
    config = from_dict(DynaConfig, values)
    folder = train_dyna(config, options.out, record=record, resume=options.resume, on_phase=print)

    for number, agent in enumerate(sorted(options.out.glob("round-*/agent/policy"))):
        card = read_card(agent)
        line = f"round {number + 1}: {card.real_steps} real steps, {card.imagined_steps} imagined"
        if "real_return" in card.figures:
            line += f", mean return of real games {card.figures['real_return']:.2f}"
        print(line)
    print(f"policy in {folder}")
