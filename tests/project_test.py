"""The project's files agree with one another: imports, commands, arrows, clean texts."""

import ast
import functools
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grimp
import pytest
from packaging.utils import canonicalize_name

from tests import makefile
from tests.requirements import required, settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["keras_fusion", "trainers", "glue"]
FOLDERS = [*PACKAGES, "benchmarks", "examples", "tests"]
# Extras whose packages functions may import.
IN_FUNCTIONS = ("gcs", "interop", "jax", "s3", "tensorflow", "torch")
# How docstrings do not start, and names that say nothing of what they hold: CONTRIBUTING.md.
QUESTIONS = r"(?:What|Which|Whether|How|Where|By how much)\b"
VAGUE_NAMES = {"each", "found", "it", "known", "thing", "what"}
# What is left of an old habit. It goes down to 0, not up.
PRIVATE_PATCHES = 2
BACKENDS = {"jax", "tensorflow", "tensorflow_datasets", "tensorflow_text", "torch"}


@functools.cache
def import_graph() -> grimp.ImportGraph:
    """The imports of every module of the repository, those of other packages too."""
    return grimp.build_graph(*FOLDERS, include_external_packages=True, cache_dir=None)


def modules(*folders: str) -> list[str]:
    """Dotted names of the modules in folders of the repository."""
    return sorted(name for name in import_graph().modules if name.split(".")[0] in folders)


def tracked_texts() -> dict[str, str]:
    """Path and text of every text file in the index of git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    if not (ROOT / ".git").exists():
        pytest.skip("Not a git checkout.")
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    paths = [path for path in listed.split("\0") if path and (ROOT / path).is_file()]
    texts = {}
    for path in paths:
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            texts[path] = data.decode("utf-8")
    return texts


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """The nodes of a Python file's syntax tree that the tests look at."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.Call, ast.Name)
    return [node for node in ast.walk(parsed(path)) if isinstance(node, kinds)]


