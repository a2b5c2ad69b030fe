"""Reading ahead: order, errors in their place, and arrays of one shape."""

import itertools
import threading

import numpy as np
import pytest

from trainers.engines.feeds import Calls, Feed, stack
from trainers.errors import UserError


def numbers(end=None, error=None):
    for index in itertools.count():
        if index == end:
            if error is not None:
                raise error
            return
        yield {"targets": np.full((2, 3), index, np.int32)}


def taken(batches):
    return [int(batch["targets"][0, 0]) for batch in batches]


def test_order_is_kept_whatever_is_taken_and_peeked():
    feed = Feed(numbers())
    assert taken([feed.peek()]) == [0]
    found = [taken(feed.take(count)) for count in (1, 5, 2, 0, 7)]
    assert found == [[0], [1, 2, 3, 4, 5], [6, 7], [], [8, 9, 10, 11, 12, 13, 14]]
    assert taken([feed.peek()]) == [15]


def test_reads_ahead_while_the_caller_works():
    third = threading.Event()

    def source():
        for index, batch in enumerate(numbers()):
            if index == 3:
                third.set()
            yield batch

    feed = Feed(source())
    feed.take(2)
    assert third.wait(timeout=30)


@pytest.mark.parametrize("error", [ValueError("damaged"), KeyboardInterrupt()])
def test_an_error_comes_when_its_batch_is_asked_for(error):
    feed = Feed(numbers(4, error))
    assert taken(feed.take(3)) == [0, 1, 2]
    assert taken(feed.take(1)) == [3]
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            feed.take(1)
        assert caught.value is error


def test_an_end_says_how_many_there_were():
    feed = Feed(numbers(3))
    feed.take(2)
    with pytest.raises(UserError, match="ended after 3 batches"):
        feed.take(2)


def test_stack_fills_up_with_zeros():
    arrays = stack(list(itertools.islice(numbers(), 1, 3)), length=4)
    assert arrays["targets"].shape == (4, 2, 3) and arrays["targets"].dtype == np.int32
    assert arrays["targets"][:, 0, 0].tolist() == [1, 2, 0, 0]


def test_stack_refuses_a_partial_batch():
    batches = [{"targets": np.zeros((2, 3))}, {"targets": np.zeros((1, 3))}]
    with pytest.raises(UserError, match=r"targets=\(1, 3\) after \(2, 3\)"):
        stack(batches, 2)


def test_calls_share_a_feed_and_the_length_of_the_longest():
    calls, source = Calls(), numbers()
    assert taken(calls.peek(source, 2)) == [0]
    found = [taken(calls.take(source, count)) for count in (2, 3, 1)]
    assert found == [[0, 1], [2, 3, 4], [5]]
    assert calls.length == 3
    assert taken(calls.take(numbers(), 1)) == [0]
    assert calls.length == 3
