"""Tests with torch and transformers, which .venv-interop has: `make test-interop`."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _torch_and_transformers():
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed; make test-interop has it")
