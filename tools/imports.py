"""Which modules the repository has, and which of them, and of the pinned packages, each imports.

A package stands for its `__init__.py`. An import names the module that it binds or reads from:
`from keras_fusion import axes` is `keras_fusion.axes`, `from keras_fusion import FusionError` is
`keras_fusion`. That Python runs the `__init__.py` of every parent as well is left out: it would
make every package one cycle.
"""

import ast
import re
import sys
from pathlib import Path

FOLDERS = ("keras_fusion", "trainers", "glue", "benchmarks", "tools", "tests")
# Distributions whose top-level module has another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "google": "protobuf",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name of every module under `FOLDERS`, with its path relative to `root`, in order."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            parts = relative.with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = relative
    return found


def imported_names(source: str, module: str, is_package: bool) -> set[str]:
    """Absolute dotted names in the import statements of a source text, wherever they stand.

    Args:
        source: Text of the module.
        module: Its dotted name, from which relative imports are resolved.
        is_package: Whether the text is that of an `__init__.py`.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, base] if base else kept)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def pinned(root: Path) -> set[str]:
    """Normalised names of the distributions that constraints.txt pins."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normalized(line.split("==")[0]) for line in lines if "==" in line}


def normalized(distribution: str) -> str:
    """A distribution's name as the labels of `@pypi` spell it, for example `absl_py`."""
    return re.sub(r"[-_.]+", "_", distribution).lower()


def distribution_of(name: str) -> str:
    """Normalised distribution that a dotted third-party name comes from."""
    top = name.split(".")[0]
    return normalized(DISTRIBUTIONS.get(top, top))


def is_third_party(name: str) -> bool:
    """Whether a dotted name is neither of this repository nor of Python's own library."""
    top = name.split(".")[0]
    return top not in FOLDERS and top not in sys.stdlib_module_names


def import_graph(root: Path) -> dict[str, set[str]]:
    """For each module of the repository, the modules of the repository that it imports."""
    paths = modules(root)
    graph = {}
    for module, path in paths.items():
        source = (root / path).read_text(encoding="utf-8")
        names = imported_names(source, module, path.name == "__init__.py")
        found = (_module_of(name, paths) for name in names if name.split(".")[0] in FOLDERS)
        graph[module] = {name for name in found if name is not None and name != module}
    return graph


def third_party(root: Path) -> dict[str, set[str]]:
    """For each module of the repository, the distributions that it imports."""
    found = {}
    for module, path in modules(root).items():
        source = (root / path).read_text(encoding="utf-8")
        names = imported_names(source, module, path.name == "__init__.py")
        found[module] = {distribution_of(name) for name in names if is_third_party(name)}
    return found


def _module_of(name: str, known: dict[str, Path]) -> str | None:
    """The longest prefix of a dotted name that is a module, as Python's import would find it."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None
