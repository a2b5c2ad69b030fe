"""Batches of a call: as many as asked for, in arrays of one shape."""

import itertools

import numpy as np
import pytest

from trainers.engines.feeds import stack, take
from trainers.errors import UserError


def numbers(end=None):
    for index in itertools.islice(itertools.count(), end):
        yield {"targets": np.full((2, 3), index, np.int32)}


def test_batches_that_end_are_counted():
    source = numbers(3)
    assert [int(batch["targets"][0, 0]) for batch in take(source, 2)] == [0, 1]
    with pytest.raises(UserError, match="ended after 1 batches"):
        take(source, 2)


def test_stack_fills_up_with_zeros():
    arrays = stack(list(itertools.islice(numbers(), 1, 3)), length=4)
    assert arrays["targets"].shape == (4, 2, 3) and arrays["targets"].dtype == np.int32
    assert arrays["targets"][:, 0, 0].tolist() == [1, 2, 0, 0]


def test_stack_refuses_a_partial_batch():
    batches = [{"targets": np.zeros((2, 3))}, {"targets": np.zeros((1, 3))}]
    with pytest.raises(UserError, match=r"targets=\(1, 3\) after \(2, 3\)"):
        stack(batches, 2)
