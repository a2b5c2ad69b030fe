"""Writes checkpoints, in the background if the loop is not to wait, and removes old ones.

Where each host of a run saves its own part, all write into one folder; the first one waits for what
the others say that they wrote, and gives the checkpoint its name.

At any moment a loss of power leaves a folder from which the run can resume: a checkpoint gets its
name when it is whole and on the disk, and others are removed only after that.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shutil
import threading
import uuid
import warnings
from collections.abc import Mapping

import numpy as np

from trainers.checkpoints import tensors
from trainers.checkpoints.format import (
    MODEL_PREFIX,
    PARTIAL,
    REPLACED,
    CheckpointWarning,
    Manifest,
    file_names,
    step_folder,
    step_folders,
    write_manifest,
)
from trainers.checkpoints.keep import Keep, good_scores
from trainers.errors import UserError, os_errors
from trainers.files import read_json, write_json

# Between two looks for what the other hosts wrote.
_POLL_SECONDS = 0.1
# For the other hosts' parts, when this one is about to end with an error.
GRACE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Part:
    """The part that a process has in the checkpoints of a run; by default all of them."""

    host: int = 0
    num_hosts: int = 1
    # Text that all hosts have since they last restored the run, and no host had before: what a
    # killed run has left is not taken for a part.
    token: str = ""
    # Set where the others' parts will hardly come: this host waits no longer.
    is_alone: threading.Event = dataclasses.field(default_factory=threading.Event)


_ALL = Part()


def save(
    folder: str | os.PathLike,
    step: int,
    state: Mapping[str, np.ndarray],
    config: Mapping,
    score: float | None = None,
    part: Part = _ALL,
) -> pathlib.Path:
    """Writes one checkpoint; it is there whole when this returns, and not at all before.

    Args:
        folder: where the checkpoints of a run lie.
        step: steps taken so far.
        state: name → array, as `Engine.state` returns it: "model/…" are the weights.
        config: full configuration, to be written as JSON.
        score: validation score at this step, lower is better; None or NaN where there is none.
        part: on several hosts what of the state this one has, as `Engine.shards` returns it. The
            first host returns when the checkpoint is there, the others when their part is.

    Returns:
        The checkpoint's folder. One of the same step that was there is replaced. If it cannot be
        written, nothing of it is left, and the older ones are untouched.
    """
    folder = pathlib.Path(folder)
    name = PARTIAL + step_folder(step)
    beside = folder / (f"{name}_{part.token}" if part.token else _aside(name))
    do = "Make room there or choose another folder; the older checkpoints are untouched"
    try:
        with os_errors("to write a checkpoint", beside, do):
            _make_folder(folder)
            if not part.host:
                _remove_partial(folder, but=part.token)
            beside.mkdir(exist_ok=bool(part.token))
            digests = _write_files(beside, state, part)
            if part.host:
                tensors.sync(beside)
                write_json(beside / _receipt(part.host), digests)
                return folder / step_folder(step)
            for host in range(1, part.num_hosts):
                digests |= _wait_for(beside / _receipt(host), part)
            write_manifest(beside, Manifest(step, dict(config), digests, _finite(score)))
            tensors.sync(beside)
            return _put_in_place(beside, folder / step_folder(step))
    finally:
        if not part.host:
            _remove_partial(folder)


def _write_files(beside: pathlib.Path, state: Mapping, part: Part) -> dict[str, tensors.Digest]:
    model_file, training_file = file_names(part.host, part.num_hosts)
    of_files = {model_file: {}, training_file: {}}
    for name, value in state.items():
        file = model_file if name.startswith(MODEL_PREFIX) else training_file
        of_files[file][name.removeprefix(MODEL_PREFIX)] = value
    return {name: tensors.write(beside / name, arrays) for name, arrays in of_files.items()}


def _receipt(host: int) -> str:
    """Name of the file in which a host says what it wrote; it goes when it has been read."""
    return f"host-{host:05d}.json"


def _wait_for(receipt: pathlib.Path, part: Part) -> dict[str, tensors.Digest]:
    """Waits until another host has written its files, and returns their digests."""
    while receipt.name not in os.listdir(receipt.parent):
        if part.is_alone.wait(_POLL_SECONDS):
            raise UserError(
                "every host to write its part of a checkpoint",
                f"{receipt.parent} without {receipt.name}",
                "Give the same command again on all hosts; the older checkpoints are untouched",
            )
    digests = {name: tensors.Digest(*digest) for name, digest in read_json(receipt).items()}
    receipt.unlink()
    return digests


def _put_in_place(beside: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Renames a whole checkpoint to its name; one that has the name is readable until then."""
    if os.path.lexists(target):
        os.rename(target, target.with_name(_aside(target.name + REPLACED)))
    os.rename(beside, target)
    tensors.sync(target.parent)
    for _, path in step_folders(target.parent):
        if path.name.startswith(target.name + REPLACED):
            _remove(path)
    return target


