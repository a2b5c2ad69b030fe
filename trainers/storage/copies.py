"""Copies of this process: what a bucket has of their checkpoints beside those that were brought.

Where a stage is read, its newest checkpoint alone is brought. `trainers.checkpoints`, which alone
can say whether it is good, asks here for an older one where it is not.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from trainers.storage.mirror import Mirror

_COPIES: dict[pathlib.Path, Mirror] = {}


@contextlib.contextmanager
def known(mirror: Mirror) -> Iterator[None]:
    """Context in which the functions below find a copy by the folders in it."""
    _COPIES[mirror.folder] = mirror
    try:
        yield
    finally:
        del _COPIES[mirror.folder]


def bring_older(folder: str | os.PathLike) -> bool:
    """Brings the newest checkpoint that a bucket has and its copy lacks.

    Args:
        folder: a folder of checkpoints.

    Returns:
        False where there is none, or the folder is in no copy.
    """
    mirror, home = _copy_of(folder)
    return mirror is not None and mirror.pull_older(home)


def unmarked(folder: str | os.PathLike) -> set[str]:
    """Returns the names of checkpoints that a bucket has without a marker: they are not brought."""
    mirror, home = _copy_of(folder)
    paths = [path.rpartition("/") for path in mirror.unmarked] if mirror else ()
    return {name for beside, _, name in paths if beside == home}


def _copy_of(folder: str | os.PathLike) -> tuple[Mirror | None, str]:
    """The copy that a folder lies in, and the folder's name there."""
    folder = pathlib.Path(folder).absolute()
    for home, mirror in _COPIES.items():
        if folder.is_relative_to(home):
            name = folder.relative_to(home).as_posix()
            return mirror, "" if name == "." else name
    return None, ""
