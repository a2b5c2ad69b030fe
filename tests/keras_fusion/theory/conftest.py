"""Double precision for the tests of the theory, which measure small differences."""

import pytest

from tests.keras_fusion.precision import double_precision


@pytest.fixture(autouse=True, scope="module")
def _double_precision():
    with double_precision():
        yield
