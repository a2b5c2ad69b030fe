"""Docstrings of installed packages, without importing them.

One document is all docstrings of one module, in the order of its source: neighbours speak of the
same subject, and siblings that share whole paragraphs fall on the same side of the split.
A docstring that was met before is left out, as packages re-export, vendor and repeat theirs.
Modules come in an order that a hash of their names fixes, so that a limited amount of text is a
sample of all packages.

The packages of `PINNED` have the same docstrings in their wheels for Python 3.11 to 3.13, so at
those versions the documents are one text, with the hash `PINNED_SHA256`.
"""

import ast
import contextlib
import csv
import difflib
import gc
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence

from tqdm import tqdm

from trainers.errors import UserError

STANDARD_LIBRARY = "python"
PINNED = {"keras": "3.15.1", "matplotlib": "3.11.2", "numpy": "2.4.6", "scipy": "1.17.1"}
"""Versions of the packages that are read where none are named, as constraints.txt pins them.

They are what every environment of the project has, with its most English text: 9 MB. The standard
library has another text with each version of Python.
"""

PINNED_SHA256 = "6c6b65cb16c7ce56133aec5053f187f167430ecc64fb83197d955ba2c68957e2"
"""`text_sha256` of all their documents."""

_OWN_PACKAGE = "keras-fusion"  # text that changes as this project does is no corpus for it
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
_MOST_NAMED = 6  # differences, of two hundred packages
# Modules that packages have below Python 3.12 only.
_SKIPPED_FOLDERS |= {"distutils"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (
    *_DOCUMENTED,
    *(ast.If, ast.Try, ast.With, ast.For, ast.While, ast.ExceptHandler, ast.Match, ast.match_case),
)
# Parsing is what reading costs, and files with little text take a quarter of it for 3 % of the
# text: a file is parsed if this share of it stands between triple quotes.
_LEAST_SHARE = 0.1
_QUOTED = re.compile(rb'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.DOTALL)


class Sources:
    """The Python source files of installed packages.

    Args:
        packages: their names, "python" for the standard library; empty for those of `PINNED`.

    Attributes:
        versions: {name: version} of the packages.
        files: (name, path) of their modules.
    """

    def __init__(self, packages: Sequence[str] = ()):
        installed = _installed()
        names = [STANDARD_LIBRARY, *sorted(installed)]
        wanted = {_normalise(name) for name in packages or PINNED}
        for name in sorted(wanted.difference(names)):
            close = difflib.get_close_matches(name, names, n=3) or names[:3]
            expected = f"packages that are installed here, such as {', '.join(close)}"
            raise UserError(expected, f"packages={name}", "Install it or leave it out")
        self.versions = {name: installed[name][0] for name in names[1:] if name in wanted}
        self.files = [
            item for name in self.versions for item in _package_files(name, installed[name][1])
        ]
        if STANDARD_LIBRARY in wanted:
            self.versions[STANDARD_LIBRARY] = platform.python_version()
            self.files += _standard_library_files()

    def ordered(self) -> list[pathlib.Path]:
        """The files in an order that depends on their names only."""
        keyed = {name.encode(): path for name, path in self.files}
        return [keyed[k] for k in sorted(keyed, key=lambda k: (hashlib.sha256(k).digest(), k))]


def module_documents(files: Sequence[pathlib.Path], max_bytes: int) -> list[str]:
    """Reads files until there are `max_bytes` of docstrings that were not met before.

    Files that do not parse are passed over. Returns one text per module with docstrings of its own.
    """
    seen, documents, total = set(), [], 0
    bar = tqdm(total=max_bytes, unit="B", unit_scale=True, desc="reading", disable=None)
    with bar, _no_garbage_collection():
        for path in files:
            fresh = [doc for doc in _docstrings(path) if doc not in seen and not seen.add(doc)]
            if not fresh:
                continue
            documents.append("\n\n".join(fresh))
            total += len(documents[-1].encode("utf-8", "replace"))
            bar.update(min(total, max_bytes) - bar.n)
            if total >= max_bytes:
                break
    return documents


def text_sha256(documents: Sequence[str]) -> str:
    """Hash of documents in their order, white space aside: versions of Python differ in that."""
    content = "\0".join(" ".join(document.split()) for document in documents)
    return hashlib.sha256(content.encode()).hexdigest()


def other_text(versions: Mapping[str, str], sha256: str) -> str:
    """Says how a text differs from that of `PINNED`; empty where it does not.

    Args:
        versions: {name: version} of the packages that were read.
        sha256: `text_sha256` of their documents.

    Example:
        >>> other_text(PINNED | {"numpy": "2.5.0"}, "")
        'not the text of this version of the project: numpy 2.5.0 in place of 2.4.6'
    """
    if sha256 == PINNED_SHA256:
        return ""
    differences = [f"without {name}" for name in PINNED if name not in versions]
    for name, version in versions.items():
        if name not in PINNED:
            differences.append(f"with {name} {version}")
        elif version != PINNED[name]:
            differences.append(f"{name} {version} in place of {PINNED[name]}")
    if more := differences[_MOST_NAMED:]:
        differences[_MOST_NAMED:] = [f"and {len(more)} other differences"]
    same = "the versions are the same, but not all that they say"
    return f"not the text of this version of the project: {', '.join(differences) or same}"


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # Syntax trees are many objects without cycles: looking for some takes a third of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _docstrings(path: pathlib.Path) -> Iterator[str]:
    try:
        source = path.read_bytes()
        quoted = sum(len(match.group()) for match in _QUOTED.finditer(source))
        if quoted <= _LEAST_SHARE * len(source):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waiting = [ast.parse(source)]
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    while waiting:
        node = waiting.pop()
        if isinstance(node, _DOCUMENTED):
            text = ast.get_docstring(node)
            if text and text.strip():
                # A lone surrogate, from an escape in the source, has no UTF-8.
                yield text.encode("utf-8", "replace").decode()
        # Only statements can hold definitions; expressions, most of the tree, are passed over.
        inner = []
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            inner += getattr(node, field, None) or () if isinstance(node, _BLOCKS) else ()
        waiting += reversed(inner)


def _installed() -> dict[str, tuple[str, importlib.metadata.Distribution]]:
    """Returns name → (version, package) of what is installed, without this project."""
    packages = {}
    for package in importlib.metadata.distributions():
        metadata = package.metadata  # parsed anew at every access
        name, version = metadata["Name"], metadata["Version"]
        if name and version:
            # The first one on the path is the one that would be imported.
            packages.setdefault(_normalise(name), (version, package))
    packages.pop(_OWN_PACKAGE, None)
    return packages


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower().strip()


def _package_files(
    package: str, distribution: importlib.metadata.Distribution
) -> list[tuple[str, pathlib.Path]]:
    # `distribution.files` says the same, ten times slower. Without a RECORD, as with an editable
    # install or a package of the system, nothing says which files belong to it.
    record = distribution.read_text("RECORD") or ""
    names = [row[0] for row in csv.reader(line for line in record.splitlines() if ".py," in line)]
    return [
        (f"{package}/{name}", pathlib.Path(distribution.locate_file(name)))
        for name in names
        if name.endswith(".py") and not _SKIPPED_FOLDERS.intersection(name.split("/"))
    ]


def _standard_library_files() -> list[tuple[str, pathlib.Path]]:
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, inner, names in os.walk(root):
        # Skipped folders are not entered: the installed packages lie below the library.
        inner[:] = [name for name in inner if name not in _SKIPPED_FOLDERS]
        files += [pathlib.Path(folder, name) for name in names if name.endswith(".py")]
    return [(f"{STANDARD_LIBRARY}/{path.relative_to(root).as_posix()}", path) for path in files]
