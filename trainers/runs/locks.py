"""One process for one stage: locks in a run's folder that a dead process cannot leave behind.

    W/.locks/STAGE.lock       held by the process that trains the stage, or is going to
    W/.locks/run.json.lock    held for moments, by whoever writes run.json or the report

A run takes the locks of all stages that it is about to train before it begins, so that a second
process with the same command is refused at once, and a first one never loses a later stage to
it. Stages that are finished are not written any more and need no lock. So `--stage=NAME` on
several machines that share W, and plans that share finished stages only, run side by side, and
`trainers.report` reads while they do.

The locks are `flock`'s: the system gives them back when a process ends, however it ends. The files
stay, with the name of their last holder. On NFS they hold between machines; where a file system
has no locks, a warning says so and nothing is refused.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterable, Iterator

from absl import logging

from trainers.errors import UserError

FOLDER = ".locks"
RUN_LOCK = "run.json.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def stages(workdir: str | os.PathLike, names: Iterable[str]) -> Iterator[None]:
    """Holds the locks of stages, all or none.

    Args:
        workdir: the run's folder.
        names: the stages.

    Raises:
        UserError: another process holds one; the message has its number and host.
    """
    with contextlib.ExitStack() as stack:
        for name in names:
            path = pathlib.Path(workdir) / FOLDER / f"{name}.lock"
            if not stack.enter_context(_held(path, wait=False)):
                raise UserError(
                    f"Expected stage {name!r} to be trained by one process at a time. Received: "
                    f"workdir={str(workdir)!r}, where {_holder(path)} does it. Wait for that "
                    "process or end it, or choose another --workdir."
                )
        yield


@contextlib.contextmanager
def run_files(workdir: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of what all stages of a run share; waits for it, as nobody keeps it long.

    Args:
        workdir: the run's folder.
    """
    with _held(pathlib.Path(workdir) / FOLDER / RUN_LOCK, wait=True):
        yield


@contextlib.contextmanager
def _held(path: pathlib.Path, wait: bool) -> Iterator[bool]:
    """Gives whether the lock was got."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not truncated: until the lock is ours, the content is somebody else's.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f"Expected to write in the run's folder. Received: {path} "
            f"({error.strerror or error}). Give write permission, or choose another --workdir."
        ) from error
    try:
        got = _lock(descriptor, path, wait)
        if got:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield got
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: pathlib.Path, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning("%s has no locks: start no second process there", path.parent)
    return True


def _holder(path: pathlib.Path) -> str:
    """The process that holds a lock, in words; it may just have begun to write its name."""
    with contextlib.suppress(OSError):
        if name := path.read_text(encoding="utf-8", errors="replace").strip():
            return name
    return "another process"
