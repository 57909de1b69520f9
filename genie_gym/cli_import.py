"""`genie-gym data import` and `genie-gym data export`: the way in and the way out."""

import argparse
import os
import re
import shlex
from pathlib import Path

from genie_gym.errors import ConfigError


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `data import`."""
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="mp4, webm, avi, mov")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--fps", type=float, default=10, help="frames per second (default: 10)")
    parser.add_argument(
        "--size", default="160x90", help="WIDTHxHEIGHT or one side, in pixels (default: 160x90)"
    )
    parser.add_argument("--clip-length", type=int, default=16, help="frames a clip (default: 16)")
    parser.add_argument(
        "--min-quality", type=float, default=0.0, help="drop worse clips; 0 to 1 (default: 0)"
    )
    parser.add_argument(
        "--filter",
        type=Path,
        help="what `data train-filter` wrote; a clip's quality is then the smaller of its cheap "
        "score and the probability that it is good",
    )


def import_videos(options: argparse.Namespace) -> None:
    """Write a recording of video clips and print what it holds."""
    from genie_gym.data import videos

    width, height = parse_size(options.size)
    config = videos.ImportConfig(
        fps=options.fps,
        width=width,
        height=height,
        clip_length=options.clip_length,
        min_quality=options.min_quality,
    )
    judge = None
    if options.filter:
        from genie_gym.models.clip_filter import load_filter

        judge = videos.Judge(name=str(options.filter), score=load_filter(options.filter).score)
    summary = videos.import_videos(options.videos, options.out, config, judge=judge)
    print(f"{summary.num_clips} clips, {summary.num_frames} frames in {summary.path}")
    if summary.dropped:
        reasons = ", ".join(f"{count} {name}" for name, count in sorted(summary.dropped.items()))
        number = sum(summary.dropped.values())
        print(f"{number} clips below quality {config.min_quality:g} left out: {reasons}")


def parse_size(text: str) -> tuple[int, int]:
    """Return width and height in pixels.

    Raises:
        ConfigError: the text is neither one number nor two.

    Example:
        >>> parse_size("160x90"), parse_size("64")
        ((160, 90), (64, 64))
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise ConfigError(f"size must be WIDTHxHEIGHT or one side, as 160x90 or 64, got {text!r}")
    width, height = match.groups()
    return int(width), int(height or width)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `data export`."""
    parser.add_argument("recording", type=Path, metavar="DIR", help="recording")
    parser.add_argument("--format", choices=["minari"], required=True, help="what to write")
    parser.add_argument(
        "--out", required=True, help="id, as pong/random-v0, or folder, as ./pong-random-v0"
    )


def export_dataset(options: argparse.Namespace) -> None:
    """Write a recording in another library's format and print how to open it."""
    from genie_gym.data.minari_export import export_minari

    folder, dataset_id = export_minari(options.recording, options.out)
    root = Path(os.path.abspath(folder)).parents[dataset_id.count("/")]
    print(f"wrote {folder}; open it with")
    print(
        f"MINARI_DATASETS_PATH={shlex.quote(str(root))} "
        f"python -c \"import minari; print(minari.load_dataset('{dataset_id}'))\""
    )
