"""Ctrl-C while recording: the first one asks, the second one stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C inside the block into a set flag; a second one raises as ever.

    The flag is never set outside the main thread, which alone receives signals, and where Ctrl-C is
    ignored, as in a shell's background job.
    """
    is_interrupted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if is_interrupted.is_set():
            signal.default_int_handler(number, frame)
        is_interrupted.set()

    old_handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or old_handler in (signal.SIG_IGN, None):
        yield is_interrupted
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield is_interrupted
    finally:
        signal.signal(signal.SIGINT, old_handler)


@contextmanager
def blocked_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back inside the block; processes that are started there never receive it."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
