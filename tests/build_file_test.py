"""BUILD names every package, program and test. Its Starlark is run as if it were Python."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("keras_fusion", "trainers", "glue")


def python_files(folder: str) -> set[str]:
    """Paths of the Python files under a folder of the repository."""
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}


def glob(patterns: list[str], exclude: list[str] = ()) -> list[str]:
    """Paths of the files that Bazel's `glob` finds."""
    left_out = {path for pattern in exclude for path in ROOT.glob(pattern)}
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(ROOT).as_posix() for path in paths - left_out)


@pytest.fixture(scope="module")
def targets() -> dict[str, dict]:
    """Name of each target in BUILD, with its rule and attributes."""
    targets = {}

    def rule(kind):
        def add(name, **attributes):
            assert name not in targets, f"Two targets are named {name}."
            targets[name] = {"rule": kind, "data": [], "deps": [], **attributes}

        return add

    rules = {kind: rule(kind) for kind in ("py_binary", "py_library", "py_test")}
    ignored = {"load": lambda *names: None, "package": lambda **attributes: None}
    text = (ROOT / "BUILD").read_text(encoding="utf-8")
    exec(text, {**rules, **ignored, "glob": glob, "all_requirements": ["@pypi"]})
    return targets


def test_each_package_is_one_library_with_all_its_files(targets):
    for name in PACKAGES:
        assert targets[name]["rule"] == "py_library"
        assert set(targets[name]["srcs"]) == python_files(name)
        there = {path for path in glob([f"{name}/**/*"]) if not path.endswith((".py", ".pyc"))}
        assert set(targets[name]["data"]) == there


def test_each_program_is_a_binary(targets):
    binaries = {name: target for name, target in targets.items() if target["rule"] == "py_binary"}
    programs = {
        path.removesuffix(".py")
        for path in set().union(*map(python_files, PACKAGES))
        if re.search(r"^if __name__ == .__main__.:", (ROOT / path).read_text("utf-8"), re.M)
    }
    assert set(binaries) == programs
    for name, binary in binaries.items():
        assert binary["main"] == f"{name}.py" == binary["srcs"][0]


def test_each_test_file_is_a_test(targets):
    tests = {name for name, target in targets.items() if target["rule"] == "py_test"}
    in_folders = {path for path in python_files("tests") if path.count("/") > 1}
    assert tests == {path[:-3] for path in in_folders if path.endswith("_test.py")}
    others = {path for path in python_files("tests") if not path.endswith("_test.py")}
    assert others | python_files("benchmarks") == set(targets["tests"]["srcs"])


def test_every_dependency_exists(targets):
    for target in targets.values():
        for label in target["deps"]:
            assert label == "@pypi" or label.removeprefix(":") in targets
