"""One writer at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genie_gym.errors import DataError

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock inside the block; it ends with the process, however that ends.

    The lock lies on the folder itself, so no file stays behind. Where the file system has no such
    locks, as on some network drives, the block runs without.

    Raises:
        DataError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DataError(
            f"another process is writing to {folder}. Wait for it, or name another folder"
        ) from error
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(descriptor)
