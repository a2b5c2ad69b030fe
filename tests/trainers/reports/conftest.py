"""Reports are drawn small in tests."""

import pytest

from trainers.reports import pictures


@pytest.fixture(autouse=True, scope="package")
def small_pictures():
    """Draws pictures at a fifth of their resolution."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "DPI", 40)
        yield
