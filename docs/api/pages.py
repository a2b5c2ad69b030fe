"""Writes the pages of the API reference, one for each public package: `python -m docs.api.pages`.

A page lists the names of the package's `__all__`; their docstrings are read when the site is built.
"""

import importlib
import inspect
import pathlib

PACKAGES = ("", ".layers", ".models", ".families", ".optimizers", ".callbacks", ".schedules")
PACKAGES += (".interop", ".theory")
FOLDER = pathlib.Path(__file__).parent


def public_names(module):
    """Names that a module makes public, in their order: `__all__`, or what it defines itself."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    names = getattr(module, "__all__", defined)
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def page(package):
    """Text of the page of a public package, such as ".layers"."""
    path = f"keras_fusion{package}"
    module = importlib.import_module(path)
    entries = [f"## {name}\n\n::: {path}.{name}\n" for name in public_names(module)]
    return "\n".join([f"# {path}\n", inspect.getdoc(module) + "\n", *entries])


def files():
    """`{file name: text}` of all pages."""
    return {f"{package.lstrip('.') or 'index'}.md": page(package) for package in PACKAGES}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
