"""The `genie-gym` command. Each command imports its code only when it runs."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from genie_gym.cli_agent import add_agent
from genie_gym.cli_data import add_data, seed_number
from genie_gym.cli_dyna import add_dyna
from genie_gym.cli_generate import add_generate, generate
from genie_gym.cli_plan import add_plan, plan
from genie_gym.cli_play import add_play, play
from genie_gym.cli_serve import add_serve, serve
from genie_gym.errors import GenieError
from genie_gym.games import MAX_STEPS

STAGE_NAMES = ("tokenizer", "lam", "dynamics", "reward", "action_map")
STAGE_FLAGS = ("max_steps", "save_every", "batch_size", "gradient_accumulation_steps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its code, 2 after a one-line error, or 130 after Ctrl-C."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes positionals from one place of the line alone; KEY=VALUE may stand anywhere.
    settings = [text for text in rest if re.match(r"[\w.]+=", text) and "override" in options]
    if unknown := [text for text in rest if text not in settings]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if settings:
        options.override += settings
    try:
        return options.run(options) or 0
    except (GenieError, OSError) as error:
        text = " ".join(str(error).splitlines())
        print(f"genie-gym {options.command}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"genie-gym {options.command}: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="genie-gym", description="Recorded Atari play becomes a Gymnasium environment."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    _add_demo(command("demo", demo, "play a bundled world; write a film and a contact sheet"))
    _add_collect(command("collect", collect, "record play to HDF5"))
    text = "check, repair, show, import and export recordings"
    add_data(commands.add_parser("data", help=text, description=text))
    _add_train(command("train", train, "train the stack on a recording"))
    _add_export(command("export", export, "turn a run folder into a world bundle"))
    _add_evaluate(command("evaluate", evaluate, "judge a world on held-out play"))
    text = "train and judge agents that learn inside a world"
    add_dyna(add_agent(commands.add_parser("agent", help=text, description=text)))
    add_plan(command("plan", plan, "let a planner play the real game or the learned one"))
    text = "imagine what actions lead to from a start, a picture, a sketch or a text"
    add_generate(command("generate", generate, text))
    add_play(command("play", play, "play a world by keyboard"))
    add_serve(command("serve", serve, "play worlds in the browser, and over HTTP and WebSocket"))
    _add_info(command("info", info, "print the card of a world"))
    return parser


def frame_size(text: str) -> int | None:
    """Return the side of a frame; None for "native"."""
    if text == "native":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of pixels, or native, got {text!r}")
    return int(text)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--world", default="pong", help="world to play (default: pong)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (default: out)")
    parser.add_argument("--steps", type=int, default=300, help="imagined steps (default: 300)")
    parser.add_argument(
        "--policy",
        help="who plays: scripted, random, ... as in collect, or shipped: the trained policy that "
        "comes with the world, filmed in its world (left) and in the real game (right). Default: "
        "shipped if there is one, else scripted",
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="0 or more")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")


def demo(options: argparse.Namespace) -> None:
    """Play a world and write what was seen."""
    import gymnasium as gym

    import genie_gym  # (registers the ids)
    from collectors.policies import make_policy
    from genie_gym.agents.policy import has_policy
    from genie_gym.evaluation.demo import (
        Player,
        figure_lines,
        play,
        play_beside_real,
        points,
        side_by_side,
        write_demo,
    )
    from genie_gym.games import world_id
    from genie_gym.models.bundle import find_bundle, read_card

    folder = find_bundle(options.world)
    card = read_card(folder)
    config = card["config"]
    name = options.policy or ("shipped" if has_policy(folder) else "scripted")
    env = gym.make(world_id(config["game"]), world=options.world, device=options.device)
    if name == "shipped":
        policy = genie_gym.load_policy(folder)
        played, real = play_beside_real(env, policy, options.steps, options.seed)
        frames = side_by_side(played.frames, real.frames)
    else:
        shape = (config["height"], config["width"], 3)
        # A game's actions are numbers, so its policy returns no vectors.
        player = cast(
            Player, make_policy(name, config["game"], config["num_actions"], frame_shape=shape)
        )
        played = play(env, player, options.steps, options.seed)
        frames = played.frames
    film, sheet = write_demo(frames, options.out, card["fps"])
    print(
        f"{len(played.rewards)} imagined steps, {played.steps_per_second:.0f} steps/s with pixels"
    )
    print(f"{name} player: {points(played.rewards)}, {played.num_episodes} episode(s)")
    if name == "shipped":
        print(f"the same policy in the real game, right in the film: {points(real.rewards)}")
    print(
        "figures of the world on held-out play:" if card["figures"] else "no figures measured yet"
    )
    for line in figure_lines(card["figures"], indent="  "):
        print(line)
    print(f"wrote {film} and {sheet}")


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "game", help="ALE game (ALE/Pong-v5), or gym:ENV_ID for anything that renders rgb_array"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--steps", type=int, required=True, help="actions in total, at most")
    parser.add_argument(
        "--min-events", type=int, help="stop early at so many rewards of each sign, + and -"
    )
    parser.add_argument(
        "--policy",
        help="random, repeat, repeat:0.8, scripted (Breakout, Freeway, Pong), human (you, by "
        "keyboard), mixed, mixed:scripted=0.6,random=0.4, agent:PATH, a policy of genie-gym agent "
        "(runs/ppo, pong), or sb3:PATH, a PPO, A2C or DQN zip of "
        "Stable-Baselines3. Loading a zip RUNS CODE from it (pickle): name only files you trust. "
        "Default: mixed for ALE games, random for others",
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="0 or more")
    parser.add_argument(
        "--sticky", type=float, help="probability of sticky actions (ALE only, default: 0)"
    )
    parser.add_argument(
        "--noop-max", type=int, help="most raw no-ops after a reset (ALE only, default: 30)"
    )
    parser.add_argument("--env-module", help="module to import first; it registers gym:ENV_ID")
    parser.add_argument(
        "--frame-size",
        type=frame_size,
        default=64,
        help="side of a frame in pixels, or native: 210 high and 160 wide for most ALE games, what "
        "is rendered for others (default: 64)",
    )
    parser.add_argument(
        "--num-envs", type=int, default=1, help="episodes at once, on no more processes than cores"
    )
    parser.add_argument(
        "--backend",
        default="processes",
        help="where the workers run: processes (of this machine, the default), or ray (the Ray "
        "cluster at RAY_ADDRESS, or else on this machine; needs genie-gym[ray] on every node)",
    )
    parser.add_argument(
        "--max-episode-steps",
        type=int,
        default=MAX_STEPS,
        help="actions after which an episode is cut; each process holds one in memory "
        "(default: 27000)",
    )
    parser.add_argument("--shard-steps", type=int, default=10_000, help="actions a shard")
    parser.add_argument("--resume", action="store_true", help="go on with the recording in --out")


def collect(options: argparse.Namespace) -> None:
    """Record play and print what it holds."""
    from collectors import record

    names = ("steps", "min_events", "policy", "seed", "sticky", "noop_max", "env_module")
    more_names = ("frame_size", "num_envs", "max_episode_steps", "backend", "shard_steps", "resume")
    settings = {name: getattr(options, name) for name in (*names, *more_names)}
    summary = record(options.game, options.out, **settings)
    print(summary.class_table)
    print(
        f"{summary.num_steps} steps, {summary.num_episodes} episodes, {summary.num_bytes} bytes "
        f"in {summary.path}; {summary.steps_per_second:.0f} steps/s"
    )
    if summary.quota_report:
        print(summary.quota_report)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML, see configs/")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        help="recording to learn from; give it again for each further one",
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument(
        "--stage",
        type=lambda text: text.replace("-", "_"),
        choices=STAGE_NAMES,
        help="train this part alone; action-map may be written so",
    )
    parser.add_argument(
        "--labels", type=int, help="overrides stack.action_map.num_labels: transitions it is told"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoints")
    parser.add_argument("--init-from", metavar="WORLD", help="begin with the parts of this world")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    parser.add_argument("--seed", type=seed_number, help="overrides seed")
    for flag in STAGE_FLAGS:
        name = "--" + flag.replace("_", "-")
        parser.add_argument(name, type=int, help=f"overrides training.<stage>.{flag}")
    parser.add_argument(
        "override", nargs="*", metavar="KEY=VALUE", help="overrides any value of the YAML"
    )


def train(options: argparse.Namespace) -> None:
    """Train all stages, or one."""
    from genie_gym.config import from_dict, load_yaml, override
    from genie_gym.models.bundle import choose_device, load_world
    from genie_gym.training.config import RunConfig
    from genie_gym.training.run import run_training

    stages = [options.stage] if options.stage else list(STAGE_NAMES)
    assignments = list(options.override)
    if options.seed is not None:
        assignments.append(f"seed={options.seed}")
    if options.labels is not None:
        assignments.append(f"stack.action_map.num_labels={options.labels}")
    for flag in STAGE_FLAGS:
        if (value := getattr(options, flag)) is not None:
            assignments += [f"training.{stage}.{flag}={value}" for stage in stages]
    config = from_dict(RunConfig, override(load_yaml(options.config), assignments))
    run = run_training(
        config,
        options.data,
        options.out,
        stages=stages,
        resume=options.resume,
        init_from=load_world(options.init_from) if options.init_from else None,
        device=choose_device(options.device),
    )
    print(f"finished stages in {run.path}: {', '.join(run.finished_stages())}")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument(
        "--data", type=Path, action="append", help="the run's recordings, if they have moved"
    )
    parser.add_argument(
        "--starts",
        type=Path,
        action="append",
        help="held-out recording to choose start contexts from (default: validation episodes)",
    )
    parser.add_argument("--num-starts", type=int, help="start contexts (default: the config's)")


def export(options: argparse.Namespace) -> None:
    """Write a bundle."""
    from genie_gym.training.export import export as write

    folder = write(
        options.run_folder,
        options.out,
        options.data,
        start_paths=options.starts,
        num_starts=options.num_starts,
    )
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {folder}, {size / 2**20:.1f} MiB")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("world", help="world name or bundle folder")
    parser.add_argument("--data", type=Path, required=True, help="held-out recording")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--windows", type=int, default=400, help="free rollouts (default: 400)")
    parser.add_argument("--horizon", type=int, default=20, help="steps a rollout (default: 20)")
    parser.add_argument("--temperature", type=float, help="sampling temperature")
    parser.add_argument("--num-maskgit-steps", type=int, help="refinement steps a frame")
    parser.add_argument("--seed", type=seed_number, default=0, help="0 or more")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    parser.add_argument("--update-card", action="store_true", help="put the bars into its card")
    for name, what in (("fid", "single frames"), ("fvd", "clips")):
        parser.add_argument(
            f"--{name}-network",
            help=f"TorchScript file that makes features of {what}, for {name.upper()}; loading it "
            "RUNS CODE from it: name only files you trust",
        )
    parser.add_argument(
        "--scaling", action="store_true", help="also measure time and memory against size"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help='how much is measured, for example long_windows=0; the keys of "config" in a report',
    )


def evaluate(options: argparse.Namespace) -> None:
    """Measure a world, print what it should reach, and write the report."""
    from genie_gym.config import from_dict, override
    from genie_gym.evaluation import heldout
    from genie_gym.evaluation.bars import card_figures, table
    from genie_gym.evaluation.config import EvaluationConfig
    from genie_gym.models.bundle import find_bundle, load_world, update_figures

    flags = {
        "num_windows": options.windows,
        "horizon": options.horizon,
        "temperature": options.temperature,
        "num_maskgit_steps": options.num_maskgit_steps,
        "seed": options.seed,
    }
    config = from_dict(EvaluationConfig, override(flags, options.set))
    world = load_world(options.world, device=options.device)
    report = heldout.evaluate(
        world,
        options.data,
        config,
        out=options.out,
        frame_network=options.fid_network,
        clip_network=options.fvd_network,
        with_scaling=options.scaling,
    )
    if options.update_card:
        update_figures(find_bundle(options.world), card_figures(report))
    print(table(report["bars"]))
    print(f"wrote {options.out / 'report.html'} and {options.out / 'report.json'}")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("world", help="world name or bundle folder")


def info(options: argparse.Namespace) -> None:
    """Print a world's card: what it is, where it comes from, what was measured."""
    import yaml

    from genie_gym.models.bundle import WEIGHTS_FILE, find_bundle, load_world, read_card

    folder = find_bundle(options.world)
    card = read_card(folder)
    world = load_world(folder)
    card["sizes"] = {
        "parameters": {
            name: sum(x.numel() for x in getattr(world.stack, name).parameters())
            for name in card["parts"]
        },
        "weights_mib": round((folder / WEIGHTS_FILE).stat().st_size / 2**20, 2),
        "tokens_per_frame": world.stack.tokenizer.num_tokens,
        "start_contexts": len(world.starts),
    }
    print(yaml.safe_dump(card, sort_keys=False), end="")


if __name__ == "__main__":
    sys.exit(main())
