"""The pins of .venv-interop against what its packages need."""

import runpy

import setuptools

from tests.makefile import ROOT
from tests.requirements import needed_by, pins


def test_every_pin_is_required_and_every_requirement_is_pinned(monkeypatch):
    keywords = {}
    monkeypatch.setattr(setuptools, "setup", keywords.update)
    runpy.run_path(str(ROOT / "setup.py"))
    needed = needed_by(keywords["extras_require"]["interop"])
    assert needed - set(pins()) == set(pins("constraints-interop.txt"))
