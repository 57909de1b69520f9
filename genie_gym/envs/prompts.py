"""Whatever a game may begin from: a picture, a sketch, a video or an array becomes frames."""

import io
import struct
import warnings
import zlib
from collections import deque
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from PIL import Image, ImageOps

from genie_gym.data.videos import read_pictures
from genie_gym.envs.sketches import SKETCHED_GAMES, is_sketch, sketch_frame
from genie_gym.errors import (
    ConfigError,
    InvalidActionError,
    PictureTooLargeError,
    PromptError,
    WorldError,
)
from genie_gym.models.state import WorldState
from genie_gym.models.world import ActionSource, World

Picture = UInt8[np.ndarray, "H W 3"]
Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "T H W 3"]

FITS = ("letterbox", "crop", "stretch")
"""How a picture of another shape is brought to size; see `fit_picture`."""
MAX_PIXELS = 50_000_000
"""Pixels of the largest picture that is read, 150 MB of RGB: what large phone cameras take."""
MAX_SIDE = 32_767
"""Pixels of its longer side: a strip of few pixels may still be too long to be brought to size."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Pillow's names of what is read; its other readers are older, rarer, and some start programs."""
VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi")
MAX_VIDEO_FRAMES = 64
"""Frames kept of a video, its last ones: four seconds, more than a world remembers."""
PAPER = (255, 255, 255)
"""What shows through where a picture is transparent: drawing programs export black strokes so."""
SCREEN = (210, 160)
"""Height and width of an Atari screen."""

# What Pillow's readers raise on damaged files, beside OSError.
_DAMAGE = (ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, zlib.error)


