"""What `make` would run, without running it."""

import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def arguments(target: str, program: str, **variables: str) -> list[list[str]]:
    """The arguments of a program each time that a target runs it; skips where there is no make.

    Args:
        target: of the Makefile.
        program: such as "trainers.pretrain".
        **variables: of make.
    """
    if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
        pytest.skip("needs make and the project's Makefile")
    make = ["make", "-n", target, "-o", ".venv/.installed"]
    given = [f"{name}={value}" for name, value in variables.items()]
    found = subprocess.run([*make, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = found.stdout.replace("\\\n", " ").splitlines()
    split = [shlex.split(line) for line in lines if f"-m {program}" in line]
    return [line[line.index(program) + 1 :] for line in split]
