"""World bundles: a folder of `world.yaml`, `weights.safetensors` and `starts.safetensors`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genie_gym.config import from_dict, load_yaml, to_dict
from genie_gym.errors import ConfigError, DeviceError, WorldError, did_you_mean
from genie_gym.files import write_text
from genie_gym.games import GAMES
from genie_gym.models.stack import STAGES, GenieStack, StackConfig
from genie_gym.models.state import Starts
from genie_gym.models.world import World

BUNDLE_VERSION = 3
CARD_FILE, WEIGHTS_FILE, STARTS_FILE = "world.yaml", "weights.safetensors", "starts.safetensors"
PACKAGED_WORLDS = Path(__file__).parent.parent / "worlds"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def save_bundle(
    folder: Path,
    *,
    stack: GenieStack,
    starts: Starts,
    parts: frozenset[str],
    card: dict[str, Any],
) -> None:
    """Write a bundle; files appear under their names only when they are whole.

    Args:
        folder: created if absent; an older bundle in it is replaced once every new file is
            whole.
        stack: the trained networks.
        starts: start contexts from held-out episodes.
        parts: the parts that are trained; the others are left out.
        card: provenance and measured figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: x.contiguous()
        for name, x in stack.state_dict().items()
        if name.split(".")[0] in parts
    }
    content = {
        "bundle_version": BUNDLE_VERSION,
        "parts": sorted(parts, key=STAGES.index),
        "config": to_dict(stack.config),
        **card,
    }
    tensors = {"tokens": starts.tokens.int(), "actions": starts.actions.int()}
    text = yaml.safe_dump(content, sort_keys=False)
    writers: dict[str, Callable[[Path], object]] = {
        WEIGHTS_FILE: lambda path: save_file(weights, path),
        STARTS_FILE: lambda path: save_file(tensors, path),
        CARD_FILE: lambda path: path.write_text(text),
    }
    for name, write in writers.items():
        write(folder / f".{name}.part")
    for name in writers:
        os.replace(folder / f".{name}.part", folder / name)


def find_bundle(world: str | Path) -> Path:
    """Return the folder of a world.

    Args:
        world: a path, a packaged name, a name below $GENIE_GYM_HOME, or a hub repository written
            "hf://owner/name"; looked for in this order.

    Raises:
        WorldError: there is none; the text names the commands that train one.
    """
    name = str(world)
    if name.startswith("hf://"):
        return _download(name.removeprefix("hf://"))
    candidates = [Path(name), PACKAGED_WORLDS / name.lower()]
    if home := os.environ.get("GENIE_GYM_HOME"):
        candidates.append(Path(home) / name.lower())
    for folder in candidates:
        if (folder / CARD_FILE).is_file():
            return folder
    known = packaged_worlds()
    raise WorldError(
        f"no world {name!r}: no {CARD_FILE} in {[str(folder) for folder in candidates]}."
        f"{did_you_mean(name, known)} Packaged: {known}. Train one: {_training_commands(name)}"
    )


def _training_commands(name: str) -> str:
    """Return the shell line that makes a world of the game that the name means, else of Pong.

    N is left to the user: the size of a game's action set is known to the emulator alone.
    """
    game = next((game for game in GAMES if game.lower() == name.lower()), "Pong")
    short = game.lower()
    override = "" if game == "Pong" else f" stack.game={game} stack.num_actions=N"
    return (
        f"genie-gym collect ALE/{game}-v5 --out data/{short} --steps 300000 && "
        f"genie-gym train --config configs/pong.yaml --data data/{short} --out runs/{short}"
        f"{override} && genie-gym export runs/{short} --out worlds/{short}"
    )


def packaged_worlds() -> list[str]:
    """Return the names of the worlds that come with the package."""
    return sorted(path.parent.name for path in PACKAGED_WORLDS.glob(f"*/{CARD_FILE}"))


def read_card(folder: Path) -> dict[str, Any]:
    """Return a bundle's `world.yaml`.

    Raises:
        WorldError: it is damaged, or of a version this package does not read.
    """
    try:
        card = load_yaml(folder / CARD_FILE)
    except ConfigError as error:
        raise WorldError(f"{folder} is no world bundle: {error}") from error
    if card.get("bundle_version") != BUNDLE_VERSION:
        raise WorldError(
            f"{folder / CARD_FILE} has bundle version {card.get('bundle_version')}; this "
            f"genie_gym reads {BUNDLE_VERSION}. Upgrade genie_gym or export the world again"
        )
    if missing := [key for key in ("config", "parts") if key not in card]:
        raise WorldError(f"{folder / CARD_FILE} lacks {missing}. Export the world again")
    return card


