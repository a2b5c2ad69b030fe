"""One folder for all hosts of a run: they meet in it, or the run is refused."""

import contextlib
import json
import os
import pathlib
import uuid

from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.engines.base import Engine
from trainers.errors import UserError
from trainers.runs import locks
from trainers.runs.workdir import LOCK_FOLDER


def check_folder(engine: Engine, workdir: str | os.PathLike) -> None:
    """Raises a `UserError`, on every host, unless all of them see one folder.

    The chief writes a file there for a moment; it holds the locks of the run.
    """
    if engine.num_hosts == 1:
        return
    # Of the chief alone, and a name that no host can have looked for before.
    name = "".join(engine.gather(f"hosts.{uuid.uuid4().hex}" if engine.is_chief else ""))
    folder = pathlib.Path(workdir) / LOCK_FOLDER
    with locks.run_files(workdir) if engine.is_chief else contextlib.nullcontext():
        if engine.is_chief:
            # Nobody else's: of chiefs that were killed before they removed it.
            for left in folder.glob("hosts.*"):
                left.unlink(missing_ok=True)
            (folder / name).touch()
        engine.agree(False)
        # Network file systems ask the server for a folder that is listed, not for a name.
        is_seen = folder.is_dir() and name in os.listdir(folder)
        answers = engine.gather(json.dumps([is_seen, _described(pathlib.Path(workdir))]))
        if engine.is_chief:
            (folder / name).unlink()
    answers = [json.loads(answer) for answer in answers]
    if not all(is_seen for is_seen, _ in answers):
        seen = (f"on host {host} {text}" for host, (_, text) in enumerate(answers))
        do = "Put it on a file system that they share"
        raise UserError("one --workdir that all hosts see", "; ".join(seen), do)


def _described(workdir: pathlib.Path) -> str:
    """A folder, and how far its stages are, in words."""
    saved = {path: checkpoints.steps(path) for path in workdir.glob(f"*/{CHECKPOINT_FOLDER}")}
    newest = [f"{path.parent.name} at step {steps[-1]}" for path, steps in saved.items() if steps]
    return f"{str(workdir)!r} with {', '.join(sorted(newest)) or 'no checkpoint'}"
