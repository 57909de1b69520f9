"""Files that no kill leaves half written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes `file` when the block ends without an error.

    The folder is made where it is not there. The path has the suffix of `file`, which tells some
    writers what to write.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.stem}.part{file.suffix}")
    try:
        yield part
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file, all of it or nothing; its folder is made where it is not there."""
    with replacing(file) as part:
        part.write_text(text, encoding="utf-8")