def update_figures(folder: Path, figures: dict[str, Any]) -> None:
    """Put measured figures into a bundle's card."""
    card = {**read_card(folder), "figures": figures}
    _write_card(card, folder / CARD_FILE)


def load_world(
    world: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    *,
    is_compiled: bool = False,
) -> World:
    """Return a trained world by name or bundle path.

    Args:
        world: "pong", a folder, or "hf://owner/name".
        device: "cpu", "cuda", "cuda:1", or "auto" (a GPU where there is one).
        dtype: "float32" or "bfloat16", of dynamics and reward model; the tokenizer and the latent
            action model, which tell near things apart, stay in float32.
        is_compiled: whether the networks' steps go through `torch.compile`.

    Raises:
        WorldError: there is no such world, or its files do not fit each other.
        DeviceError: the device is not there.
    """
    if dtype not in DTYPES:
        raise WorldError(f"dtype must be one of {sorted(DTYPES)}, got {dtype!r}")
    torch_device = choose_device(device)
    folder = find_bundle(world)
    card = read_card(folder)
    config = from_dict(StackConfig, card["config"], f"{folder / CARD_FILE}: config")
    with torch.random.fork_rng(devices=[]):  # initial weights must not move the caller's numbers
        stack = GenieStack(config, generator=torch.Generator().manual_seed(0))
    parts = frozenset(card["parts"])
    _load_weights(stack, parts, folder / WEIGHTS_FILE)
    stack.to(torch_device)
    for fast in (stack.dynamics, stack.reward):  # bfloat16 would name frames by the wrong tokens
        fast.to(DTYPES[dtype])
    if is_compiled:
        for part in (stack.tokenizer.decoder, stack.dynamics.transformer, stack.reward.transformer):
            part.step = torch.compile(part.step)  # type: ignore[method-assign]

    tensors = _read_tensors(folder / STARTS_FILE)
    starts = Starts(
        *(tensors[name].to(torch_device, torch.int64) for name in ("tokens", "actions"))
    )
    return World(stack, starts, parts=parts, card=card)


def choose_device(device: str) -> torch.device:
    """Return the device of that name; "auto" takes a GPU where there is one.

    Raises:
        DeviceError: the name is unknown, or no such device is there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {device!r}. Take cpu, cuda, cuda:N or auto") from error
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {device!r} is not supported. Take cpu, cuda, cuda:N or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device!r} was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count() or 'no'} CUDA GPU. "
            "Take --device cpu, or install a CUDA build of torch"
        )
    return chosen


def _write_card(card: dict[str, Any], path: Path) -> None:
    write_text(path, yaml.safe_dump(card, sort_keys=False))


def _load_weights(stack: GenieStack, parts: frozenset[str], path: Path) -> None:
    weights = _read_tensors(path)
    expected = {name: x for name, x in stack.state_dict().items() if name.split(".")[0] in parts}
    if missing := sorted(expected.keys() - weights.keys()):
        raise WorldError(f"{path} lacks {len(missing)} tensors, the first {missing[0]!r}")
    if unknown := sorted(weights.keys() - expected.keys()):
        raise WorldError(f"{path} holds {len(unknown)} unknown tensors, the first {unknown[0]!r}")
    for name, x in expected.items():
        if weights[name].shape != x.shape:
            raise WorldError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, but {CARD_FILE} beside "
                f"it needs {tuple(x.shape)}. The two files belong to different worlds"
            )
    stack.load_state_dict(weights, strict=False)
    stack.share_codebook()


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise WorldError(
            f"{path} is missing. Export the world again: genie-gym export RUN --out ..."
        )
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise WorldError(f"{path} is damaged ({error}). Export the world again") from error
    return tensors


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(repository, allow_patterns=[CARD_FILE, WEIGHTS_FILE, STARTS_FILE])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WorldError(f"hub repository {repository!r} could not be fetched: {reason}") from error
