"""The commands `genie-gym data ...`. Each imports its code only when it runs."""

import argparse
from pathlib import Path

from genie_gym.cli_import import add_export, add_import, export_dataset, import_videos, parse_size


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the commands to the parser of `genie-gym data`."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    verifier = command("verify", verify, "name every fault of a recording; exit with 1 if any")
    verifier.add_argument("path", type=Path, help="recording folder or HDF5 file")
    verifier.add_argument(
        "--replay", action="store_true", help="also step the real game again and compare every row"
    )
    repairer = command("repair", repair, "set bad shards aside, so that the rest can be used")
    repairer.add_argument("folder", type=Path, help="recording folder")
    shower = command("show", show, "print a recording's card; write a contact sheet and a film")
    shower.add_argument("path", type=Path, help="recording folder or HDF5 file")
    shower.add_argument("--out", type=Path, default=Path("out"), help="folder (default: out)")
    add_import(command("import", import_videos, "turn videos into a recording without actions"))
    _add_train_filter(
        command("train-filter", train_filter, "learn to tell good videos from bad ones")
    )
    add_export(command("export", export_dataset, "write a recording for another library"))


def verify(options: argparse.Namespace) -> int:
    """Print all faults, one a line; return 1 if there are any."""
    from genie_gym.data.manifest import read_manifest
    from genie_gym.data.verify import find_faults, find_notes

    faults = find_faults(options.path)
    if options.replay and not faults:
        from genie_gym.evaluation.real_replay import find_replay_faults

        faults = find_replay_faults(options.path, progress=True)
    for fault in faults:
        print(fault)
    if faults:
        return 1
    for note in find_notes(options.path):
        print(f"note: {note}")
    manifest = read_manifest(options.path) if options.path.is_dir() else None
    print(f"{options.path}: ok" + (f", {len(manifest.shards)} shards" if manifest else ""))
    return 0


def repair(options: argparse.Namespace) -> None:
    """Set bad shards aside and print what was done."""
    from genie_gym.data.repair import repair as run

    for action in run(options.folder) or [f"{options.folder} is whole: nothing to do"]:
        print(action)


def show(options: argparse.Namespace) -> None:
    """Print the card, and write what a person looks at."""
    from genie_gym.data.hdf5 import Recording
    from genie_gym.evaluation.recording import recording_card, write_pictures

    recording = Recording.open(options.path)
    print(recording_card(recording))
    sheet, film = write_pictures(recording, options.out)
    print(f"wrote {sheet} and {film}")


def seed_number(text: str) -> int:
    """Return a seed that numpy and torch take and HDF5 stores: 0 to 2**63 - 1."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2**63 - 1, got {value}")
    return value


def _add_train_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, help="its folders good/ and bad/ hold videos: mp4, webm, avi, mov"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the filter")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps (default: 300)")
    parser.add_argument("--batch-size", type=int, default=32, help="frames a step (default: 32)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak (default: 1e-3)")
    parser.add_argument("--seed", type=seed_number, default=0, help="0 or more")
    parser.add_argument(
        "--size",
        default="160x90",
        help="WIDTHxHEIGHT or one side of a judged frame, at most the size of the import that the "
        "filter is for (default: 160x90)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")


def train_filter(options: argparse.Namespace) -> None:
    """Train a quality filter and print how well it does on videos it has not seen."""
    from genie_gym.models.bundle import choose_device
    from genie_gym.models.clip_filter import ClipFilterConfig
    from genie_gym.training import clip_filter as training
    from genie_gym.training.config import StageConfig

    width, height = parse_size(options.size)
    config = training.FilterTrainingConfig(
        seed=options.seed,
        filter=ClipFilterConfig(width=width, height=height),
        training=StageConfig(
            max_steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warmup_steps=options.steps // 10,
            eval_every=100,
            save_every=options.steps,
        ),
    )
    device = choose_device(options.device)
    report = training.train_filter(options.folder, options.out, config, device=device)
    for name, figures in report.items():
        precision = "-" if figures.precision is None else f"{figures.precision:.3f}"
        print(
            f"{name}: {figures.num_good} good and {figures.num_bad} bad videos; accuracy "
            f"{figures.accuracy:.3f}, precision {precision} and recall {figures.recall:.3f} of good"
        )
    print(f"wrote {options.out}")
