"""Writes checkpoints, in the background if the loop is not to wait, and removes old ones.

At any moment a loss of power leaves a folder from which the run can resume: a checkpoint gets its
name when it is whole and on the disk, and others are removed only after that.
"""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import shutil
import uuid
import warnings
from collections.abc import Mapping

import numpy as np

from trainers.checkpoints import tensors
from trainers.checkpoints.format import (
    MODEL_FILE,
    MODEL_PREFIX,
    PARTIAL,
    REPLACED,
    TRAINING_FILE,
    CheckpointWarning,
    Manifest,
    step_folder,
    step_folders,
    write_manifest,
)
from trainers.checkpoints.keep import Keep, good_scores
from trainers.errors import UserError, os_errors


def save(
    folder: str | os.PathLike,
    step: int,
    state: Mapping[str, np.ndarray],
    config: Mapping,
    score: float | None = None,
) -> pathlib.Path:
    """Writes one checkpoint; it is there whole when this returns, and not at all before.

    Args:
        folder: where the checkpoints of a run lie.
        step: steps taken so far.
        state: name → array, as `Engine.state` returns it: "model/…" are the weights.
        config: full configuration, to be written as JSON.
        score: validation score at this step, lower is better; None or NaN where there is none.

    Returns:
        The checkpoint's folder. One of the same step that was there is replaced. If it cannot be
        written, nothing of it is left, and the older ones are untouched.
    """
    folder = pathlib.Path(folder)
    beside = folder / _aside(PARTIAL + step_folder(step))
    do = "Make room there or choose another folder; the older checkpoints are untouched"
    try:
        with os_errors("to write a checkpoint", beside, do):
            _make_folder(folder)
            _remove_partial(folder)
            beside.mkdir()
            _write_files(beside, step, state, config, score)
            return _put_in_place(beside, folder / step_folder(step))
    finally:
        _remove_partial(folder)


def _write_files(
    beside: pathlib.Path, step: int, state: Mapping, config: Mapping, score: float | None
) -> None:
    of_files = {MODEL_FILE: {}, TRAINING_FILE: {}}
    for name, value in state.items():
        file = MODEL_FILE if name.startswith(MODEL_PREFIX) else TRAINING_FILE
        of_files[file][name.removeprefix(MODEL_PREFIX)] = value
    digests = {name: tensors.write(beside / name, arrays) for name, arrays in of_files.items()}
    write_manifest(beside, Manifest(step, dict(config), digests, _finite(score)))
    tensors.sync(beside)


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

    Example:
        with Writer("W/small_0/checkpoints", Keep(newest=2)) as writer:
            writer.save(1000, engine.state(), config, score=2.31)
    """

    def __init__(self, folder: str | os.PathLike, keep: Keep):
        self._folder = pathlib.Path(folder)
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
        self._pending = self._thread.submit(self._write, step, state, config, score)

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
        try:
            self.close()
        except UserError as failed:
            warnings.warn(str(failed), CheckpointWarning, stacklevel=2)

    def _write(self, step: int, state: Mapping, config: Mapping, score: float | None) -> None:
        save(self._folder, step, state, config, score)
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


def _remove_partial(folder: pathlib.Path) -> None:
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
        # A link to a folder that was moved elsewhere: what it leads to is not ours to remove.
        with contextlib.suppress(OSError):
            path.unlink()
