"""Regions against what numpy's own indexing does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_fusion.layouts import Run
from keras_fusion.regions import clipped, pieces, placed, region_of, region_shape, tiles, within

properties = settings(max_examples=60, deadline=None, derandomize=True)
shapes = st.lists(st.integers(0, 6), min_size=0, max_size=3).map(tuple)
ends = st.one_of(st.none(), st.integers(-8, 8))
slices = st.builds(slice, ends, ends, st.sampled_from([None, 1]))


@st.composite
def regions(draw, shape):
    starts = [draw(st.integers(0, size)) for size in shape]
    stops = [draw(st.integers(start, size)) for start, size in zip(starts, shape, strict=True)]
    return tuple(slice(*ends) for ends in zip(starts, stops, strict=True))


@st.composite
def indices(draw):
    shape = draw(shapes)
    index = draw(st.lists(slices, max_size=len(shape)))
    if draw(st.booleans()):
        index.insert(draw(st.integers(0, len(index))), ...)
    return shape, tuple(index)


@properties
@given(indices())
def test_a_region_is_what_numpy_takes(case):
    shape, index = case
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    region = region_of(index, shape)
    np.testing.assert_array_equal(array[region], array[index])
    assert region_shape(region) == array[index].shape
    assert all(0 <= part.start <= part.stop for part in region)


def test_an_index_need_not_be_a_tuple():
    assert region_of(..., (2, 3)) == (slice(0, 2), slice(0, 3))
    assert region_of(slice(1, None), (2, 3)) == (slice(1, 2), slice(0, 3))


@pytest.mark.parametrize(
    "index", [0, (slice(None, None, 2),), (slice(None),) * 3, None, np.array([True, False])]
)
def test_other_indices_are_refused(index):
    with pytest.raises(IndexError, match=r"shape \(2, 3\) .*slices of step 1"):
        region_of(index, (2, 3))


@properties
@given(st.data())
def test_within_and_placed(data):
    shape = data.draw(shapes)
    frame = data.draw(regions(shape))
    inner = data.draw(regions(region_shape(frame)))
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    whole = placed(inner, frame)
    np.testing.assert_array_equal(array[whole], array[frame][inner])
    assert within(whole, frame) == inner


@properties
@given(st.data())
def test_clipped_runs_are_what_copying_the_runs_and_slicing_gives(data):
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    gaps = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    source = np.arange(1, sum(lengths) + 1)
    runs, target, origin = [], 0, 0
    for length, gap in zip(lengths, gaps, strict=True):
        runs.append(Run(target + gap, origin, length))
        target, origin = target + gap + length, origin + length
    whole = np.zeros(target, int)
    for run in runs:
        whole[run.target : run.target + run.length] = source[run.source : run.source + run.length]
    (frame,), (part,) = data.draw(regions((target,))), data.draw(regions((origin,)))
    rebuilt, expected = np.zeros_like(whole), np.zeros_like(whole)
    for there, here in clipped(runs, frame, part):
        rebuilt[there] = source[here]
    inside = np.isin(whole[frame], source[part])
    expected[frame] = np.where(inside, whole[frame], 0)
    np.testing.assert_array_equal(rebuilt, expected)


@properties
@given(st.data(), st.integers(1, 20))
def test_pieces_cover_a_region_once(data, most):
    shape = data.draw(shapes)
    region = data.draw(regions(shape))
    counts = np.zeros(shape, int)
    for piece in pieces(region, most):
        counts[piece] += 1
        rows = region_shape(piece)[:1]
        assert np.prod(region_shape(piece)) <= most or rows == (1,)
    expected = np.zeros(shape, int)
    expected[region] = 1
    np.testing.assert_array_equal(counts, expected)


@properties
@given(shapes, st.integers(1, 4))
def test_tiles_cover_an_array_once(shape, side):
    counts, numbers = np.zeros(shape, int), []
    for number, tile in tiles(shape, side):
        counts[tile] += 1
        numbers.append(number)
        assert all(size <= side for size in region_shape(tile))
    assert (counts == 1).all()
    assert len(set(numbers)) == len(numbers)
