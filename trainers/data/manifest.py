"""Manifest of a prepared data folder: its contents, and their check."""

import hashlib
import json
import pathlib

import numpy as np

from trainers.errors import UserError
from trainers.files import parse_json

FORMAT = 1  # of the folder and of how a corpus is read: another one makes another folder
MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.model"
FILES = (VOCABULARY, "train.tokens", "validation.tokens")
# Hashing is free beside training for files up to here; of larger ones only the size is compared
# each time that they are opened.
FULL_CHECK_BYTES = 256 << 20


MAX_BYTES = 16_000_000  # of the manifest
MAX_PADDING = 1 << 10  # rows of an embedding above the ids

# Share of unknown tokens from which a vocabulary does not fit a text.
MUCH_UNKNOWN = 0.01
# Passes over a text up to which a repeated one teaches about as much as a new one
# (Muennighoff et al., 2023, arXiv 2305.16264).
MANY_PASSES = 4


def unknown_share(manifest: dict) -> float | None:
    """Share of the tokens that the vocabulary does not know; None where it was not counted."""
    counts = manifest["splits"].values()
    if any("unknown" not in split for split in counts):
        return None
    tokens = sum(split["tokens"] for split in counts)
    return sum(split["unknown"] for split in counts) / max(tokens, 1)


def token_file(split: str) -> str:
    """Name of the token file of a split."""
    return f"{split}.tokens"


def token_dtype(size: int) -> np.dtype:
    """The little-endian type that holds ids below `size`."""
    return np.dtype("<u2" if size <= 1 << 16 else "<u4")


def sha256_of(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: pathlib.Path) -> dict:
    """Returns name → {bytes, sha256} of the files of `folder`."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in FILES
    }


def write(folder: pathlib.Path, manifest: dict):
    """Writes the manifest of `folder`."""
    text = json.dumps({"format": FORMAT} | manifest, indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read(folder: str | pathlib.Path) -> dict:
    """Reads the manifest of `folder` and compares the folder's files with it.

    Raises:
        UserError: no manifest, one of another format, or a file that is missing or changed.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        manifest = parse_json(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}")
        # The names are ours: no path that stands in a file is ever opened.
        files = {name: manifest["files"][name] for name in FILES}
        expected = {name: (f["bytes"], str(f["sha256"])) for name, f in files.items()}
        _check_counts(manifest, expected)
    except FileNotFoundError as error:
        raise _not_prepared(folder) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"a manifest of format {FORMAT}", path, f"({error!r})") from error
    for name, (size, digest) in expected.items():
        _check_file(folder / name, size, digest)
    return manifest


def _not_prepared(folder: pathlib.Path) -> UserError:
    """The error of a folder without a manifest, which may be the one that `prepare` was given."""
    received, do = f"data_dir={folder}", "Make one with `python -m trainers.prepare`"
    if inside := sorted(str(path.parent) for path in folder.glob(f"*/{MANIFEST}")):
        received += f", which holds {len(inside)} of them"
        do = f"Name one, such as {inside[0]}" if len(inside) > 1 else f"Name it: {inside[0]}"
    return UserError(f"a prepared data folder with {MANIFEST}", received, do)


def _check_counts(manifest: dict, files: dict[str, tuple[int, str]]):
    """Checks what the manifest says against itself; raises ValueError or KeyError."""
    words, splits = manifest["vocabulary"], manifest["splits"]
    sizes = [words[name] for name in ("pieces", "sentinels", "size", "padded_size")]
    numbers = [size for size, _ in files.values()]
    numbers += [counts["tokens"] for counts in splits.values()]
    numbers += [counts.get("unknown", 0) for counts in splits.values()]
    if not all(type(number) is int and number >= 0 for number in (*sizes, *numbers)):
        raise ValueError("counts that are no counts")
    pieces, sentinels, size, padded = sizes
    # Rows beyond the ids are padding: more would be memory that no text asks for.
    if pieces + sentinels != size or not 0 <= padded - size <= MAX_PADDING:
        raise ValueError("sizes of the vocabulary")
    if {*splits} != {"train", "validation"}:
        raise ValueError("other splits")
    if not isinstance(manifest["config"]["corpus"], str) or not all(
        isinstance(file["name"], str) for file in manifest["corpus"].get("files", ())
    ):
        raise ValueError("another corpus")
    if words["sha256"] != files[VOCABULARY][1]:
        raise ValueError("two hashes of the vocabulary")
    for split, counts in splits.items():
        if counts["tokens"] * token_dtype(words["size"]).itemsize != files[token_file(split)][0]:
            raise ValueError(f"tokens of {split}")


def _check_file(path: pathlib.Path, size: int, digest: str):
    name = path.name
    there = path.stat().st_size if path.is_file() else None
    if there != size:
        state = "that is missing" if there is None else f"of {there} bytes"
        raise _damaged(f"{name} of {size} bytes, as {MANIFEST} says", path, state)
    if size <= FULL_CHECK_BYTES and sha256_of(path) != digest:
        fault = "another vocabulary than the tokens" if name == VOCABULARY else "other contents"
        expected = f"{name} with the SHA-256 {digest[:12]}… of {MANIFEST}"
        raise _damaged(expected, path, f"with {fault}")


def _damaged(expected: str, path: pathlib.Path, fault: str) -> UserError:
    return UserError(expected, f"{path} {fault}", f"Delete {path.parent} and prepare again")
