"""Fixtures of the trainers' tests."""

import pytest

from tests.trainers import nano


@pytest.fixture(scope="module")
def patch():
    """A monkeypatch for a module's tests, with the size `nano` defined and steps run eagerly."""
    with pytest.MonkeyPatch.context() as monkeypatch, nano.eager():
        nano.define(monkeypatch)
        yield monkeypatch


@pytest.fixture(scope="module")
def sharing_patch():
    """The same for many steps of few kinds of models, which share their traced steps."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        nano.define(monkeypatch)
        nano.share_steps(monkeypatch)
        yield monkeypatch
