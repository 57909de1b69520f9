"""Video files become a recording of short clips without actions, in constant memory.

Frames are chosen by timestamp: frame k of the result is what a player shows k / fps seconds after
the video's first frame. One frame at a time is decoded, one clip at a time is held, and one shard
at a time is written.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Generic, TypeVar

import av
import cv2
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from genie_gym.data.folders import new_folder
from genie_gym.data.manifest import Manifest, ShardEntry, write_manifest
from genie_gym.data.quality import GRID, QualityMeter
from genie_gym.data.shards import ShardWriter
from genie_gym.errors import ConfigError, DataError

Image = TypeVar("Image")

SHARD_BYTES = 2**27
"""Frames of a shard before they are compressed; a shard is collected in memory."""
LONGEST_GAP = 3600
"""Seconds without a new frame, or of one frame, after which timestamps are taken for damaged."""
FORMATS = "mov,matroska,avi"
"""FFmpeg's names of what is read: mov is mp4 too, matroska webm. Others may name further files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """How videos are cut into clips."""

    fps: int | float = 10
    """Frames per second of the result."""
    width: int = 160
    """Width of a frame in pixels; the picture is stretched to it."""
    height: int = 90
    """Height of a frame in pixels."""
    clip_length: int = 16
    """Frames of a clip, which becomes an episode; the last one of a video may be shorter."""
    min_quality: int | float = 0
    """Clips below this score are dropped, see `genie_gym.data.quality`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.001 <= self.fps <= 1000:
            raise ConfigError(f"fps must lie in [0.001, 1000], got {self.fps}")
        if min(self.width, self.height) < GRID:
            raise ConfigError(
                f"size must be at least {GRID}x{GRID} pixels, got {self.width}x{self.height}"
            )
        if self.clip_length < 2:
            raise ConfigError(f"clip_length must be at least 2, got {self.clip_length}")
        if not 0 <= self.min_quality <= 1:
            raise ConfigError(f"min_quality must lie in [0, 1], got {self.min_quality}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Somebody else's word on clips, beside the cheap scores."""

    name: str
    """Stands in the manifest: where a filter was loaded from."""
    score: Callable[[UInt8[np.ndarray, "T H W 3"]], float]
    """Returns the probability that a clip is good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary:
    """What an import made."""

    path: Path
    """Folder of the recording."""
    num_frames: int
    """Frames in the recording."""
    num_clips: int
    """Clips in the recording, its episodes."""
    dropped: dict[str, int]
    """Number of clips left out, by their worst defect: {"frozen": 3, "black": 1}."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedFrame(Generic[Image]):
    """A picture and when it is shown."""

    begin: Fraction
    """Seconds on the video's own clock."""
    end: Fraction
    """When it makes room for the next; `begin` if the file does not say."""
    tick: Fraction
    """Step of the clock, in seconds: `begin` and `end` are rounded to it."""
    image: Image
    """The picture."""


def import_videos(
    videos: Sequence[Path],
    out: Path,
    config: ImportConfig,
    *,
    judge: Judge | None = None,
    progress: bool = True,
) -> ImportSummary:
    """Write a recording of all clips of the videos; the folder appears only when it is whole.

    Args:
        videos: mp4, mov, webm, mkv or avi files, whatever they are called.
        out: folder of the recording; must be absent or empty.
        config: how videos are cut into clips.
        judge: a clip's quality is then the smaller of the cheap score and this judge's.
        progress: whether to show a progress bar.

    Raises:
        DataError: a video is missing, damaged or empty, no clip is good enough, or `out` is taken.
    """
    # All are tried before the first is read: the last of a long list may be missing.
    for video in videos:
        next(read_frames(video, config))

    dropped: Counter[str] = Counter()
    clips = _good_clips(videos, config, judge, dropped)
    with (
        new_folder(out) as folder,
        tqdm(clips, unit="clip", disable=not progress) as bar,
    ):
        shards = _write_shards(folder, iter(bar), config)
        if not shards:
            raise DataError(
                f"no clip reached quality {config.min_quality:g}: {dict(dropped)} dropped. Lower "
                "--min-quality, or import other videos"
            )
        settings = {
            "videos": [str(video) for video in videos],
            **asdict(config),
            "filter": judge and judge.name,
        }
        write_manifest(folder, Manifest(settings=settings, is_finished=True, shards=tuple(shards)))
    return ImportSummary(
        path=out,
        num_frames=sum(shard.rows for shard in shards),
        num_clips=sum(shard.episodes for shard in shards),
        dropped=dict(dropped),
    )


