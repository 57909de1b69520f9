"""Ctrl-C while recording: the first one asks, the second one stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C inside the block into a set flag; a second one raises as ever.

    Outside the main thread, which alone receives signals, the flag is never set.
    """
    is_interrupted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if is_interrupted.is_set():
            signal.default_int_handler(number, frame)
        is_interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield is_interrupted
        return
    old_handler = signal.signal(signal.SIGINT, handle)
    try:
        yield is_interrupted
    finally:
        signal.signal(signal.SIGINT, old_handler)
