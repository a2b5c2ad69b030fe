"""Versions for manifests and reports."""

import pathlib
import platform

import keras

from trainers import versions
from trainers.versions import code_version, installed_versions


def test_python_keras_and_nothing_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("trainers.versions.PACKAGES", ("keras", "no-such-package"))
    assert installed_versions() == {"python": platform.python_version(), "keras": keras.version()}


def test_one_changed_line_is_another_code(tmp_path, monkeypatch):
    for package in ("trainers", "glue"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "trainers" / "versions.py"))
    before = code_version()
    assert code_version() == before and len(before) == 12
    (tmp_path / "trainers" / "notes.txt").write_text("no code")
    assert code_version() == before
    pathlib.Path(tmp_path / "glue" / "a.py").write_text("a = 2\n")
    assert code_version() != before