def read_picture(source: bytes | str | Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Return the picture in a PNG, JPEG, WebP, GIF or BMP file, as it should be seen.

    Photos are turned upright, palettes, CMYK and 16-bit grey become RGB, and what is transparent
    shows white paper. Of an animation the first frame is taken: it is what a game begins from; to
    begin from its motion, hand over a video.

    Args:
        source: the bytes of a file, or its path.
        max_pixels: larger pictures are refused by their header; no pixel of them is decoded.

    Raises:
        PromptError: it is missing, empty, damaged, or no such picture.
        PictureTooLargeError: it has more pixels.
    """
    name = "picture" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise PromptError(f"picture {name} cannot be read: {error.strerror}") from error
    if not content:
        raise PromptError(f"{name} holds 0 bytes. Hand over a {', '.join(FORMATS)} file")
    try:
        # Pillow warns of sizes that we refuse below, and of damage that is not in the pixels.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(
            f"{name} may have {max_pixels} pixels: {error}. Make it smaller"
        ) from error
    except (OSError, *_DAMAGE) as error:
        raise PromptError(
            f"{name} is no picture: it begins with {content[:16]!r}. Hand over a "
            f"{', '.join(FORMATS)} file"
        ) from error
    with image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width, height = image.size
        if width * height > max_pixels or max(width, height) > MAX_SIDE:
            raise PictureTooLargeError(
                f"{name} may have {max_pixels} pixels and sides of {MAX_SIDE}, but has {width} x "
                f"{height}. Make it smaller"
            )
        try:
            return _to_rgb(ImageOps.exif_transpose(image))
        except (OSError, *_DAMAGE) as error:
            raise PromptError(
                f"{name} is a damaged {image.format} file: {error}. Save it again"
            ) from error


def fit_picture(picture: Picture, height: int, width: int, *, fit: str = "letterbox") -> Frame:
    """Return a picture at a size, (height, width, 3).

    A picture in the shape of an Atari screen, 210 high and 160 wide or any enlargement of that,
    fills the frame whatever `fit` is: recordings squeeze the screen so.

    Args:
        picture: of any size.
        height: of the result, in pixels.
        width: of the result, in pixels.
        fit: "letterbox" keeps all of it, between black bars; "crop" fills the frame with its
            middle; "stretch" fills the frame with all of it.

    Raises:
        ConfigError: `fit` is none of these.
    """
    if fit not in FITS:
        raise ConfigError(f"fit must be one of {list(FITS)}, got {fit!r}")
    rows, columns = picture.shape[:2]
    if (rows, columns) == (height, width):
        return picture
    is_screen = abs(rows * SCREEN[1] - columns * SCREEN[0]) <= 0.01 * rows * SCREEN[1]
    if fit == "stretch" or is_screen:
        return _resize(picture, height, width)
    if fit == "crop":
        scale = max(height / rows, width / columns)
        kept_rows, kept_columns = max(1, round(height / scale)), max(1, round(width / scale))
        top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        return _resize(picture[top : top + kept_rows, left : left + kept_columns], height, width)
    scale = min(height / rows, width / columns)
    shown = _resize(picture, max(1, round(rows * scale)), max(1, round(columns * scale)))
    frame = np.zeros((height, width, 3), np.uint8)
    top, left = (height - shown.shape[0]) // 2, (width - shown.shape[1]) // 2
    frame[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return frame


def prompt_frames(
    prompt: Any,
    world: World,
    *,
    fit: str = "letterbox",
    sketch: bool | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Frames:
    """Return the frames that a game begins from, of the world's size, oldest first.

    Args:
        prompt: bytes of a picture file; the path of a picture, of a video (its last frames at the
            world's rate) or of a `.npy` file; a PIL image; or a uint8 array (H, W), (H, W, 3) or
            (T, H, W, 3).
        world: the world that the game is played in.
        fit: how pictures of another shape are brought to size; see `fit_picture`.
        sketch: whether a single picture is a drawing of the game that is to be read; by default a
            drawing in dark strokes on light paper is, where the game's drawings can be read.
        max_pixels: see `read_picture`.

    Raises:
        PromptError: it cannot be read, is something else, or is no drawing of the game.
        PictureTooLargeError: a picture has more pixels.
        ConfigError: `fit` is unknown.
        DataError: a video is missing, damaged or empty.
    """
    pictures = _read(prompt, world, max_pixels)
    height, width = world.config.height, world.config.width
    if len(pictures) == 1:
        if sketch is None:
            sketch = world.config.game in SKETCHED_GAMES and is_sketch(pictures[0])
        if sketch:
            return sketch_frame(pictures[0], world)[None]
    elif sketch:
        raise PromptError(f"a sketch is one picture, got {len(pictures)} frames. Take one of them")
    return np.stack([fit_picture(picture, height, width, fit=fit) for picture in pictures])


def encode_prompt(
    world: World, frames: Frames, actions: Any = None, *, source: ActionSource = "real"
) -> WorldState:
    """Return where a game stands after frames, with the past they tell, as a batch of one.

    Args:
        world: the world that the game is played in.
        frames: what `prompt_frames` gave.
        actions: the T - 1 actions between them; by default no-ops (action 0), or the latent actions
            that the world infers.
        source: which of the two the actions are.

    Raises:
        WorldError: there are more or fewer actions, or the frames are not of the world's size.
        InvalidActionError: an action is not in its set.
    """
    batch, num_actions = torch.from_numpy(frames)[None], len(frames) - 1
    if actions is not None:
        between = torch.from_numpy(_read_actions(actions, num_actions))[None]
    elif source == "latent" and num_actions > 0:
        between = world.infer_latent_actions(batch)
    else:
        between = torch.zeros(1, num_actions, dtype=torch.int64)
    return world.encode(batch, between, source)


def _read(prompt: Any, world: World, max_pixels: int) -> list[Picture]:
    if isinstance(prompt, bytes):
        return [read_picture(prompt, max_pixels=max_pixels)]
    if isinstance(prompt, Image.Image):
        return [_to_rgb(prompt)]
    name = "the prompt"
    if isinstance(prompt, str | Path):
        name, path = str(prompt), Path(prompt)
        if path.suffix in VIDEO_SUFFIXES:
            fps = world.card.get("fps", 15.0)
            return list(deque(read_pictures(path, fps), maxlen=MAX_VIDEO_FRAMES))
        if path.suffix != ".npy":
            return [read_picture(path, max_pixels=max_pixels)]
        prompt = _load_array(path)
    array = np.asarray(prompt)
    if (
        array.dtype != np.uint8
        or 0 in array.shape
        or not (array.ndim == 2 or (array.ndim in (3, 4) and array.shape[-1] == 3))
    ):
        raise PromptError(
            f"{name} must be a picture, or uint8 (H, W), (H, W, 3) or (T, H, W, 3), got "
            f"{array.dtype} {array.shape}"
        )
    if array.ndim == 2:
        array = array[..., None].repeat(3, axis=-1)
    # A copy, because torch and OpenCV want memory that is contiguous and may be written to.
    return list(np.array(array if array.ndim == 4 else array[None], order="C"))


def _load_array(path: Path) -> Shaped[np.ndarray, "..."]:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PromptError(f"prompt {path} is no .npy array of frames: {error}") from error
    return array


def _read_actions(actions: Any, num_actions: int) -> Int64[np.ndarray, " actions"]:
    array = np.asarray(actions)
    if array.shape != (num_actions,):
        raise WorldError(
            f"{num_actions + 1} frames have {num_actions} actions between them, got "
            f"{len(array) if array.ndim == 1 else repr(actions)}"
        )
    if num_actions and array.dtype.kind not in "iu":
        raise InvalidActionError(f"options['actions'] must be a list of ints, got {actions!r}")
    return array.astype(np.int64)


def _to_rgb(image: Image.Image) -> Picture:
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow would cut them off at 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return grey[..., None].repeat(3, axis=-1)
    if image.has_transparency_data:
        pasted = Image.new("RGBA", image.size, PAPER)
        pasted.alpha_composite(image.convert("RGBA"))
        image = pasted
    return np.array(image.convert("RGB"), np.uint8)


def _resize(picture: Picture, height: int, width: int) -> Frame:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
