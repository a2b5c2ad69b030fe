"""Damage to files that lie still: each function returns what it was, and how to repair it.

What it was are names, with / between, one of which an error has to say. A repair of a file may be
asked for only if the file is as the damage left it (`if_left`).
"""

import fnmatch
import pathlib
import random
import shutil
from collections.abc import Callable, Iterable

from trainers import checkpoints

# Files that carry a hash, or that a hash stands for elsewhere: no other damage can be seen.
HASHED = ("*.safetensors", "manifest.json", "COMMITTED", "*.tokens", "vocabulary.model")
# JSON says by itself where it was cut.
_CUT = (*HASHED, "run.json", "stage.json", "record.json", "model.json", "result.json", "plan.json")
# What only people read is gone with its folder, and made anew or not.
_KEPT = ("tensorboard", "report")

Repair = Callable[..., object]


def flip(rng: random.Random, folders: Iterable[pathlib.Path]) -> tuple[str, Repair]:
    """Flips a bit of a file whose folder has a manifest with hashes."""

    def change(content: bytearray):
        at = rng.randrange(8 * len(content))
        content[at // 8] ^= 1 << at % 8

    def is_hashed(path: pathlib.Path) -> bool:
        return (path.parent / "manifest.json").exists()

    return _change(rng, folders, HASHED, change, is_hashed)


def cut(rng: random.Random, folders: Iterable[pathlib.Path]) -> tuple[str, Repair]:
    """Cuts the end off a file, perhaps all of it."""

    def change(content: bytearray):
        del content[rng.randrange(len(content)) :]

    return _change(rng, folders, _CUT, change)


def remove_folder(rng: random.Random, folders: Iterable[pathlib.Path]) -> tuple[str, Repair]:
    """Removes a folder of those that the program writes, which are the first."""
    home = next(iter(folders))
    if not home.is_dir():
        return "", _nothing
    inside = [path for path in sorted(home.rglob("*")) if path.is_dir()]
    inside = [path for path in inside if not set(_KEPT) & set(path.relative_to(home).parts)]
    inside = [path for path in inside if not _is_older_checkpoint(path)]
    folder = rng.choice([home, *inside])
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder)

    def repair():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path, content in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    # Of a stage's only checkpoint nobody knows the name any more.
    is_checkpoint = folder.parent.name == checkpoints.CHECKPOINT_FOLDER
    return f"{folder.parents[1].name}/{folder.name}" if is_checkpoint else folder.name, repair


def _nothing(if_left: bool = False):
    """Repairs what was not damaged."""


def _is_older_checkpoint(folder: pathlib.Path) -> bool:
    """Returns whether a folder is a checkpoint with a later one beside it: no run makes it anew."""
    older = checkpoints.steps(folder.parent)[:-1]
    return folder.name in map(checkpoints.step_folder, older)


def _change(rng, folders, patterns, change, takes=pathlib.Path.is_file) -> tuple[str, Repair]:
    paths = [
        path
        for folder in folders
        for path in sorted([folder, *folder.rglob("*")])
        if path.is_file()
        and takes(path)
        and any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
        if path.stat().st_size
    ]
    if not paths:
        return "", _nothing
    path = rng.choice(paths)
    before = path.read_bytes()
    content = bytearray(before)
    change(content)
    path.write_bytes(content)

    def repair(if_left: bool = False):
        if if_left and not (path.is_file() and path.read_bytes() == content):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(before)

    return f"{path.parent.name}/{path.name}", repair