class Writer:
    """Writes a run's checkpoints in one background thread, and removes those that are too old.

    A write that failed is raised as a `UserError`, once, where the loop next waits: in `save`,
    `tidy`, `wait` or `close`. As a context manager it closes at the end; an exception that is on
    its way goes first, and a write that failed beside it becomes a `CheckpointWarning`.

    Args:
        folder: where the checkpoints of the run lie.
        keep: which of them stay.
        part: what this host has in each; the first one removes old ones. It may be replaced.

    Example:
        with Writer("W/small_0/checkpoints", Keep(newest=2)) as writer:
            writer.save(1000, engine.state(), config, score=2.31)
    """

    def __init__(self, folder: str | os.PathLike, keep: Keep, part: Part = _ALL):
        self._folder = pathlib.Path(folder)
        self.part = part
        self._keep = keep
        # Of the good checkpoints: their manifests are read once.
        self._scores = good_scores(self._folder)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: concurrent.futures.Future | None = None

    def save(
        self,
        step: int,
        state: Mapping[str, np.ndarray],
        config: Mapping,
        score: float | None = None,
    ) -> None:
        """Begins to write a checkpoint, as `save` does, when the one before is on the disk.

        The arrays are not copied: nobody may change them any more. The configuration may change
        after this call. Call `wait` before the state is copied from the devices, if the host has
        no room for the states of two checkpoints.
        """
        # As JSON now: the loop continues to extend its curve.
        config = json.loads(json.dumps(config))
        self.wait()
        self._pending = self._thread.submit(self._write, step, state, config, score, self.part)

    def tidy(self, step: int) -> None:
        """Removes, in the background, what the process that wrote `step` had no time to remove."""
        self.wait()
        self._pending = self._thread.submit(self._remove_old, step)

    def wait(self) -> None:
        """Returns when everything that was handed over is on the disk."""
        if self._pending is None:
            return
        # First waited for, then forgotten: a signal that ends the waiting does not lose it.
        concurrent.futures.wait([self._pending])
        pending, self._pending = self._pending, None
        pending.result()

    def close(self) -> None:
        """Waits, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            self.close()
            return
        # What ends this host may be that another one has ended, whose part never comes.
        alone = threading.Timer(GRACE_SECONDS, self.part.is_alone.set)
        alone.start()
        try:
            self.close()
        except UserError as failed:
            warnings.warn(str(failed), CheckpointWarning, stacklevel=2)
        finally:
            alone.cancel()

    def _write(self, step: int, state: Mapping, config: Mapping, score, part: Part) -> None:
        save(self._folder, step, state, config, score, part)
        if part.host:
            return
        self._scores[step] = _finite(score)
        self._remove_old(step)

    def _remove_old(self, step: int) -> None:
        # A later one is of a past that was damaged or taken back, and does not count.
        reached = {old: score for old, score in self._scores.items() if old <= step}
        goes = reached.keys() - self._keep.of(reached)
        for old, path in step_folders(self._folder):
            if old in goes:
                _remove(path)
        for old in goes:
            del self._scores[old]
        _remove_partial(self._folder)


def _finite(score: float | None) -> float | None:
    return float(score) if score is not None and math.isfinite(score) else None


# ---- folders ----


def _make_folder(folder: pathlib.Path) -> None:
    """Makes a folder and those above it, each on the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        tensors.sync(folder.parent)


def _aside(name: str) -> str:
    return (name if name.endswith("_") else name + "_") + uuid.uuid4().hex[:8]


def _remove(path: pathlib.Path) -> None:
    """Removes a checkpoint. It loses its name first: half of one would look like a damaged one."""
    do = "Remove it yourself; the newer ones are whole"
    with os_errors("to remove an old checkpoint", path, do):
        os.rename(path, path.with_name(_aside(PARTIAL + "removed")))
    _remove_partial(path.parent)


def _remove_partial(folder: pathlib.Path, but: str = "") -> None:
    """Removes what was not finished, but for that which other hosts have begun with a token."""
    for path in folder.glob(f"{PARTIAL}*"):
        if but and path.name.endswith(but):
            continue
        shutil.rmtree(path, ignore_errors=True)
        # A link to a folder that was moved elsewhere: what it leads to is not ours to remove.
        with contextlib.suppress(OSError):
            path.unlink()
