"""Rectangular regions of arrays: their overlaps, and the pieces to process them in.

A region is a tuple with one slice per dimension, of step 1, both ends written out.
"""

import itertools
import math


def region_of(index, shape):
    """Returns the region that an index means in an array of a shape.

    Args:
        index: A slice, an Ellipsis, or a tuple of them, as in `array[index]`.
        shape: The array's shape.

    Raises:
        IndexError: An index of another kind, a step, or more slices than dimensions.

    Examples:
        >>> region_of((Ellipsis, slice(-2, None)), (4, 8))
        (slice(0, 4, None), slice(6, 8, None))
    """
    parts = index if isinstance(index, tuple) else (index,)
    gap = next((place for place, part in enumerate(parts) if part is Ellipsis), len(parts))
    before, after = parts[:gap], parts[gap + 1 :]
    slices = (*before, *[slice(None)] * (len(shape) - len(before) - len(after)), *after)
    if len(slices) != len(shape) or not all(
        isinstance(part, slice) and part.step in (None, 1) for part in slices
    ):
        raise IndexError(
            f"a region of shape {tuple(shape)} is given by slices of step 1 and one Ellipsis. "
            f"Received: index={index}"
        )
    ends = [part.indices(size) for part, size in zip(slices, shape, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop, _ in ends)


def region_shape(region):
    """The shape of what a region covers."""
    return tuple(part.stop - part.start for part in region)


def clipped(runs, target=None, source=None):
    """Parts of runs inside a slice of the fused dimension, and one of the source's.

    Args:
        runs: `keras_fusion.layouts.Run`s.
        target, source: Slices; None for everything.

    Yields:
        A slice of the fused dimension and the slice of the source that lies there.

    Examples:
        >>> list(clipped([Run(target=4, source=0, length=3)], slice(5, 9)))
        [(slice(5, 7, None), slice(1, 3, None))]
    """
    for run in runs:
        first, last = 0, run.length
        for frame, start in ((target, run.target), (source, run.source)):
            if frame is not None:
                first, last = max(first, frame.start - start), min(last, frame.stop - start)
        if first < last:
            yield (
                slice(run.target + first, run.target + last),
                slice(run.source + first, run.source + last),
            )


def within(region, frame):
    """Returns a region's place inside another region that holds it."""
    return tuple(
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(region, frame, strict=True)
    )


def placed(region, frame):
    """Returns the region of the whole array at `region` inside `frame`; undoes `within`."""
    return tuple(
        slice(part.start + outer.start, part.stop + outer.start)
        for part, outer in zip(region, frame, strict=True)
    )


def pieces(region, most):
    """Cuts a region along its first dimension into pieces of at most `most` entries, or one row."""
    if not region:
        yield region
        return
    first, *rest = region
    rows = max(1, most // max(1, math.prod(region_shape(rest))))
    for start in range(first.start, first.stop, rows):
        yield (slice(start, min(start + rows, first.stop)), *rest)


def tiles(shape, side):
    """Cuts an array into tiles: squares of its last two dimensions, one deep in the others.

    Yields:
        The tile's number along every dimension, and its region.
    """
    sides = [1] * max(0, len(shape) - 2) + [side] * min(2, len(shape))
    counts = [range(-(-size // length)) for size, length in zip(shape, sides, strict=True)]
    for numbers in itertools.product(*counts):
        yield (
            numbers,
            tuple(
                slice(number * length, min((number + 1) * length, size))
                for number, length, size in zip(numbers, sides, shape, strict=True)
            ),
        )
