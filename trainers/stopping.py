"""Signals that ask a program to end: it ends where nothing is lost.

A machine that is about to be taken away sends SIGTERM, a user presses Ctrl-C (SIGINT) or closes the
terminal (SIGHUP), Slurm's --signal sends SIGUSR1 or SIGUSR2 before the time is over, and `limit`
has the system send SIGALRM. Inside `postponed`, which is where the training loop is, a first signal
is only remembered: each loop asks after every call of its engine, saves, and raises `Stopped`; so
it is with several loops in threads. Everywhere else (text being prepared, models being fused)
`Stopped` is raised at once in the main thread: all that is written there is written beside its
place and renamed.

One request often arrives as several signals, since make passes on what the whole group already got,
and a supervisor repeats what a terminal sends. So a second signal of another kind, or within five
seconds, is the same request. A later one ends the process at once, also while the interpreter waits
for a device: what is on the disk is whole at any moment.

Example:
    with handled():
        limit(3600)
        prepare()
        with postponed() as stop:
            while not stop.requested:
                train()
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from trainers.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SIGNALS += (signal.SIGALRM,)
# Signals of one kind that come within this time are one request.
TOGETHER_SECONDS = 5.0
# The system's timers take no more than about that: 30 years.
_LONGEST_SECONDS = 1e9
_AGAIN = "give the same command again to resume"
_NO_SIGNAL = b"\0"


class Stop:
    """A request to the process to end, or that there is none."""

    def __init__(self):
        self.name = ""  # such as "SIGTERM", once a signal has come
        self.postponed = 0  # threads inside `postponed`

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return bool(self.name)

    def stopped_at(self, step: int) -> Stopped:
        """Returns what a loop raises when it has saved its state of `step`."""
        by = _shown(self.name) if self.name else "a signal to another host"
        return Stopped(f"stopped at step {step} by {by}, saved; {_AGAIN}")

    def check(self) -> None:
        """Raises `Stopped` if a signal has come."""
        if self.requested:
            raise Stopped(f"stopped by {_shown(self.name)}; {_AGAIN}")


def _shown(name: str) -> str:
    return "the limit of --max_seconds" if name == "SIGALRM" else name


# Signals are the process's, and so is this; `handled` makes a new one.
_stop = Stop()
_counting = threading.Lock()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Context in which the signals stop the program as the module says.

    SIGHUP stays ignored where it is, as under nohup.

    Only the main thread can install handlers: elsewhere, and inside another `handled`, it does
    nothing. What came is forgotten when the next one begins, not at the end: threads that are
    still on their way to a loop must not begin it.
    """
    global _stop
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is _remember:
        yield
        return
    _stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    with _second_ends_at_once():
        try:
            for number in before:
                signal.signal(number, _remember)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)


def limit(seconds: float | None) -> None:
    """Requests the end of the program after a time; inside `handled`, in the main thread.

    Args:
        seconds: From now, of wall time; None for no limit.
    """
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST_SECONDS))


@contextlib.contextmanager
def postponed() -> Iterator[Stop]:
    """Context in which a first signal only sets the flag that it gives.

    Raises:
        Stopped: a signal had come before, or comes and nobody inside has acted on it.
    """
    stop = _stop
    with _counting:
        stop.postponed += 1
    try:
        stop.check()
        yield stop
    finally:
        with _counting:
            stop.postponed -= 1
    stop.check()


def _remember(number: int, frame) -> None:
    """The handler: Python runs it in the main thread, between two instructions."""
    del frame
    _stop.name = signal.Signals(number).name
    if not _stop.postponed:
        _stop.check()


@contextlib.contextmanager
def _second_ends_at_once() -> Iterator[None]:
    """A thread that counts signals: handlers have to wait while the interpreter is in a call."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_end_at_second, args=(reader,), daemon=True, name="signals")
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.set_blocking(writer, True)
        os.write(writer, _NO_SIGNAL)
        watch.join()
        os.close(writer)
        os.close(reader)


def _end_at_second(reader: int) -> None:
    first = {}
    while (byte := os.read(reader, 1)) != _NO_SIGNAL:
        number, now = byte[0], time.monotonic()
        if number in first and now - first[number] >= TOGETHER_SECONDS:
            os._exit(128 + number)
        if number in SIGNALS:
            first.setdefault(number, now)
