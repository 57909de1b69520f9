"""Folders that have the asked-for name only once they are whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genie_gym.errors import DataError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `out` if nothing goes wrong, else it vanishes.

    Raises:
        DataError: `out` is there and not an empty folder, or somebody else is writing it.
    """
    # What a link leads to is replaced, not the link.
    out = Path(os.path.realpath(out))
    is_empty = out.is_dir() and not any(out.iterdir())
    if os.path.lexists(out) and not is_empty:
        raise DataError(f"{out} is there already and not empty. Name another --out, or delete it")
    part = out.with_name(f".{out.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.mkdir()
    except FileExistsError as error:
        raise DataError(
            f"{part} is there already: {out.name} is being written, or was when the writer was "
            "killed. Wait for it, or delete that folder"
        ) from error
    try:
        yield part
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
