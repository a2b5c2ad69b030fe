"""Checkpoints: what a run saves, and which one it goes on from.

    checkpoints/step_00001000/
      model.safetensors      weights, by their path inside the model: all that a fusion reads
      training.safetensors   optimizer slots, iterations, seeds
      manifest.json          step, configuration, versions, SHA-256 and size of both files
      COMMITTED              SHA-256 of manifest.json; written last

The folder is written under another name and renamed, so that `step_…` is there whole or not at
all. What got damaged afterwards is found by its hashes, named in a warning, and passed over.
Nothing here knows a backend, and nothing is unpickled.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping

import numpy as np

from trainers import tensor_files
from trainers.engines.base import check_state, state_variables
from trainers.errors import UserError
from trainers.versions import installed_versions

MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"
MANIFEST_FILE = "manifest.json"
MARKER_FILE = "COMMITTED"
# Names in a run's state that begin so are weights of the model.
MODEL_PREFIX = "model/"

_FORMAT = 1
_STEP_FOLDER = re.compile(r"step_(\d{8,})")
_TEMPORARY = ".partial_"


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be used; an older one is taken."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found whole.

    Attributes:
        path: its folder.
        step: steps that had been taken.
        config: what `save` was given.
        weights: path inside the model → array, read from the file when asked for.
        training: name → array for slots, iterations and seeds, likewise.
    """

    path: pathlib.Path
    step: int
    config: dict
    weights: tensor_files.TensorFile
    training: tensor_files.TensorFile

    def state(self) -> dict[str, np.ndarray]:
        """Returns weights and training state under the names that `save` was given."""
        return {MODEL_PREFIX + name: value for name, value in self.weights.items()} | dict(
            self.training
        )


def step_folder(step: int) -> str:
    """Name of the folder of a step: step_00001000."""
    return f"step_{step:08d}"


