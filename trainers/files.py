"""Writes files in one piece, locks them, and reads files that anybody may have made."""

import contextlib
import errno
import functools
import json
import os
import pathlib
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, TextIO

import filelock
from absl import logging

from trainers.errors import UserError, os_errors

# 524 is ENOTSUPP, which Linux keeps to itself, and some network file systems let through.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, 524)
_MAX_DIGITS = 300
_MAKE_ROOM = "Make room or give write permission there, and give the same command again"


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading; it neither waits for a pipe nor follows a link.

    Raises:
        OSError: there is no such file, or it is something else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("no regular file")
    return open(descriptor, "rb")


def read_file(path: str | os.PathLike, limit: int) -> bytes:
    """Reads a regular file of at most `limit` bytes; an `OSError` on any other."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(f"more than {limit} bytes")
        # Not of the limit: a read makes room for all that it is asked for.
        return file.read(size)


def parse_json(text: bytes, constant: Callable[[str], float] | None = None) -> object:
    """Parses JSON in which a name stands once and nothing is nested without end.

    Args:
        text: UTF-8; a `ValueError` says what is wrong with it.
        constant: makes a number of NaN, Infinity and -Infinity, which are refused without it.
    """
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=constant or _refuse,
            parse_int=_whole,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"with JSON that cannot be read ({error!s:.80})") from None


def _unique(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name twice")
    return values


def _whole(text: str) -> int:
    """A whole number that is also one of floating point, as whoever computes with it takes it."""
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} for a number")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[TextIO]:
    """Opens a UTF-8 file that takes the place of `path` in one piece when the block ends.

    It is written beside `path`, always under the same name, so that the next process overwrites
    what a killed one left: one process at a time. An error in the block leaves `path` as it was.

    Raises:
        UserError: it cannot be written; no room, for instance.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.partial")
    try:
        with os_errors("to write a file", path, _MAKE_ROOM):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "w", encoding="utf-8", newline="\n") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


class AppendedFile:
    """File that grows by pieces, each handed to the system at once.

    What the system does not take stays in no buffer, so that closing the file cannot fail.

    Args:
        path: the file.
        new: refuse one that is there.

    Raises:
        UserError: it cannot be opened or written; no room, for instance.
    """

    def __init__(self, path: str | os.PathLike, new: bool = False):
        self._path = path
        with self._errors():
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "xb" if new else "ab", buffering=0)  # noqa: SIM115 closed by close()

    def write(self, content: bytes) -> None:
        """Appends all of it."""
        content = memoryview(content)
        with self._errors():
            while content:
                content = content[self._file.write(content) :]

    def flush(self) -> None:
        """Does nothing: nothing waits."""

    def sync(self) -> None:
        """Makes what was written outlive a loss of power."""
        with self._errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        with self._errors():
            self._file.close()

    def _errors(self) -> contextlib.AbstractContextManager:
        return os_errors("to write a log", self._path, _MAKE_ROOM)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Makes a folder that takes the place of `path` in one piece when the block ends.

    What killed processes left beside `path` is removed first: one process at a time. A folder that
    has the name keeps it until then, and if the block fails.
    """
    path = pathlib.Path(path)
    beside, old = (path.with_name(f".{path.name}.{end}") for end in ("partial", "replaced"))
    if old.exists() and not path.exists():
        old.rename(path)
    try:
        for left_over in (beside, old):
            shutil.rmtree(left_over, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        try:
            beside.rename(path)
        except OSError:
            old.rename(path)
            raise
    finally:
        for left_over in (beside, old):
            shutil.rmtree(left_over, ignore_errors=True)


def write_json(path: str | os.PathLike, content: Mapping) -> None:
    """Writes a JSON file in one piece."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 file in one piece."""
    with replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[str]:
    """Holds a lock that the system takes back when the process ends, however it ends.

    The file stays, with the name of its last holder. Where the file system has no locks, a
    warning says so and nothing is refused.

    Args:
        path: the lock's file.
        wait: whether to wait for another process that holds it.

    Yields:
        An empty text where the lock is held, or who holds it, in words.
    """
    path = pathlib.Path(path)
    # A soft lock, which a killed process leaves behind, is no substitute.
    lock = filelock.FileLock(path, fallback_to_soft=False)
    try:
        with os_errors("to write a lock", path, "Give write permission, or choose another folder"):
            path.parent.mkdir(parents=True, exist_ok=True)
            holder = _acquire(lock, path, wait)
            if not holder:
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        yield holder
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, path: pathlib.Path, wait: bool) -> str:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        holder = _holder(path)
        if not wait:
            return holder
        logging.info("waiting for %s, which holds %s", holder, path)
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn_of_no_locks(path.parent)
    return ""


@functools.cache
def _warn_of_no_locks(folder: pathlib.Path) -> None:
    """Warns once, however many locks lie in a folder."""
    logging.warning("%s has no locks: start no second process there", folder)


def _holder(path: pathlib.Path) -> str:
    """The process that holds a lock, in words; it may just have begun to write its name."""
    with contextlib.suppress(OSError):
        if name := path.read_text(encoding="utf-8", errors="replace").strip():
            return name
    return "another process"


def read_json(path: pathlib.Path) -> dict:
    """Reads a JSON object; a `UserError` where the file holds none or cannot be read."""
    try:
        # A curve may hold NaN.
        content = parse_json(pathlib.Path(path).read_bytes(), constant=float)
        if isinstance(content, dict):
            return content
        fault = f"a {type(content).__name__}"
    except (OSError, ValueError) as error:
        fault = str(error)
    do = "Restore the file, or start in a new folder"
    raise UserError("a readable JSON object", f"file={str(path)!r} ({fault})", do)


def differences(before: Mapping, now: Mapping) -> list[str]:
    """Names every field in which two settings differ, with both values."""
    fields = list(dict.fromkeys((*before, *now)))
    missing = "(not set)"
    return [
        f"{field}={now.get(field, missing)!r}, there it is {before.get(field, missing)!r}"
        for field in fields
        if now.get(field, missing) != before.get(field, missing)
    ]
