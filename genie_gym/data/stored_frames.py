"""Frames that stay in their files and are read when asked for, in any order."""

from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import h5py
import numpy as np
from isal.igzip_lib import DECOMP_ZLIB, IgzipDecompressor, IsalError
from jaxtyping import Int, Int64, UInt8

from genie_gym.data.layout import Layout, opened
from genie_gym.data.shards import FRAMES_PER_CHUNK
from genie_gym.errors import DataError

Index = int | slice | EllipsisType | Int[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Neighbouring rows of one file that are read together."""

    shard: int
    """Index of the file."""
    first: int
    """First row, counted in the file."""
    num_rows: int
    """Number of rows."""
    place: tuple[int, int] | None = None
    """Offset and size in bytes of the zlib stream that holds them; None if only HDF5 can tell."""


class StoredFrames:
    """The frames of a recording on disk, indexed like the array that `Recording.load` gives.

    `frames[rows]` reads any rows, in any order and shape. Only a list of where each chunk lies is
    kept; a chunk is read once per call, however many of its rows are asked for. No file stays open
    between calls, so an instance may be pickled, and shared by threads and forked processes. The
    files must not change meanwhile.

    Args:
        shards: files of the recording, in order.
        layouts: what each of them holds.

    Raises:
        DataError: a file cannot be read; indexing raises it too.
    """

    def __init__(self, shards: list[Path], layouts: list[Layout]) -> None:
        self.shape = (sum(layout.num_rows for layout in layouts), *layouts[0].frame_shape)
        self._shards = shards
        self._layouts = layouts
        self._pieces: list[Piece] = []
        for index, (shard, layout) in enumerate(zip(shards, layouts, strict=True)):
            with opened(shard) as file:
                self._pieces += _find_pieces(file, layout, index)
        lengths = np.array([piece.num_rows for piece in self._pieces])
        self._starts: Int64[np.ndarray, " pieces"] = np.cumsum(lengths) - lengths
        self._rows = np.arange(len(self))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, index: Index) -> UInt8[np.ndarray, "... H W C"]:
        """Read the frames of some rows, counted over the whole recording."""
        rows = np.asarray(self._rows[index])
        flat = rows.reshape(-1)
        frames = np.empty((flat.size, *self.shape[1:]), np.uint8)
        pieces = np.searchsorted(self._starts, flat, side="right") - 1
        order = np.argsort(pieces, kind="stable")
        cuts = np.flatnonzero(np.diff(pieces[order])) + 1
        for places in np.split(order, cuts) if flat.size else []:
            piece = pieces[places[0]]
            read = self._read(self._pieces[piece])
            frames[places] = read[flat[places] - self._starts[piece]]
        return frames.reshape(*rows.shape, *self.shape[1:])

    def _read(self, piece: Piece) -> UInt8[np.ndarray, "rows H W C"]:
        path, layout = self._shards[piece.shard], self._layouts[piece.shard]
        if piece.place is None:
            frames = np.empty((piece.num_rows, *self.shape[1:]), np.uint8)
            with opened(path) as file:
                read_frames(file[layout.frames_key], layout, path, piece.first, frames)
            return frames

        # Faster than through HDF5, and no file has to stay open. Nearly all of the time goes into
        # inflating, and two threads that share it are no faster.
        offset, size = piece.place
        num_bytes = FRAMES_PER_CHUNK * int(np.prod(self.shape[1:]))
        stream = IgzipDecompressor(DECOMP_ZLIB)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                # A byte more than there should be: the checksum after the last is read, and a
                # stream that never ends is not.
                content = stream.decompress(file.read(size), num_bytes + 1)
        except (OSError, IsalError) as error:  # type: ignore[misc]  # its stub is mistaken
            raise DataError(_damage_text(path, piece, str(error))) from error
        if len(content) != num_bytes or not stream.eof:
            text = f"they are no whole stream of {num_bytes} bytes"
            raise DataError(_damage_text(path, piece, text))
        return np.frombuffer(content, np.uint8).reshape(FRAMES_PER_CHUNK, *self.shape[1:])


def read_frames(
    dataset: h5py.Dataset,
    layout: Layout,
    path: Path,
    first: int,
    target: UInt8[np.ndarray, "T H W C"],
) -> None:
    """Fill `target` with the file's frames from row `first` on.

    Raises:
        DataError: a float lies outside of [0, 1].
    """
    if not layout.is_video:
        dataset.read_direct(target, np.s_[first : first + len(target)])
        return
    rows_at_once = 1024
    for start in range(0, len(target), rows_at_once):
        stop = min(start + rows_at_once, len(target))
        frames = dataset[first + start : first + stop]
        if frames.dtype != np.uint8:
            if not (np.isfinite(frames).all() and frames.min() >= 0 and frames.max() <= 1):
                raise DataError(
                    f"{path}: float {layout.frames_key} must lie in [0, 1], got "
                    f"{frames.min()} to {frames.max()} in rows from {first + start}. Divide them, "
                    "or store uint8"
                )
            frames = np.rint(frames * 255).astype(np.uint8)
        if layout.is_channels_first:
            frames = np.moveaxis(frames, 1, -1)
        target[start:stop] = frames


def _find_pieces(file: h5py.File, layout: Layout, shard: int) -> list[Piece]:
    """Return the pieces of one file, in order: its chunks, if they are as format version 1 says."""
    dataset = file[layout.frames_key]
    chunks: dict[int, h5py.h5d.StoreInfo] = {}
    if _is_chunked_as_written(file, dataset):
        # To ask for one chunk takes HDF5 as long as to go through all.
        dataset.id.chunk_iter(lambda chunk: chunks.update({chunk.chunk_offset[0]: chunk}))
    pieces = []
    for first in range(0, layout.num_rows, FRAMES_PER_CHUNK):
        # Nothing is stored of a chunk that was never written, and a mask tells of a chunk that was
        # stored without its compression.
        chunk = chunks.get(first)
        place = (chunk.byte_offset, chunk.size) if chunk and not chunk.filter_mask else None
        num_rows = min(FRAMES_PER_CHUNK, layout.num_rows - first)
        pieces.append(Piece(shard=shard, first=first, num_rows=num_rows, place=place))
    return pieces


def _is_chunked_as_written(file: h5py.File, dataset: h5py.Dataset) -> bool:
    """Whether chunks are 16 whole uint8 frames, channels last, compressed by gzip alone."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    return bool(
        dataset.dtype == np.uint8
        and dataset.chunks == (FRAMES_PER_CHUNK, *dataset.shape[1:])
        and dataset.shape[-1] == 3
        and filters == [h5py.h5z.FILTER_DEFLATE]
        and file.userblock_size == 0
    )


def _damage_text(path: Path, piece: Piece, problem: str) -> str:
    return (
        f"{path}: the frames of rows {piece.first} to {piece.first + piece.num_rows - 1} cannot be "
        f"read: {problem}. The file is damaged, or has changed since it was opened: check it with "
        "genie-gym data verify"
    )
