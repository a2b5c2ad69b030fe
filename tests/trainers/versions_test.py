"""Versions for manifests and reports."""

import platform

import keras

from trainers.versions import installed_versions


def test_python_keras_and_nothing_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("trainers.versions.PACKAGES", ("keras", "no-such-package"))
    assert installed_versions() == {"python": platform.python_version(), "keras": keras.version()}
