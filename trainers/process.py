"""Requests of the process to the C library: to keep freed memory, and to say a last word."""

import contextlib
import ctypes
import os
import platform
import signal
import sys

from trainers.errors import STOPPED, USER_ERROR, UserError

# Of mallopt, in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Of sigaction, on Linux: flags, and where siginfo_t has the address on machines of 64 bits.
_SA_SIGINFO, _SA_NODEFER, _ADDRESS = 0x4, 0x40000000, 16
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """`struct sigaction` of glibc."""

    _fields_ = (
        ("handler", _HANDLER),
        ("mask", ctypes.c_byte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next tensor, in place of asking the system again.

    A training step on processors allocates the same large tensors every time, and each would come
    as pages that the system has to clear first. The process keeps the most that it ever used.
    Other C libraries stay as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - other libraries' mallopt has other numbers
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def end_at_bus_error() -> None:
    """Has a mapped file that loses its end while it is read end the process with one line.

    Checkpoints and tokens are read through the memory that they are mapped to. Where another
    process cuts such a file, or its disk fails, the system sends SIGBUS and the instruction cannot
    go on, so that no exception can be raised. Python's own handlers run later, which is too late:
    the C library is given one. On other systems than Linux with glibc nothing is changed.
    """
    _handle(signal.SIGBUS, _on_bus_error)


def end_at_abort(line: str) -> None:
    """Has abort() end the process with a line and the exit code that says: give it again.

    JAX ends a process so, with a trace of its own, when it can no longer reach the other hosts of
    a run; no exception is raised there either.

    Args:
        line: what is said; it takes the place of that of an earlier call.
    """
    global _abort_line
    _abort_line = line
    _handle(signal.SIGABRT, _on_abort)


_abort_line = ""
_last_output: int | None = None  # descriptor of the errors' file, once nobody else has it


def end(code: int, text: str = "") -> None:
    """Ends the process at once; what other threads print from now on is not shown.

    Args:
        code: the exit code.
        text: printed last, as an error.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        _say_last(text)
    finally:
        os._exit(code)


def _say_last(text: str) -> None:
    """Writes an error behind which nothing comes: libraries' threads still log to the same file."""
    global _last_output
    if _last_output is None:
        _last_output = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.write(_last_output, text.encode())


def _handle(number: int, handler) -> None:
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" and sys.maxsize > 1 << 32:
        action = _Action(handler, flags=_SA_SIGINFO | _SA_NODEFER)
        ctypes.CDLL(None).sigaction(number, ctypes.byref(action), None)


@_HANDLER
def _on_abort(number, info, context):
    del number, info, context
    try:
        _say_last(f"\n{_abort_line}\n")
    finally:
        os._exit(STOPPED)


@_HANDLER
def _on_bus_error(number, info, context):
    del number, context
    try:
        address = ctypes.c_uint64.from_address(info + _ADDRESS).value
        error = UserError(
            "files that stay as they are while they are read",
            f"{_mapped_file(address)}, which was cut, or whose disk cannot be read",
            "Restore it and give the same command again",
        )
        os.write(2, f"\nerror: {error}\n".encode())
    finally:
        os._exit(USER_ERROR)


def _mapped_file(address: int) -> str:
    """The file that is mapped to an address."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(text, 16) for text in line.split(" ", 1)[0].split("-"))
            path = line.rstrip("\n").split(maxsplit=5)[5:]
            if first <= address < last and path:
                return path[0]
    return "a mapped file"
