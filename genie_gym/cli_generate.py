"""`genie-gym generate`: a prompt and a list of actions become a film or its frames."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_gym.cli_data import seed_number
from genie_gym.errors import ConfigError

if TYPE_CHECKING:
    from genie_gym.models.world import World


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_start(parser)
    parser.add_argument(
        "--actions", required=True, help="indices of the world's actions, as 2,2,3,0"
    )
    parser.add_argument("--out", type=Path, help="mp4 of the start and one frame for each action")
    parser.add_argument("--frames-dir", type=Path, help="folder of the same frames as PNG files")


def add_start(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which world is played, from where, and how."""
    parser.add_argument("--world", default="pong", help="world to play (default: pong)")
    parser.add_argument("--start", type=int, help="index of a start context; drawn by default")
    parser.add_argument(
        "--prompt",
        type=Path,
        help="begin from this picture (PNG, JPEG, WebP, GIF, BMP), drawing, video, or .npy file",
    )
    parser.add_argument("--text", help="begin from what a text-to-image pipeline makes of this")
    parser.add_argument(
        "--pipeline",
        help="that pipeline: a folder or hub id of diffusers, safetensors only; needs "
        "genie-gym[text]",
    )
    parser.add_argument(
        "--fit",
        choices=("letterbox", "crop", "stretch"),
        default="letterbox",
        help="how a picture of another shape fits the frame (default: letterbox)",
    )
    parser.add_argument(
        "--sketch",
        action=argparse.BooleanOptionalAction,
        help="whether the picture is a drawing of the game; found out by default",
    )
    parser.add_argument("--latent", action="store_true", help="actions are the world's latent ones")
    parser.add_argument("--seed", type=seed_number, default=0, help="0 or more")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")


def generate(options: argparse.Namespace) -> None:
    """Imagine, and write what was seen."""
    from genie_gym.envs.generation import generate as imagine
    from genie_gym.envs.generation import parse_actions
    from genie_gym.envs.slots import WorldEnvConfig, shared_world
    from genie_gym.evaluation.video import write_video

    if not options.out and not options.frames_dir:
        raise ConfigError("say where the frames go: --out FILE.mp4, --frames-dir DIR, or both")
    config = WorldEnvConfig(**world_options(options))
    world = shared_world(config)
    frames = imagine(
        config,
        parse_actions(options.actions),
        prompt=asked_prompt(options, world),
        start=options.start,
        seed=options.seed,
    )
    if options.out:
        write_video(options.out, frames, fps=world.card.get("fps", 15.0))
        print(f"wrote {options.out}, {len(frames)} frames")
    if options.frames_dir:
        _write_frames(options.frames_dir, frames)
        print(f"wrote {len(frames)} PNG files in {options.frames_dir}")


def world_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `WorldEnvConfig` that the flags set."""
    from genie_gym.models.bundle import choose_device, find_bundle, read_card

    return {
        "game": read_card(find_bundle(options.world))["config"]["game"],
        "world": options.world,
        "device": str(choose_device(options.device)),
        "action_mode": "latent" if options.latent else "ale",
    }


def asked_prompt(options: argparse.Namespace, world: "World") -> Any:
    """Return the frames that the flags ask to begin from; None for a start context.

    Raises:
        ConfigError: the flags contradict each other.
        PromptError: the prompt cannot be read.
    """
    from genie_gym.envs.prompts import prompt_frames
    from genie_gym.envs.text_prompts import picture_from_text

    asked = [name for name in ("start", "prompt", "text") if getattr(options, name) is not None]
    if len(asked) > 1:
        raise ConfigError(f"give one of --{' and --'.join(asked)}: a game begins once")
    if (options.text is None) != (options.pipeline is None):
        raise ConfigError("--text and --pipeline belong together: what to draw, and what draws it")
    prompt: Any = options.prompt
    if options.text is not None:
        prompt = picture_from_text(
            options.text, options.pipeline, seed=options.seed or 0, device=str(world.device)
        )
    if prompt is None:
        return None
    return prompt_frames(prompt, world, fit=options.fit, sketch=options.sketch)


def _write_frames(folder: Path, frames: Any) -> None:
    from PIL import Image

    from genie_gym.files import replacing

    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: frames of two films would mix. Name a new one")
    for index, frame in enumerate(frames):
        with replacing(folder / f"frame-{index:05d}.png") as part:
            Image.fromarray(frame).save(part)
