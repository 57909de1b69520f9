"""Frames to files people open: mp4, a sheet of stills, a small GIF.

Every file is written under a temporary name and then renamed: what has the asked-for name is whole.
Videos go through imageio, because moviepy 2.2.1 loses the last frame of many lengths (100 frames
decode as 99); h264 in yuv420p, because some browsers show nothing else, hence even sizes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from genie_gym.errors import ConfigError, DataError
from genie_gym.files import replacing

_SHEET_GAP = 4
_LABEL_HEIGHT = 14
_CAPTION_HEIGHT = 20
_MIN_WIDTH = 160
_SHEET_COLOUR = (32, 32, 32)
_LABEL_COLOUR = (235, 235, 235)


def write_video(
    path: str | Path, frames: Shaped[np.ndarray, "..."], fps: int | float = 15, scale: int = 4
) -> None:
    """Write an mp4 with exactly as many frames as are given.

    Args:
        path: the file, ending in .mp4; its folder is made if need be.
        frames: uint8 (T, H, W, 3), at least one frame.
        fps: frames shown per second; 15 is the speed of a game recorded with frame skip 4.
        scale: pixels of video for one pixel of frame; an odd side is made even by its last line.

    Raises:
        DataError: the frames are not uint8 of (T, H, W, 3), or there are none.
        ConfigError: the name does not end in .mp4, or fps or scale is out of its range.
    """
    _check(path, frames, scale, suffix=".mp4", fps=fps)
    with replacing(Path(path)) as temporary:
        writer: Any = imageio.get_writer(
            temporary,
            format="FFMPEG",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
        )
        with writer:
            for frame in frames:
                writer.append_data(_even(_enlarge(frame, scale)))


def write_gif(
    path: str | Path, frames: Shaped[np.ndarray, "..."], fps: int | float = 15, scale: int = 2
) -> None:
    """Write an endless GIF with one palette for all frames; equal neighbours are merged.

    Args:
        path: the file, ending in .gif; its folder is made if need be.
        frames: uint8 (T, H, W, 3), at least one frame.
        fps: frames per second; GIF knows hundredths of a second, so 15 is shown as 16.7.
        scale: pixels of GIF for one pixel of frame.

    Raises:
        DataError: the frames are not uint8 of (T, H, W, 3), or there are none.
        ConfigError: the name does not end in .gif, or fps or scale is out of its range.
    """
    _check(path, frames, scale, suffix=".gif", fps=fps)
    palette = _palette(frames)
    first, *rest = (
        Image.fromarray(_enlarge(frame, scale)).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    with replacing(Path(path)) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=1000 / fps,
            loop=0,
            optimize=True,
        )


def contact_sheet(
    path: str | Path,
    frames: Shaped[np.ndarray, "..."],
    columns: int = 8,
    labels: Sequence[str] | None = None,
    scale: int = 3,
) -> None:
    """Write a PNG of all frames side by side, row by row from the top left.

    Args:
        path: the file, ending in .png; its folder is made if need be.
        frames: uint8 (T, H, W, 3), at least one frame.
        columns: frames in a row.
        labels: one text per frame, written above it.
        scale: pixels of sheet for one pixel of frame.

    Raises:
        DataError: the frames are not uint8 of (T, H, W, 3), there are none, or there are not as
            many labels as frames.
        ConfigError: the name does not end in .png, or columns or scale is out of its range.
    """
    _check(path, frames, scale, suffix=".png")
    if columns < 1:
        raise ConfigError(f"columns must be at least 1, got {columns}")
    if labels is not None and len(labels) != len(frames):
        raise DataError(f"there must be one label per frame, got {len(labels)} for {len(frames)}")

    num_frames, height, width, _ = frames.shape
    columns = min(columns, num_frames)
    rows = -(-num_frames // columns)
    label_height = _LABEL_HEIGHT if labels is not None else 0
    step_x = width * scale + _SHEET_GAP
    step_y = height * scale + _SHEET_GAP + label_height
    size = (columns * step_x + _SHEET_GAP, rows * step_y + _SHEET_GAP)
    sheet = Image.new("RGB", size, _SHEET_COLOUR)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        left, top = _SHEET_GAP + column * step_x, _SHEET_GAP + row * step_y
        sheet.paste(Image.fromarray(_enlarge(frame, scale)), (left, top + label_height))
        if labels is not None:
            draw.text((left, top), labels[index], fill=_LABEL_COLOUR, font=font)
    with replacing(Path(path)) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def captioned(frame: UInt8[np.ndarray, "H W C"], text: str) -> UInt8[np.ndarray, "height width C"]:
    """Return a frame, enlarged without blur if it is small, above a strip with a text."""
    picture = _enlarge(frame, scale=-(-_MIN_WIDTH // frame.shape[1]))
    strip = np.zeros((_CAPTION_HEIGHT, picture.shape[1], 3), np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, text, (3, 14), font, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(np.concatenate([picture, strip]), np.uint8)


def _check(
    path: str | Path,
    frames: Shaped[np.ndarray, "..."],
    scale: int,
    *,
    suffix: str,
    fps: int | float = 1,
) -> None:
    if Path(path).suffix != suffix:
        raise ConfigError(f"the name of this file must end in {suffix}, got {str(path)!r}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise DataError(
            f"frames for {path} must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}"
        )
    if 0 in frames.shape:
        raise DataError(f"frames for {path} must not be empty, got {frames.shape}")
    if scale < 1:
        raise ConfigError(f"scale must be at least 1, got {scale}")
    if not fps > 0:
        raise ConfigError(f"fps must be above 0, got {fps}")


def _enlarge(frame: UInt8[np.ndarray, "H W C"], scale: int) -> UInt8[np.ndarray, "height width C"]:
    height, width, _ = frame.shape
    size = (width * scale, height * scale)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _even(frame: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "height width C"]:
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _palette(frames: UInt8[np.ndarray, "T H W C"]) -> Image.Image:
    """Return an image with the 256 colours that suit up to 64 evenly spaced frames best."""
    sample = frames[:: -(-len(frames) // 64)]
    return Image.fromarray(sample.reshape(-1, frames.shape[2], 3)).quantize(256)
