"""Versions of what a run was made with, for manifests and reports."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import platform

PACKAGES = (
    "keras-fusion",
    "keras",
    "tensorflow",
    "tensorflow-text",
    "jax",
    "numpy",
    "grain",
    "sentencepiece",
)


def installed_versions() -> dict[str, str]:
    """Returns `{name: version}` of Python and of the installed packages that a run depends on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def code_version() -> str:
    """Returns the first digits of a hash of the project's own source files."""
    root = pathlib.Path(__file__).parents[1]
    library = pathlib.Path(importlib.util.find_spec("keras_fusion").origin).parent
    digest = hashlib.sha256()
    for package in (library, root / "trainers", root / "glue"):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
