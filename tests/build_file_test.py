"""BUILD against the modules and imports that are really there.

The imports are read by grimp here, and by Python's `ast` in `tools.build_file`, which wrote BUILD.
"""

import ast
import functools
import graphlib
import importlib.metadata
import re
from pathlib import Path

import grimp
import pytest

from tools import build_file, imports

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [name for name in build_file.PACKAGES if (ROOT / name / "__init__.py").exists()]
REMEDY = "Run `make build-file`."
# The one file that many targets share: it starts pytest.
SHARED = "tools/pytest_main.py"


@functools.cache
def targets() -> dict[str, dict]:
    """Name of each target in BUILD, with its attributes and its rule."""
    found = {}
    for node in ast.parse((ROOT / "BUILD").read_text(encoding="utf-8")).body:
        if not isinstance(node.value, ast.Call):
            continue  # the docstring
        rule = node.value.func.id
        if rule.startswith("py_"):
            assert not node.value.args, f"{rule} at line {node.lineno}: expected keywords only."
            attributes = {word.arg: _value(word.value) for word in node.value.keywords}
            assert attributes["name"] not in found, f"Two targets named {attributes['name']}."
            found[attributes["name"]] = attributes | {"rule": rule}
    return found


def _value(node: ast.expr) -> object:
    """A literal, or the patterns of a `glob([...])`."""
    if isinstance(node, ast.Call):
        assert node.func.id == "glob"
        return _value(node.args[0])
    return ast.literal_eval(node)


@functools.cache
def target_of() -> dict[str, str]:
    """Name of the target that holds each file."""
    return {
        source: name
        for name, attributes in targets().items()
        for source in attributes["srcs"]
        if source != SHARED or attributes["rule"] == "py_binary"
    }


def python_files(*folders: str) -> set[str]:
    """Paths of the Python files under the repository's folders."""
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix() for path in files}


@functools.cache
def graph() -> grimp.ImportGraph:
    """What the packages import, seen by grimp."""
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def file_of(module: str) -> str:
    """Path of the file of a module of the packages."""
    path = module.replace(".", "/")
    package = f"{path}/__init__.py"
    return package if (ROOT / package).exists() else f"{path}.py"


def expected_deps(sources: list[str]) -> set[str]:
    """Labels that the files of a target import, its own left out."""
    labels = set()
    distributions = importlib.metadata.packages_distributions()
    pins = imports.pinned(ROOT)
    for source in sources:
        module = source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for imported in graph().find_modules_directly_imported_by(module):
            if imported.split(".")[0] in PACKAGES:
                labels.add(f":{target_of()[file_of(imported)]}")
            else:
                names = map(imports.normalized, distributions.get(imported, ()))
                labels.update(f"@pypi//{name}" for name in names if name in pins)
    return labels - {f":{target_of()[source]}" for source in sources}


def test_every_file_is_in_exactly_one_target():
    listed = [
        source
        for attributes in targets().values()
        for source in attributes["srcs"]
        if source != SHARED
    ]
    assert len(listed) == len(set(listed)), f"A file is in two targets. {REMEDY}"
    there = python_files(*imports.FOLDERS) - {SHARED}
    assert set(listed) == there, REMEDY


def test_rules_are_loaded_before_use():
    text = (ROOT / "BUILD").read_text(encoding="utf-8")
    loaded = set(re.findall(r'"(py_\w+)"', next(re.finditer(r"^load\(.*\)$", text, re.M))[0]))
    assert {attributes["rule"] for attributes in targets().values()} <= loaded


def test_deps_are_the_imports():
    for name, attributes in targets().items():
        if attributes["srcs"][0].split("/")[0] in PACKAGES:
            deps = attributes.get("deps", [])
            assert len(deps) == len(set(deps))
            assert set(deps) == expected_deps(attributes["srcs"]), f"{name}: {REMEDY}"


def test_every_label_exists():
    pins = imports.pinned(ROOT)
    for name, attributes in targets().items():
        for dep in attributes.get("deps", []):
            known = dep[1:] in targets() if dep.startswith(":") else dep[len("@pypi//") :] in pins
            assert known, f"{name}: no target {dep}. {REMEDY}"


def test_targets_have_no_cycle():
    sorter = graphlib.TopologicalSorter(
        {
            name: [dep[1:] for dep in attributes.get("deps", []) if dep.startswith(":")]
            for name, attributes in targets().items()
        }
    )
    sorter.prepare()


def test_binaries_are_the_files_with_a_main():
    with_main = {
        path
        for path in python_files(*imports.FOLDERS)
        if re.search(r"^if __name__ == .__main__.:", (ROOT / path).read_text("utf-8"), re.M)
    }
    binaries = {a["main"] for a in targets().values() if a["rule"] == "py_binary"}
    assert binaries == with_main, REMEDY


def test_every_test_file_is_run_by_a_target():
    run = {a["srcs"][0] for a in targets().values() if a["rule"] == "py_test"}
    assert run == {path for path in python_files("tests") if path.endswith("_test.py")}, REMEDY
    for attributes in targets().values():
        if attributes["rule"] == "py_test":
            assert attributes["args"] == [f"$(rootpath {attributes['srcs'][0]})"]


def test_every_other_file_of_the_packages_is_data_of_a_target():
    patterns = [p for a in targets().values() for p in a.get("data", []) if p != "pyproject.toml"]
    covered = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    covered |= {path for p in patterns for path in ROOT.glob(p + "/*") if path.is_file()}
    files = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    assert covered == {path for path in files if path.suffix not in (".py", ".pyc")}, REMEDY


def test_build_is_what_the_generator_writes():
    assert (ROOT / "BUILD").read_text("utf-8") == build_file.build_file(ROOT), REMEDY


@pytest.fixture
def checkout(tmp_path):
    """A small repository of two modules that import each other, and one that runs."""
    package = tmp_path / "keras_fusion"
    package.mkdir()
    (package / "__init__.py").write_text('"""Doc."""\nfrom keras_fusion.a import one\n')
    (package / "a.py").write_text("import numpy as np\n\nfrom . import b\n\none = 1\n")
    (package / "b.py").write_text('def late():\n    from .a import one\n    return one, "words"\n')
    (package / "words").mkdir()
    (package / "words" / "list.txt").write_text("x")
    (package / "run.py").write_text('import absl.app\n\nif __name__ == "__main__":\n    pass\n')
    (tmp_path / "constraints.txt").write_text("absl-py==2.0  # flags\nnumpy==2.0\n")
    return tmp_path


def test_generator_on_a_small_checkout(checkout):
    assert build_file.build_file(checkout) == build_file.HEADER + (
        '\npy_library(\n    name = "keras_fusion",\n    srcs = ["keras_fusion/__init__.py"],\n'
        '    deps = [":keras_fusion/a"],\n)\n'
        '\npy_library(\n    name = "keras_fusion/a",\n'
        '    srcs = [\n        "keras_fusion/a.py",\n        "keras_fusion/b.py",\n    ],\n'
        '    data = glob(["keras_fusion/words/**"]),\n    deps = ["@pypi//numpy"],\n)\n'
        '\npy_binary(\n    name = "keras_fusion/run",\n    srcs = ["keras_fusion/run.py"],\n'
        '    main = "keras_fusion/run.py",\n    deps = ["@pypi//absl_py"],\n)\n'
    )