def nodes_of(*folders: str) -> dict[str, list[ast.AST]]:
    """Path and `nodes` of every Python file in folders of the repository."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): nodes(path) for path in paths}


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    """Distributions that are installed, by the packages that they hold."""
    return importlib.metadata.packages_distributions()


def top_level_names(source: str) -> set[str]:
    """Top-level packages that importing a module imports: all but what functions import later."""
    names, waiting = set(), [*ast.parse(source).body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            waiting.extend(node.orelse if checking else ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("package", FOLDERS)
def test_third_party_imports_are_requirements(package):
    extras = {"keras_fusion": (), "trainers": ("trainers",), "glue": ("trainers",)}
    names = required(*extras.get(package, ("test",)), *IN_FUNCTIONS)
    for module in modules(package):
        for name in import_graph().find_modules_directly_imported_by(module):
            top = name.split(".")[0]
            if top not in {*FOLDERS, *sys.stdlib_module_names, "setuptools"}:
                candidates = {canonicalize_name(name) for name in distributions().get(top, [top])}
                assert candidates & names.keys(), f"{module} imports {top}: add {candidates}."


def test_import_linter_knows_every_package():
    assert settings()["tool"]["importlinter"]["root_packages"] == PACKAGES


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
def test_documented_commands_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"python -m ([\w.]+)", text):
        ours = name.split(".")[0] in FOLDERS
        assert not ours or name in modules(*FOLDERS), f"{path}: `python -m {name}` is no module."
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.M):
        assert re.search(rf"^{target}:", make, re.M), f"{path}: no `make {target}`."


def test_no_file_names_a_machine():
    path = re.compile(r"(?<![\w.>}])/(?:work|root|home|Users|opt|mnt)/[\w.]")
    host = re.compile(r"(?:index-url|find-links|trusted-host|pythonhosted|simple/)[=\s\w/]", re.I)
    for name, text in tracked_texts().items():
        for number, line in enumerate(text.splitlines(), start=1):
            match = path.search(line) or (name != "tests/project_test.py" and host.search(line))
            assert not match, f"{name}:{number} names a machine or a registry: {line.strip()}"


def test_the_library_imports_what_it_requires_and_the_rest_in_functions():
    requirements = {name.replace("-", "_") for name in required()}
    for path in sorted((ROOT / "keras_fusion").rglob("*.py")):
        names = top_level_names(path.read_text(encoding="utf-8"))
        late = names - requirements - {"keras_fusion", *sys.stdlib_module_names}
        assert not late, f"{path.relative_to(ROOT)}: import {late} later."


def test_preparing_data_imports_no_backend_at_the_top_level():
    for path in sorted((ROOT / "trainers" / "data").rglob("*.py")):
        names = top_level_names(path.read_text(encoding="utf-8"))
        assert not names & BACKENDS, f"{path.relative_to(ROOT)}: import {names & BACKENDS} later."


def test_top_level_names_sees_what_runs_on_import():
    source = "try:\n    import jax\nexcept ImportError:\n    import os.path\n"
    source += "if TYPE_CHECKING:\n    import torch\nclass A:\n    import numpy as np\n"
    source += "def f():\n    import tensorflow\nfrom . import x\n"
    assert top_level_names(source) == {"jax", "os", "numpy"}


def test_every_module_is_imported_by_some_test():
    ours = set(modules(*FOLDERS))
    # A program that a test starts stands in a string: `python -m trainers.mesh_report`.
    paths = (ROOT / "tests").rglob("*_test.py")
    texts = "".join(path.read_text(encoding="utf-8") for path in paths)
    started = {name for name in ours if f'"{name}"' in texts}
    tested, waiting = set(), started | {m for m in modules("tests") if m.endswith("_test")}
    while waiting:
        module = waiting.pop()
        tested.add(module)
        imported = import_graph().find_modules_directly_imported_by(module)
        parent = module.rpartition(".")[0]
        waiting |= ({*imported, parent} & ours) - tested
    untested = set(modules(*PACKAGES)) - tested
    assert not untested, f"No test imports {untested}."


def private_patches(of_file: list[ast.AST]) -> list[int]:
    """Lines where a test patches a private name: `monkeypatch.setattr(module, "_name", …)`."""
    patches = [
        call
        for call in of_file
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("setattr", "delattr", "setitem")
    ]
    private = re.compile(r"""(?:^|[.'"])_(?!_)\w""")
    return [c.lineno for c in patches if any(private.search(ast.unparse(a)) for a in c.args[:2])]


def test_tests_reach_code_through_public_names():
    patches = {path: private_patches(of_file) for path, of_file in nodes_of("tests").items()}
    lines = [f"{path}:{line}" for path in patches for line in patches[path]]
    assert len(lines) <= PRIVATE_PATCHES, f"Give the code a public seam in place of {lines}."


def test_docstrings_start_with_a_verb_or_a_noun():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    lines = [
        f"{path}:{getattr(node, 'lineno', 1)}"
        for path, of_file in nodes_of(*FOLDERS).items()
        for node in of_file
        if isinstance(node, kinds) and re.match(QUESTIONS, ast.get_docstring(node) or "")
    ]
    assert not lines, f"Say the noun, or `Returns …`, in {lines}."


def test_variables_are_named_for_what_they_hold():
    lines = [
        f"{path}:{node.lineno}: {node.id}"
        for path, of_file in nodes_of(*FOLDERS).items()
        for node in of_file
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if node.id in VAGUE_NAMES
    ]
    assert not lines, f"Say what they hold: {lines}."


def test_make_test_names_files_that_exist():
    commands = makefile.arguments("test", "pytest")
    paths = [word for command in commands for word in command if word.startswith("tests/")]
    assert len(commands) == 2 and paths and all((ROOT / path).exists() for path in paths)


def test_ci_runs_the_tests_and_the_linters():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert re.findall(r"^make ([\w-]+)$", text, re.M) == ["test", "test-interop", "lint"]


def test_workflows_run_targets_of_make_and_need_no_secret():
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    commands = re.findall(r"^ +- run: (.*)$", text, re.M)
    targets = [re.fullmatch(r"make ([\w-]+)(?: [A-Z]+=\w+)*", command)[1] for command in commands]
    assert targets == ["test", "lint", "check-docs", "wheel"] and "secrets." not in text
    assert all(re.search(rf"^{target}:", make, re.M) for target in targets)


def test_hooks_before_a_commit_need_no_network():
    """They start what `make install` has set up, or make itself."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^ +- repo: (.*)$", text, re.M) == ["local"]
    assert set(re.findall(r"^ +language: (.*)$", text, re.M)) == {"system"}
    programs = set(re.findall(r"^ +entry: (\S+)", text, re.M))
    assert programs == {".venv/bin/ruff", ".venv/bin/lint-imports", "make"}


def test_license_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
