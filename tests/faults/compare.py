"""Content of a finished run's folder, apart from what the clock says."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterable

from absl import logging
from tensorboard.backend.event_processing import event_accumulator

from trainers import checkpoints
from trainers.runs.workdir import LOCK_FOLDER, METRICS_FILE, TENSORBOARD_FOLDER

# What the clock decides, in JSON files and among TensorBoard's scalars.
_CLOCK = ("device_seconds", "tokens_per_second", "seconds", "evaluation_seconds")


def content(workdir: pathlib.Path) -> dict[str, bytes]:
    """Returns name → bytes of everything that two runs of one command must share, bit for bit.

    Tensors are compared as files; JSON without the clock; of TensorBoard's files, of which every
    start adds one, what TensorBoard reads from them. Locks and prepared tokens are left out.
    """
    contents = {}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir)
        is_lock = name.parts[0] == LOCK_FOLDER or name.suffix == ".lock"
        if not path.is_file() or is_lock or TENSORBOARD_FOLDER in name.parts:
            continue
        contents[str(name)] = _bytes(path)
    for folder in sorted(workdir.glob(f"*/{TENSORBOARD_FOLDER}")):
        contents[str(folder.relative_to(workdir))] = _scalars(folder)
    return contents


def lost(expected: dict[str, bytes], contents: dict[str, bytes]) -> dict[str, int]:
    """Returns the files that differ, are missing or should not be there, with their bytes.

    A run that was stopped saves a checkpoint there, and may keep it beside later ones.
    """
    there = {name for name in contents if name in expected or not _is_older(name, expected)}
    names = expected.keys() | there
    return {
        name: max(len(expected.get(name, b"")), len(contents.get(name, b"")), 1)
        for name in sorted(names)
        if expected.get(name) != contents.get(name)
    }


def _is_older(name: str, expected: Iterable[str]) -> bool:
    """Returns whether a file is of a checkpoint that has later ones beside it, as expected."""
    folder = pathlib.PurePath(name).parent
    home = folder.parent
    if home.name != checkpoints.CHECKPOINT_FOLDER:
        return False
    beside = {path.parent.name for path in map(pathlib.PurePath, expected) if home in path.parents}
    return folder.name < max(beside, default="")


def _bytes(path: pathlib.Path) -> bytes:
    # Of a process that was killed while it wrote, text may be cut.
    with contextlib.suppress(ValueError):
        return _parsed(path)
    return path.read_bytes()


def _parsed(path: pathlib.Path) -> bytes:
    if path.name == METRICS_FILE:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return json.dumps([_without_clock(line) for line in lines]).encode()
    if path.suffix == ".json":
        return json.dumps(_without_clock(json.loads(path.read_text()))).encode()
    if path.name == checkpoints.MARKER_FILE:
        # The hash of a manifest that says seconds: whether it is right, not what it is.
        manifest = path.with_name(checkpoints.MANIFEST_FILE).read_bytes()
        return str(path.read_text().strip() == hashlib.sha256(manifest).hexdigest()).encode()
    return path.read_bytes()


def _without_clock(value):
    if isinstance(value, dict):
        return {k: _without_clock(v) for k, v in value.items() if k not in _CLOCK}
    return [_without_clock(item) for item in value] if isinstance(value, list) else value


def _scalars(folder: pathlib.Path) -> bytes:
    # It says at length what it does with a run that was restarted.
    logging.set_verbosity(logging.ERROR)
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return json.dumps(
        {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in sorted(events.Tags()["scalars"])
            if tag.rpartition("/")[2] not in _CLOCK
        }
    ).encode()
