"""Fixtures of the trainers' tests."""

import pytest

from tests.trainers import nano


@pytest.fixture(scope="module")
def patch():
    """A monkeypatch for a module's tests, with the size `nano` defined and steps run eagerly."""
    with pytest.MonkeyPatch.context() as monkeypatch, nano.eager():
        nano.define(monkeypatch)
        yield monkeypatch
