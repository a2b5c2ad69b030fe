"""Reads checkpoints: the steps that a folder has, and the newest good one.

How they lie on the disk: `trainers.checkpoints.format`; how they are written:
`trainers.checkpoints.writer`; which stay: `trainers.checkpoints.keep`. What got damaged later is
found by its hashes, named in a warning, and passed over; in object storage too. Nothing here knows
a backend.

A checkpoint may come from anybody: nothing is unpickled, no path is taken from a file, links and
pipes are refused, and no array is larger than the file that holds it.
"""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trainers import storage
from trainers.checkpoints import parts, tensors
from trainers.checkpoints.format import (
    MARKER_FILE,
    MODEL_PREFIX,
    TRAINING_FILE,
    CheckpointWarning,
    by_step,
    damaged,
    read_manifest,
    step_folders,
)
from trainers.engines.base import Engine
from trainers.engines.state import check_state
from trainers.errors import UserError


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found whole: its folder, and what its manifest says."""

    path: pathlib.Path
    step: int
    config: dict
    weights: Mapping[str, np.ndarray]  # by path inside the model, read when asked for
    training: Mapping[str, np.ndarray]  # slots, iterations and seeds by name, likewise
    score: float | None = None

    def state(self) -> dict[str, np.ndarray]:
        """Returns weights and training state under the names that `save` was given.

        They are views of the memory-mapped files: slicing one reads only what the slice covers.
        """
        weights = {MODEL_PREFIX + name: value for name, value in self.weights.items()}
        return weights | self.training

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of `state`; reads no tensor."""
        return {name: value.shape for name, value in self.state().items()}


def load(path: str | os.PathLike, share: tuple[int, int] = (0, 1)) -> Checkpoint:
    """Opens one checkpoint after checking every hash; a `UserError` names what is damaged.

    Args:
        path: its folder.
        share: (i, n) on host i of n that open it together: each checks every nth hash, and of the
            other files the sizes, so that no host reads what it does not need.

    Example:
        checkpoint = load("W/small_0/checkpoints/step_00003000")
        kernel = checkpoint.weights["encoder/block_0/self_attention/query/kernel"]
    """
    path = pathlib.Path(path)
    manifest = read_manifest(path)
    host, num_hosts = share
    files = [
        tensors.read(path / name, digest, is_hashed=number % num_hosts == host)
        for number, (name, digest) in enumerate(manifest.files.items())
    ]
    weights, training = files if len(files) == 2 else _joined(path, files)
    if any(name.startswith(MODEL_PREFIX) for name in training):
        raise damaged(path, f"weights in {TRAINING_FILE}")
    return Checkpoint(path, manifest.step, manifest.config, weights, training, manifest.score)


def _joined(path: pathlib.Path, files: Sequence[Mapping]) -> list[dict[str, np.ndarray]]:
    """Weights and training state in the files of several hosts."""
    try:
        return [parts.joined(files[first::2]) for first in (0, 1)]
    except ValueError as error:
        raise damaged(path, str(error)) from None


def steps(folder: str | os.PathLike) -> list[int]:
    """Returns the steps of the committed checkpoints in `folder`, ascending; reads no tensor."""
    return sorted(
        {step for step, path in step_folders(folder) if os.path.lexists(path / MARKER_FILE)}
    )


def latest(
    folder: str | os.PathLike,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    hosts: Engine | None = None,
) -> Checkpoint | None:
    """Opens the newest good checkpoint of a folder.

    Each newer one that cannot be used is named in a `CheckpointWarning`. Whatever is called like a
    checkpoint was one, an empty folder too: saving leaves nothing else under such a name. In object
    storage one without a marker may be half sent: alone it is none.

    Args:
        folder: where the checkpoints of a run lie; of a copy of object storage with the newest one,
            older ones are brought when they are needed.
        shapes: name → shape of the state that is to be set, under the names that `save` was given;
            a checkpoint of another model is passed over like a damaged one. None takes any.
        hosts: an engine, all of whose hosts call this; they share the checking, and take the same
            checkpoint. None where this process is alone.

    Returns:
        None where there is no checkpoint at all. Where there are some and none is good, a
        `UserError` is raised: training must not silently begin anew.
    """
    faults, absent = [], _unmarked_there(folder)
    share = (hosts.host, hosts.num_hosts) if hosts else (0, 1)
    for path in _newest_first(folder, absent):
        fault = ""
        try:
            checkpoint = load(path, share)
            if shapes is not None:
                check_state(shapes, checkpoint.shapes(), str(path))
        except UserError as error:
            fault = str(error)
        fault = next(filter(None, hosts.gather(fault) if hosts else [fault]), "")
        if not fault:
            return checkpoint
        if path not in absent and not os.path.lexists(path):
            # Removed by the run that writes here: a newer one has come meanwhile.
            return latest(folder, shapes, hosts)
        warnings.warn(f"{fault} It is passed over.", CheckpointWarning, stacklevel=2)
        faults.append((path, fault))
    if any(path not in absent for path, _ in faults):
        path, fault = faults[0]
        raise UserError(
            f"a good checkpoint in {folder}",
            f"{len(faults)} damaged ones, the newest {path.name} ({fault.rstrip('.')})",
            "Restore one, or move the folder away to start anew",
        )
    return None


def _unmarked_there(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the folders for checkpoints that object storage has without a marker."""
    paths = [pathlib.Path(folder, name) for name in storage.unmarked(folder)]
    return [path for path in paths if not os.path.lexists(path)]


def _newest_first(
    folder: str | os.PathLike, absent: Sequence[pathlib.Path]
) -> Iterator[pathlib.Path]:
    """The folders of checkpoints and the absent ones; brings older ones when they are asked for."""
    left, done = by_step(absent), set()
    while True:
        for item in reversed(step_folders(folder)):
            if item in done:
                continue
            done.add(item)
            while left and left[-1] > item:
                yield left.pop()[1]
            yield item[1]
        if not storage.bring_older(folder):
            break
    yield from (path for _, path in reversed(left))
