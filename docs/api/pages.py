"""Writes the pages of the API reference, one for each public package: `python -m docs.api.pages`.

A page lists the names of the package's `__all__`; their docstrings are read when the site is built.
"""

import importlib
import inspect
import pathlib

import keras_fusion

# Not imported by the library itself.
APART = ("interop",)
FOLDER = pathlib.Path(__file__).parent


def packages():
    """`{name: module}` of the public packages: the library, those in its `__all__`, and others."""
    modules = {name: getattr(keras_fusion, name) for name in keras_fusion.__all__}
    modules = {name: module for name, module in modules.items() if inspect.ismodule(module)}
    modules |= {name: importlib.import_module(f"keras_fusion.{name}") for name in APART}
    return {"index": keras_fusion} | modules


def page(module):
    """Text of the page of a public package."""
    path = module.__name__
    names = [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    entries = [f"## {name}\n\n::: {path}.{name}\n" for name in names]
    return "\n".join([f"# {path}\n", inspect.getdoc(module) + "\n", *entries])


def files():
    """`{file name: text}` of all pages."""
    return {f"{name}.md": page(module) for name, module in packages().items()}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
