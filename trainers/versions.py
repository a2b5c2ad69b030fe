"""Versions of what a run was made with, for manifests and reports."""

import contextlib
import importlib.metadata
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
