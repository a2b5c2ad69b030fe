"""Writes text files in one piece, so that a killed process leaves no half of one."""

import os
import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file: beside it first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
