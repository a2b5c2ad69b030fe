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
import os
import pathlib
from collections.abc import Iterable, Iterator

from trainers.errors import UserError
from trainers.files import locked
from trainers.runs.workdir import LOCK_FOLDER, RUN_FILE

RUN_LOCK = f"{RUN_FILE}.lock"


@contextlib.contextmanager
def stages(workdir: str | os.PathLike, names: Iterable[str]) -> Iterator[None]:
    """Holds the locks of stages, all or none; a `UserError` names the process that holds one."""
    with contextlib.ExitStack() as stack:
        for name in names:
            path = pathlib.Path(workdir) / LOCK_FOLDER / f"{name}.lock"
            if holder := stack.enter_context(locked(path, wait=False)):
                raise UserError(
                    f"stage {name!r} to be trained by one process at a time",
                    f"workdir={str(workdir)!r}, where {holder} does it",
                    "Wait for that process or end it, or choose another --workdir",
                )
        yield


def run_files(workdir: str | os.PathLike) -> contextlib.AbstractContextManager:
    """Holds the lock of what all stages of a run share; waits for it, as nobody keeps it long."""
    return locked(pathlib.Path(workdir) / LOCK_FOLDER / RUN_LOCK)
