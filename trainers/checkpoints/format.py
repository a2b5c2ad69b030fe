"""Form of a checkpoint on the disk: names of its files, and its manifest.

    checkpoints/step_00001000/
      model.safetensors      weights, by their path inside the model: all that a fusion reads
      training.safetensors   optimizer slots, iterations, seeds
      manifest.json          step, score, configuration, versions, SHA-256 and size of both files
      COMMITTED              SHA-256 of manifest.json; written last

Where several hosts each wrote their part of the arrays, every host i of n has two files of its own
in place of the first two, model-0000i-of-0000n.safetensors and training-…: names in them say where
a part begins (`trainers.checkpoints.parts`). No value is in two files.

The folder is written as `.partial_…` and renamed, so that `step_…` is there whole or not at all,
and `step_….replaced_…` only for the moment in which another one takes its place.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping

from trainers.checkpoints.tensors import Digest
from trainers.errors import UserError
from trainers.files import parse_json, read_file
from trainers.storage import MARKER_FILE
from trainers.versions import installed_versions

MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"
MANIFEST_FILE = "manifest.json"
# Folder of a run's checkpoints, inside the folder of the run.
CHECKPOINT_FOLDER = "checkpoints"
# Names in a run's state that begin so are weights of the model.
MODEL_PREFIX = "model/"
# What folders are called that are not, or no longer, checkpoints.
PARTIAL = ".partial_"
REPLACED = ".replaced_"

_FORMAT = 1
# More hosts than anybody has, and fewer than would take long to count.
_MAX_HOSTS = 10_000
_STEP_FOLDER = re.compile(rf"step_([0-9]{{8,18}})(?:{re.escape(REPLACED)}[0-9a-f]+)?")
# Forty thousand evaluations.
MAX_MANIFEST = 16_000_000


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be used; an older one is taken."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Description of a checkpoint in its manifest."""

    step: int  # steps that had been taken
    config: dict  # configuration that `save` was given
    # File name → hash and size of the file, in the order of `file_names` for each host.
    files: Mapping[str, Digest]
    score: float | None = None  # of the validation, lower is better; None if not measured

    @property
    def weights_sha256(self) -> str:
        """Hash of the file of weights, or of the hashes where there are several."""
        digests = [digest.sha256 for digest in list(self.files.values())[::2]]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def file_names(host: int = 0, num_hosts: int = 1) -> tuple[str, str]:
    """Names of the files of weights and of training state that a host writes, of so many."""
    if num_hosts == 1:
        return MODEL_FILE, TRAINING_FILE
    part = f"-{host + 1:05d}-of-{num_hosts:05d}."
    return MODEL_FILE.replace(".", part), TRAINING_FILE.replace(".", part)


def step_folder(step: int) -> str:
    """Name of the folder of a step: step_00001000."""
    return f"step_{step:08d}"


def step_folders(folder: str | os.PathLike) -> list[tuple[int, pathlib.Path]]:
    """Returns (step, path) of all that is called like a checkpoint, ascending."""
    try:
        return by_step(pathlib.Path(folder).iterdir())
    except FileNotFoundError:
        return []


def by_step(paths: Iterable[pathlib.Path]) -> list[tuple[int, pathlib.Path]]:
    """Returns (step, path) of those that are called like checkpoints, ascending."""
    named = ((path, _STEP_FOLDER.fullmatch(path.name)) for path in paths)
    folders = [(int(match[1]), path) for path, match in named if match]
    # One that was being replaced comes before the one that replaces it.
    return sorted(folders, key=lambda item: (item[0], item[1].name == step_folder(item[0])))


def write_manifest(path: pathlib.Path, manifest: Manifest) -> None:
    """Writes manifest and commit marker into a checkpoint's folder."""
    fields = {
        "format": _FORMAT,
        "step": manifest.step,
        "score": manifest.score,
        "files": {name: digest._asdict() for name, digest in manifest.files.items()},
        "versions": _versions(),
        "config": manifest.config,
    }
    content = json.dumps(fields, indent=1).encode()
    if len(content) > MAX_MANIFEST:
        # It could not be read back.
        raise UserError(
            f"a manifest of at most {MAX_MANIFEST:,} bytes",
            f"{len(content):,} bytes of configuration and curve",
            "Evaluate less often",
        )
    _write(path / MANIFEST_FILE, content)
    _write(path / MARKER_FILE, hashlib.sha256(content).hexdigest().encode() + b"\n")


def read_manifest(path: str | os.PathLike) -> Manifest:
    """Returns a checkpoint's manifest, checked against its commit marker; reads no tensor."""
    path = pathlib.Path(path)
    marker = _read(path, MARKER_FILE, 100)
    content = _read(path, MANIFEST_FILE, MAX_MANIFEST)
    if hashlib.sha256(content).hexdigest().encode() != marker.strip():
        raise damaged(path, f"a changed {MANIFEST_FILE}")
    try:
        manifest = _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged(path, f"a {MANIFEST_FILE} of another format") from None
    name = _STEP_FOLDER.fullmatch(path.name)
    if name and int(name[1]) != manifest.step:
        raise damaged(path, f"the {MANIFEST_FILE} of step {manifest.step}")
    return manifest


def _parse(content: bytes) -> Manifest:
    # A curve may hold NaN.
    fields = parse_json(content, constant=float)
    # No path is taken from the file: the number of names says which they have to be.
    num_hosts = len(fields["files"]) // 2
    if not 1 <= num_hosts <= _MAX_HOSTS:
        raise ValueError("another number of files")
    names = [name for host in range(num_hosts) for name in file_names(host, num_hosts)]
    files = {name: Digest(**fields["files"][name]) for name in names}
    manifest = Manifest(fields["step"], fields["config"], files, fields.get("score"))
    if not (
        fields["format"] == _FORMAT
        and type(manifest.step) is int
        and 0 <= manifest.step < 10**18
        and isinstance(manifest.config, dict)
        and all(type(digest.bytes) is int for digest in files.values())
        and (manifest.score is None or type(manifest.score) is float)
    ):
        raise ValueError("another format")
    return manifest


def damaged(path: pathlib.Path, fault: str) -> UserError:
    """The error for a checkpoint that cannot be used."""
    return UserError("a whole checkpoint", f"{path} with {fault}", "Use another checkpoint")


# Asked for at every checkpoint, and every package's metadata is a file.
_versions = functools.cache(installed_versions)


def _write(path: pathlib.Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: pathlib.Path, name: str, limit: int) -> bytes:
    try:
        return read_file(path / name, limit)
    except OSError as error:
        raise damaged(path, f"no readable {name} ({error.strerror or error})") from None
