"""Span corruption against hand-written cases, an independent oracle, and the uniform law."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.data.spans_support import restore
from trainers.data import spans


@pytest.mark.parametrize(
    ("inputs", "raw", "targets"), [(512, 568, 114), (256, 284, 58), (128, 141, 29)]
)
def test_lengths_of_the_recipe(inputs, raw, targets):
    assert spans.raw_length(inputs) == raw
    assert spans.input_length(raw) == inputs
    assert spans.target_length(raw) == targets
    assert spans.input_length(raw + 1) > inputs


@pytest.mark.parametrize(
    ("length", "noise", "count"),
    # 0.15 · 10 = 1.5 and 0.15 · 30 = 4.5 are halves: they round to the even neighbour.
    [(568, 85, 28), (141, 21, 7), (2, 1, 1), (3, 1, 1), (10, 2, 1), (30, 4, 1), (100, 15, 5)],
)
def test_span_counts(length, noise, count):
    assert spans.span_counts(length) == (noise, count)


@given(st.integers(3, 3000))
def test_raw_length_is_the_largest_that_fits(inputs):
    raw = spans.raw_length(inputs)
    fitting = [n for n in range(2, 2 * inputs + 2) if spans.input_length(n) <= inputs]
    assert raw == max(fitting)


@pytest.mark.parametrize("inputs", [512, 2**31 - 1])
@pytest.mark.parametrize("shares", [(0.15, 3.0), (0.999999, 1e9), (1 - 1e-16, 3.0)])
def test_no_length_takes_long_to_find(inputs, shares):
    length = spans.raw_length(inputs, shares)
    assert spans.input_length(length, shares) <= inputs <= length + 1


def test_too_short():
    with pytest.raises(ValueError, match="Received: length=1"):
        spans.span_counts(1)
    with pytest.raises(ValueError, match="Received: input_length=2"):
        spans.raw_length(2)


class Cuts:
    """A generator whose cuts are known: the gaps are the numbers given, one row a call."""

    def __init__(self, *gaps):
        self._gaps = list(gaps)

    def random(self, shape):
        gaps = np.array([self._gaps.pop(0)], float)
        assert gaps.shape == shape
        return gaps


def corrupt(tokens, rng, first_sentinel):
    """Corrupts one example."""
    inputs, targets = spans.corrupt_batch(tokens[None], rng, first_sentinel)
    return inputs[0], targets[0]


def test_corrupt_by_hand(monkeypatch):
    monkeypatch.setattr(spans, "span_counts", lambda length, shares: (4, 2))
    # 6 kept tokens are cut after the second (gap 1 of 5), 4 noise tokens after the third.
    rng = Cuts([0.9, 0.1, 0.9, 0.9, 0.9], [0.9, 0.9, 0.1])
    inputs, targets = corrupt(np.arange(10, 20), rng, 511)
    assert inputs.tolist() == [10, 11, 511, 15, 16, 17, 18, 510, 1]
    assert targets.tolist() == [511, 12, 13, 14, 510, 19, 1]
    assert inputs.dtype == targets.dtype == np.int32


def test_corrupt_one_span_by_hand():
    # 10 tokens: n = 2, s = 1. One span, and it ends the example: the other run comes first.
    inputs, targets = corrupt(np.arange(10, 20), np.random.default_rng(0), 99)
    assert inputs.tolist() == [10, 11, 12, 13, 14, 15, 16, 17, 99, 1]
    assert targets.tolist() == [99, 18, 19, 1]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(2, 700), st.integers(0, 2**32 - 1))
def test_spans_fit_into_the_places_of_their_sentinels(data, length, seed):
    size = data.draw(st.sampled_from([300, 512, 32_100, 100_000]))
    first_sentinel, lowest = size - 1, size - 100
    tokens = np.random.default_rng(seed).integers(3, lowest, length)
    inputs, targets = corrupt(tokens, np.random.default_rng(seed), first_sentinel)
    noise, count = spans.span_counts(length)
    assert inputs.shape == (length - noise + count + 1,)
    assert targets.shape == (noise + count + 1,)
    assert inputs[0] == tokens[0]  # a kept token comes first
    assert targets[0] == first_sentinel
    marks = list(range(first_sentinel, first_sentinel - count, -1))
    assert inputs[inputs >= lowest].tolist() == targets[targets >= lowest].tolist() == marks
    # No span is empty, and kept tokens lie between any two: sentinels never touch.
    assert (np.diff(np.flatnonzero(inputs >= lowest)) > 1).all()
    assert (np.diff(np.flatnonzero(np.append(targets[:-1], size) >= lowest)) > 1).all()
    assert restore(inputs.tolist(), targets.tolist(), first_sentinel, lowest) == tokens.tolist()


def test_a_batch_row_is_what_one_example_would_be():
    tokens = np.random.default_rng(0).integers(3, 400, (16, 141))
    inputs, targets = spans.corrupt_batch(tokens, np.random.default_rng(1), 511)
    for row, (left, right) in enumerate(zip(inputs, targets, strict=True)):
        assert restore(left.tolist(), right.tolist(), 511, 480) == tokens[row].tolist()
    assert len({tuple(np.flatnonzero(row >= 480)) for row in inputs}) == 16


def test_the_same_generator_state_gives_the_same_spans():
    tokens = np.random.default_rng(0).integers(3, 400, (4, 141), dtype=np.uint16)
    first = spans.corrupt_batch(tokens, np.random.default_rng([3, 7]), 511)
    again = spans.corrupt_batch(tokens, np.random.default_rng([3, 7]), 511)
    other = spans.corrupt_batch(tokens, np.random.default_rng([3, 8]), 511)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize(("items", "segments"), [(6, 3), (7, 2), (5, 5), (4, 1)])
def test_every_segmentation_is_equally_likely(items, segments):
    rows = 30_000
    lengths = spans.random_segmentation(items, segments, rows, np.random.default_rng(0))
    possible = [
        cut for cut in itertools.product(range(1, items + 1), repeat=segments) if sum(cut) == items
    ]
    assert len(possible) == math.comb(items - 1, segments - 1)
    counts = {cut: 0 for cut in possible}
    for cut in map(tuple, lengths.tolist()):
        counts[cut] += 1
    expected = rows / len(possible)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(possible) - 1
    # Mean and standard deviation of chi-square: at 5 of them no sound generator ends.
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom)
