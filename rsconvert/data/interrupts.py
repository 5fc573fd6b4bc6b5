"""Requests to stop, Ctrl-C, SIGTERM and SIGHUP: kept from new processes, postponed to where the work can stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["STOPPING", "Interrupts", "blocked_interrupts", "postponed_interrupts"]

STOPPING = {signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])}


@contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Block requests to stop in this thread; processes that it starts meanwhile never receive them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Interrupts:
    """What came while interrupts were postponed; a call raises KeyboardInterrupt if one did."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self) -> None:
        if self.came:
            raise KeyboardInterrupt

    def note(self, *_: object) -> None:
        """Take a signal."""
        self.came = True


@contextmanager
def postponed_interrupts() -> Iterator[Interrupts]:
    """Yield a function that raises KeyboardInterrupt if a request to stop came; meanwhile it is raised nowhere else.

    Raised anywhere, it could be lost in a destructor, or be taken for the death of a worker. It is also raised at the
    end if no call did. Requests are Ctrl-C, SIGTERM, which schedulers send when the time is over, and SIGHUP, which a
    terminal sends when it is closed. Outside the main thread, and for a
    handler that is not Python's own, nothing is changed.
    """
    own = (
        signal.SIG_DFL,
        signal.default_int_handler,
    )  # the second also where the command line turned the first into it
    in_main_thread = threading.current_thread() is threading.main_thread()
    caught = {number: h for number in STOPPING if in_main_thread and (h := signal.getsignal(number)) in own}
    interrupts = Interrupts()
    for number in caught:
        signal.signal(number, interrupts.note)
    try:
        yield interrupts
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)
    interrupts()