def read_frames(video: Path, config: ImportConfig) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield a video's frames at the rate and size of the config; there is at least one.

    Raises:
        DataError: the video is missing, damaged or empty.
    """
    size = (config.width, config.height)
    for picture in read_pictures(video, config.fps):
        yield np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_pictures(video: Path, fps: int | float) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield a video's frames upright, at a rate and in their own size; there is at least one.

    Raises:
        DataError: the video is missing, damaged or empty.
    """
    with _damage_named(video):
        is_empty = True
        # 29.97 and 30000 / 1001 are both meant exactly.
        for image in resample(_decode(video), Fraction(fps).limit_denominator(1001)):
            is_empty = False
            # Phones store pictures as the sensor lies, and the angle to turn them by.
            upright = np.rot90(image.to_ndarray(format="rgb24"), image.rotation // 90)
            yield np.ascontiguousarray(upright, np.uint8)
        if is_empty:
            raise DataError(f"{video} holds no frame. Leave it out, or record it again")


def resample(frames: Iterable[TimedFrame[Image]], fps: Fraction) -> Iterator[Image]:
    """Yield what is seen at 0, 1 / fps, 2 / fps, ... seconds after the first frame begins.

    Example:
        >>> third = Fraction(1, 3)
        >>> frames = [
        ...     TimedFrame(begin=third * i, end=third * (i + 1), tick=third / 9, image=i)
        ...     for i in range(6)
        ... ]
        >>> list(resample(frames, Fraction(2)))
        [0, 1, 3, 4]
    """
    num_shown, start, shown = 0, Fraction(0), None
    for frame in frames:
        start = frame.begin if shown is None else start
        # Half a tick early: a frame of time 66.7 ms is stored as 67 where a tick is 1 ms.
        while shown is not None and start + num_shown / fps < frame.begin - frame.tick / 2:
            yield shown.image
            num_shown += 1
        shown = frame
    # A whole tick, for `end` is the sum of two rounded times. The first frame always counts.
    while shown is not None and (
        num_shown == 0 or start + num_shown / fps < shown.end - shown.tick
    ):
        yield shown.image
        num_shown += 1


def _decode(video: Path) -> Iterator[TimedFrame[av.VideoFrame]]:
    with _opened(video) as container:
        if not container.streams.video:
            raise DataError(f"{video} holds no pictures, only other streams. Leave it out")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        last = None
        for image in container.decode(stream):
            if image.is_corrupt or image.pts is None or image.time_base is None:
                raise av.error.InvalidDataError(0, "a frame is corrupt or has no timestamp")
            begin = image.pts * image.time_base
            duration = (image.duration or 0) * image.time_base
            gap = duration if last is None else max(duration, begin - last)
            if gap > LONGEST_GAP:
                raise av.error.InvalidDataError(0, f"no frame for {float(gap):.0f} s")
            last = begin
            yield TimedFrame(
                begin=begin,
                end=begin + duration,
                # Coarser clocks, as in avi, count whole frames and round nothing.
                tick=min(image.time_base, Fraction(1, 1000)),
                image=image,
            )


def _opened(video: Path) -> av.container.InputContainer:
    try:
        return av.open(str(video), options={"format_whitelist": FORMATS})
    except av.error.ArgumentError as error:
        with video.open("rb") as file:
            beginning = file.read(16)
        raise DataError(
            f"{video} is not in the format of mp4, mov, webm, mkv or avi: it begins with "
            f"{beginning!r}. Other formats are not read, for some only name other files. Convert "
            f"it if you trust it: ffmpeg -i {video.name} converted.mp4"
        ) from error


@contextmanager
def _damage_named(video: Path) -> Iterator[None]:
    if not video.is_file():
        raise DataError(f"video {video} does not exist. Check the path")
    try:
        yield
    except av.FFmpegError as error:
        raise DataError(
            f"{video} cannot be decoded as video: {error.strerror}. It is truncated, damaged or no "
            "video: copy it again, leave it out, or save what is left: "
            f"ffmpeg -i {video.name} repaired.mp4"
        ) from error


def _good_clips(
    videos: Sequence[Path], config: ImportConfig, judge: Judge | None, dropped: Counter[str]
) -> Iterator[tuple[UInt8[np.ndarray, "T H W 3"], dict[str, object]]]:
    """Yield clips that are good enough, and what is known of each; count the others."""
    meter = QualityMeter()
    for video in videos:
        frames = read_frames(video, config)
        for first in itertools.count(step=config.clip_length):
            clip = list(itertools.islice(frames, config.clip_length))
            if not clip:
                break
            images = np.stack(clip)
            quality = meter.measure(images)
            if judge:
                quality = replace(quality, filter=1 - judge.score(images))
            if quality.score < config.min_quality:
                dropped[quality.worst] += 1
                continue
            about = {"video": str(video), "start": first / config.fps, "quality": quality.score}
            yield images, {**about, **asdict(quality)}


def _write_shards(
    folder: Path,
    clips: Iterator[tuple[UInt8[np.ndarray, "T H W 3"], dict[str, object]]],
    config: ImportConfig,
) -> list[ShardEntry]:
    shards: list[ShardEntry] = []
    episode_ids = itertools.count()
    while True:
        with ShardWriter(folder, len(shards), {"fps": config.fps}) as writer:
            for frames, about in clips:
                writer.append_rows(next(episode_ids), {"frames": frames}, about)
                if writer.num_rows * frames[0].nbytes >= SHARD_BYTES:
                    break
            if not writer.num_rows:
                return shards
            shards.append(writer.close())
