"""Workers answer number by number, and one that ends says so."""

import pytest

from benchmarks._workers import Worker

DOUBLES = """
from benchmarks._workers import serve
def make():
    print("a line that is no answer", flush=True)
    return lambda number: 2 * number
serve(make)
"""


def test_answers_come_in_turn():
    with Worker(["-c", DOUBLES]) as worker, Worker(["-c", DOUBLES]) as other:
        assert [worker.run(1), other.run(2), worker.run(3)] == [2, 4, 6]


def test_a_worker_that_ends():
    with Worker(["-c", "raise SystemExit(3)"]) as worker, pytest.raises(RuntimeError, match="3"):
        worker.run(1)
