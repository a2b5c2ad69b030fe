"""The commands that `make` would run, without running them."""

import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def arguments(target: str, program: str, **variables: str) -> list[list[str]]:
    """Returns the arguments of each run of a program by a target; skips where there is no make.

    Args:
        target: of the Makefile.
        program: such as "trainers.pretrain".
        **variables: of make.
    """
    if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
        pytest.skip("needs make and the project's Makefile")
    make = ["make", "-n", target, *("-o", ".venv/.installed"), *("-o", ".venv-interop/.installed")]
    assignments = [f"{name}={value}" for name, value in variables.items()]
    run = subprocess.run(
        [*make, *assignments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = run.stdout.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if f"-m {program}" in line]
    return [command[command.index(program) + 1 :] for command in commands]
