import pytest

from benchmarks import import_time


@pytest.mark.slow
def test_the_library_imports_nothing_that_keras_has_not_imported():
    keras, extra, processor, packages = import_time.import_once()
    assert packages == ["keras_fusion"]
    assert keras > 0 and extra > 0 and processor > 0
