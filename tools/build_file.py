"""Writes BUILD, the Bazel targets of every module and binary, from the imports.

    python -m tools.build_file            (or: make build-file)

One target a module, named by its path: `py_binary` where the module runs as a program, `py_test`
for `*_test.py`, `py_library` otherwise. Modules that import one another share a target, for Bazel
knows no cycles.
"""

import ast
from pathlib import Path

from tools import imports

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("keras_fusion", "trainers", "glue")
HEADER = '''\
"""Bazel targets of every module, binary and test. Written by `make build-file`; do not edit."""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])
'''


def is_binary(source: str) -> bool:
    """Whether a source text has the `if __name__ == "__main__":` of a program."""
    return any(
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Compare)
        and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in ast.parse(source).body
    )


def cycles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of modules that reach one another, in the graph's order; most have one member."""
    reached = {module: _reachable(graph, module) for module in graph}
    groups: dict[tuple[str, ...], None] = {}
    for module in graph:
        group = [other for other in graph if other in reached[module] and module in reached[other]]
        groups[tuple(group) or (module,)] = None
    return list(groups)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """The modules that a module imports, directly or not."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting.extend(new)
    return seen


def data_of(root: Path, paths: dict[str, Path]) -> dict[str, list[str]]:
    """For each module, globs of the files beside it that it names in a string.

    A file that no module names belongs to the `__init__.py` of its package.
    """
    data: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*")):
            if file.is_dir() or file.suffix in (".py", ".pyc"):
                continue
            home = next(folder for folder in file.parents if (folder / "__init__.py").exists())
            first = file.relative_to(home).parts[0]
            pattern = (home / first).relative_to(root).as_posix()
            pattern += "/**" if (home / first).is_dir() else ""
            owner = ".".join(home.relative_to(root).parts)
            readers = [
                module
                for module, path in paths.items()
                if (root / path).parent == home and f'"{first}' in (root / path).read_text("utf-8")
            ]
            for module in readers or [owner]:
                data.setdefault(module, set()).add(pattern)
    return {module: sorted(patterns) for module, patterns in data.items()}


def label(path: Path) -> str:
    """The name of the target of a module: its path without the suffix, a package's without init."""
    bare = path.parent if path.name == "__init__.py" else path.with_suffix("")
    return bare.as_posix()


def render(rule: str, attributes: dict[str, object]) -> str:
    """One call of a rule, formatted as buildifier does; empty attributes are left out.

    A tuple is a glob's patterns.
    """
    lines = []
    for name, value in attributes.items():
        if isinstance(value, str):
            lines.append(f'    {name} = "{value}",')
        elif isinstance(value, dict) and value:
            entries = "".join(f'        "{key}": "{item}",\n' for key, item in value.items())
            lines.append(f"    {name} = {{\n{entries}    }},")
        elif isinstance(value, list) and len(value) == 1:
            lines.append(f'    {name} = ["{value[0]}"],')
        elif isinstance(value, list) and value:
            entries = "".join(f'        "{item}",\n' for item in value)
            lines.append(f"    {name} = [\n{entries}    ],")
        elif isinstance(value, tuple) and value:
            entries = ", ".join(f'"{item}"' for item in value)
            lines.append(f"    {name} = glob([{entries}]),")
        elif value is True:
            lines.append(f"    {name} = True,")
    return f"{rule}(\n" + "\n".join(lines) + "\n)\n"


def build_file(root: Path) -> str:
    """The text of BUILD for the modules under `root`."""
    paths = imports.modules(root)
    graph = imports.import_graph(root)
    pinned = imports.pinned(root)
    packages = {name: found & pinned for name, found in imports.third_party(root).items()}
    data = data_of(root, paths)
    groups = cycles(graph)
    target = {module: label(paths[group[0]]) for group in groups for module in group}
    rules = [HEADER]
    for group in groups:
        own = {target[other] for module in group for other in graph[module]}
        own.update(target[parent] for parent in _conftests(group[0], paths))
        own.discard(target[group[0]])
        used = set().union(*(packages[module] for module in group))
        globs = tuple(pattern for module in group for pattern in data.get(module, ()))
        rules.append(_rule(root, [paths[module] for module in group], own, used, globs))
    return "\n".join(rules)


def _conftests(module: str, paths: dict[str, Path]) -> list[str]:
    """The conftest modules that pytest loads before a test module."""
    if not module.endswith("_test"):
        return []
    folders = paths[module].parents
    return [
        name
        for name, path in paths.items()
        if path.name == "conftest.py" and path.parent in folders
    ]


def _rule(
    root: Path, files: list[Path], own: set[str], used: set[str], globs: tuple[str, ...]
) -> str:
    """The target of one module, or of modules that import one another."""
    name, srcs = label(files[0]), [file.as_posix() for file in files]
    if name.endswith("_test"):
        rule, used = "py_test", used | {"pytest"}
        attributes = {
            "srcs": [*srcs, "tools/pytest_main.py"],
            "args": [f"$(rootpath {srcs[0]})"],
            "data": ["pyproject.toml"],
            "env": {"KERAS_BACKEND": "tensorflow"},
            "main": "tools/pytest_main.py",
            # Those in tests/ itself read the whole checkout, which a sandbox does not have.
            "tags": ["manual"] if files[0].parent == Path("tests") else [],
        }
    elif any(is_binary((root / file).read_text(encoding="utf-8")) for file in files):
        rule, attributes = "py_binary", {"srcs": srcs, "data": globs, "main": srcs[0]}
    else:
        rule = "py_library"
        attributes = {"testonly": files[0].parts[0] == "tests", "srcs": srcs, "data": globs}
    deps = [f":{other}" for other in sorted(own)] + [f"@pypi//{other}" for other in sorted(used)]
    return render(rule, {"name": name, **attributes, "deps": deps})


if __name__ == "__main__":
    (ROOT / "BUILD").write_text(build_file(ROOT), encoding="utf-8")
