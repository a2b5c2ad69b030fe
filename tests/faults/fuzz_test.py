"""Damaged files of every kind; `make faults` feeds many more."""

import pytest

from tests.faults import fuzz

NAMES = (
    *("manifest of a checkpoint", "safetensors header", "safetensors", "progress of a run"),
    *("plan", "record of a stage", "metrics", "rows of a task", "manifest of tokens"),
    *("tokens", "vocabulary"),
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return fuzz.readers(tmp_path_factory.mktemp("readers"))


def test_every_reader_is_here(readers):
    assert NAMES == (*readers,)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused(readers, tmp_path, name):
    assert fuzz.outcome(readers[name], tmp_path, readers[name].good) == fuzz.READ
    outcomes = fuzz.feed(readers[name], tmp_path, examples=15, seed=1)
    assert sum(outcomes.values()) >= 15