def save(
    folder: str | os.PathLike,
    step: int,
    state: Mapping[str, np.ndarray],
    config: Mapping,
) -> pathlib.Path:
    """Writes one checkpoint; it is there whole when this returns, and not at all before.

    Args:
        folder: where the checkpoints of a run lie.
        step: steps taken so far.
        state: name → array, as `Engine.state` returns it: "model/…" are the weights.
        config: full configuration, to be written as JSON.

    Returns:
        The checkpoint's folder. One of the same step that was there is replaced.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_partial(folder)
    beside = folder / f"{_TEMPORARY}{step_folder(step)}_{uuid.uuid4().hex[:8]}"
    beside.mkdir()
    try:
        _write_files(beside, step, state, config)
        target = folder / step_folder(step)
        if target.exists():
            os.rename(target, folder / f"{_TEMPORARY}replaced_{uuid.uuid4().hex[:8]}")
        os.rename(beside, target)
        _sync(folder)
    except OSError as error:
        raise UserError(
            f"Expected to write a checkpoint. Received: {beside} ({error.strerror or error}). "
            "Make room there or choose another folder; the older checkpoints are untouched."
        ) from error
    finally:
        _remove_partial(folder)
    return target


def _write_files(beside: pathlib.Path, step: int, state: Mapping, config: Mapping) -> None:
    weights = {
        name.removeprefix(MODEL_PREFIX): value
        for name, value in state.items()
        if name.startswith(MODEL_PREFIX)
    }
    training = {name: v for name, v in state.items() if not name.startswith(MODEL_PREFIX)}
    tensor_files.write(beside / MODEL_FILE, weights)
    tensor_files.write(beside / TRAINING_FILE, training)
    files = {}
    for name in (MODEL_FILE, TRAINING_FILE):
        path = beside / name
        files[name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
        _sync(path)
    manifest = {
        "format": _FORMAT,
        "step": step,
        "files": files,
        "versions": installed_versions(),
        "config": config,
    }
    _write_text(beside / MANIFEST_FILE, json.dumps(manifest, indent=1))
    _write_text(beside / MARKER_FILE, _sha256(beside / MANIFEST_FILE) + "\n")
    _sync(beside)


def load(path: str | os.PathLike) -> Checkpoint:
    """Opens one checkpoint after checking every hash.

    Args:
        path: a folder step_….

    Raises:
        UserError: naming what is missing or damaged.

    Example:
        checkpoint = load("W/small_0/checkpoints/step_00003000")
        kernel = checkpoint.weights["encoder/block_0/self_attention/query/kernel"]
    """
    path = pathlib.Path(path)
    manifest = read_manifest(path)
    for name in (MODEL_FILE, TRAINING_FILE):
        _verify(path / name, manifest["files"][name])
    try:
        weights = tensor_files.TensorFile(path / MODEL_FILE)
        training = tensor_files.TensorFile(path / TRAINING_FILE)
    except ValueError as error:
        raise UserError(str(error)) from None
    return Checkpoint(path, manifest["step"], manifest["config"], weights, training)


def read_manifest(path: str | os.PathLike) -> dict:
    """Returns a checkpoint's manifest, checked against its commit marker; reads no tensor.

    Raises:
        UserError: naming what is missing or damaged.
    """
    path = pathlib.Path(path)
    if not (path / MARKER_FILE).is_file():
        raise _bad(path, f"no {MARKER_FILE}")
    try:
        marker = (path / MARKER_FILE).read_text(encoding="ascii").strip()
        content = (path / MANIFEST_FILE).read_bytes()
    except (OSError, UnicodeDecodeError):
        raise _bad(path, f"no readable {MANIFEST_FILE} and {MARKER_FILE}") from None
    if hashlib.sha256(content).hexdigest() != marker:
        raise _bad(path, f"a changed {MANIFEST_FILE}")
    try:
        manifest = json.loads(content)
        whole = (
            manifest["format"] == _FORMAT
            and type(manifest["step"]) is int
            and isinstance(manifest["config"], dict)
            and {MODEL_FILE, TRAINING_FILE} <= manifest["files"].keys()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise _bad(path, f"a {MANIFEST_FILE} of another format")
    return manifest


def _verify(path: pathlib.Path, expected: Mapping) -> None:
    if not path.is_file():
        raise _bad(path.parent, f"no {path.name}")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise _bad(path.parent, f"{path.name} of {size} bytes, not {expected['bytes']}")
    if _sha256(path) != expected["sha256"]:
        raise _bad(path.parent, f"a changed {path.name}")


def steps(folder: str | os.PathLike) -> list[int]:
    """Returns the steps of the committed checkpoints in `folder`, ascending; reads no tensor."""
    return [step for step, path in _folders(folder) if (path / MARKER_FILE).is_file()]


def latest(folder: str | os.PathLike) -> Checkpoint | None:
    """Opens the newest good checkpoint of a folder.

    Each newer one that cannot be used is named in a `CheckpointWarning`. A step folder without
    commit marker, an empty one for instance, is not a checkpoint.

    Returns:
        None where there is no checkpoint at all.

    Raises:
        UserError: there are checkpoints and none is good: training must not silently begin anew.
    """
    faults = []
    for _, path in reversed(_folders(folder)):
        try:
            return load(path)
        except UserError as error:
            warnings.warn(f"{error} It is passed over.", CheckpointWarning, stacklevel=2)
            faults.append(path)
    committed = [path for path in faults if (path / MARKER_FILE).exists()]
    if committed:
        raise UserError(
            f"Expected a good checkpoint in {folder}. Received: {len(committed)} damaged ones, "
            f"the newest {committed[0].name}. Restore one, or move the folder away to start anew."
        )
    return None


def keep_newest(folder: str | os.PathLike, count: int, step: int) -> None:
    """Removes older checkpoints, `count` newest up to and with `step` excepted.

    Args:
        folder: where the checkpoints of a run lie.
        count: how many to keep, at least 1.
        step: the one just saved; a later one is of a damaged past and does not count.
    """
    for old in [s for s in steps(folder) if s <= step][:-count]:
        # Renamed first: a half-removed folder must not look like a damaged checkpoint.
        target = pathlib.Path(folder) / f"{_TEMPORARY}removed_{uuid.uuid4().hex[:8]}"
        os.rename(pathlib.Path(folder) / step_folder(old), target)
    _remove_partial(folder)


def load_weights_into(model, path: str | os.PathLike) -> None:
    """Sets a model's weights from a checkpoint, by name and shape.

    Args:
        model: a built `keras.Model`.
        path: a folder step_….

    Raises:
        UserError: a damaged checkpoint, or every mismatch of names and shapes in one error;
            no weight has been set then.
    """
    checkpoint = load(path)
    variables = {
        name.removeprefix(MODEL_PREFIX): variable
        for name, variable in state_variables(model).items()
        if name.startswith(MODEL_PREFIX)
    }
    check_state(
        {name: tuple(variable.shape) for name, variable in variables.items()},
        {name: checkpoint.weights.shape(name) for name in checkpoint.weights},
        str(path),
    )
    for name, variable in variables.items():
        variable.assign(checkpoint.weights[name])


# ---- files ----


def _folders(folder: str | os.PathLike) -> list[tuple[int, pathlib.Path]]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in pathlib.Path(folder).iterdir():
            match = _STEP_FOLDER.fullmatch(path.name)
            if match and path.is_dir():
                found.append((int(match[1]), path))
    return sorted(found)


def _remove_partial(folder: str | os.PathLike) -> None:
    for path in pathlib.Path(folder).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _sync(path)


def _sync(path: pathlib.Path) -> None:
    """Makes a file's bytes, or a folder's entries, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bad(path: pathlib.Path, fault: str) -> UserError:
    return UserError(
        f"Expected a whole checkpoint. Received: {path} with {fault}. Use another checkpoint."
    )
