"""Episodes as files to download."""

import asyncio
import io
import json
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from fastapi import Response
from jaxtyping import UInt8

from genie_gym.config import to_dict
from genie_gym.envs.replay import Replay
from genie_gym.evaluation.video import write_video
from genie_gym.serve.worlds import png

MEDIA_TYPES = {"mp4": "video/mp4", "zip": "application/zip"}


@dataclass(frozen=True, slots=True)
class Film:
    """Frames to be saved."""

    frames: UInt8[np.ndarray, "T H W C"]
    fps: float
    format: Literal["mp4", "zip"]


async def film_response(film: Film) -> Response:
    """Return frames as an mp4, or as a zip of PNG files 0000.png, 0001.png, ...

    Hold `GameServer.saving` from before the frames are unpacked: those of a long game are 100 MB.
    """
    content = await asyncio.to_thread(_mp4 if film.format == "mp4" else _zip, film)
    return _download(content, MEDIA_TYPES[film.format], f"episode.{film.format}")


def replay_response(replay: Replay, world_name: str) -> Response:
    """Return an episode as a replay file, which does not tell where the server keeps its worlds."""
    told = replace(replay, env=replace(replay.env, world=world_name, device="cpu"))
    content = json.dumps(to_dict(told), indent=1) + "\n"
    return _download(content.encode(), "application/json", "replay.json")


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    return Response(content, media_type=media_type, headers=headers)


def _mp4(film: Film) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "episode.mp4"
        write_video(file, film.frames, fps=film.fps)
        return file.read_bytes()


def _zip(film: Film) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # PNG files do not shrink further
        for index, frame in enumerate(film.frames):
            # Dated 1980, as is usual: the same frames make the same file.
            archive.writestr(zipfile.ZipInfo(f"{index:04d}.png"), png(frame))
    return file.getvalue()
