"""Arrays whose parts lie in the files of several hosts, read as if each were one.

    training-00001-of-00002.safetensors   optimizer/iteration[]   optimizer/…/kernel/m[0,0]
    training-00002-of-00002.safetensors                           optimizer/…/kernel/m[0,128]

The name of a part says where it begins; its shape says where it ends.
"""

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from keras_fusion.regions import region_of, region_shape, within
from trainers.engines.state import parse_part_name

Starts = tuple[int, ...]


class SplitArray:
    """An array in parts that form a grid; only what an index covers is read.

    Args:
        parts: where each begins → the part.

    Raises:
        ValueError: parts that leave a gap, overlap, or are of several dtypes.

    Example:
        >>> array = SplitArray({(0,): np.arange(2), (2,): np.arange(3)})
        >>> array.shape, array[1:4]
        ((5,), array([1, 0, 1]))
    """

    def __init__(self, parts: Mapping[Starts, np.ndarray]):
        self.dtype = next(iter(parts.values())).dtype
        # Where parts begin along each dimension, and in the end where the array ends.
        starts = [sorted(set(side)) for side in zip(*parts, strict=True)]
        last = parts.get(tuple(side[-1] for side in starts))
        if last is None or any(side[0] for side in starts):
            raise ValueError("parts of which the first or the last is missing")
        if len(parts) != math.prod(map(len, starts)):
            raise ValueError("parts that leave a gap")
        bounds = [(*side, side[-1] + size) for side, size in zip(starts, last.shape, strict=True)]
        ends = [dict(itertools.pairwise(side)) for side in bounds]
        self.shape = tuple(side[-1] for side in bounds)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self._parts = []
        for start, part in parts.items():
            region = tuple(slice(a, end[a]) for a, end in zip(start, ends, strict=True))
            if part.shape != region_shape(region) or part.dtype != self.dtype:
                raise ValueError("parts that do not fit together")
            self._parts.append((region, part))

    def __getitem__(self, index) -> np.ndarray:
        region = region_of(index, self.shape)
        result = np.empty(region_shape(region), self.dtype)
        for frame, part in self._parts:
            common = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(region, frame, strict=True)
            )
            if all(side.start < side.stop for side in common):
                result[within(common, region)] = part[within(common, frame)]
        return result

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        del copy  # There is no array yet to be shared.
        return np.asarray(self[...], dtype)


def joined(files: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray | SplitArray]:
    """Returns the arrays whose parts are in several files, by name.

    Raises:
        ValueError: names that are not of parts, a part that is there twice, or parts that do not
            make an array. The message continues "a checkpoint with …".
    """
    parts: dict[str, dict[Starts, np.ndarray]] = {}
    for file in files:
        for text, part in file.items():
            name, starts = parse_part_name(text)
            if starts in parts.setdefault(name, {}) or len(starts) != part.ndim:
                raise ValueError(f"{text!r:.80} twice, or of another rank")
            parts[name][starts] = part
    return {name: _whole(name, of_array) for name, of_array in parts.items()}


def _whole(name: str, parts: Mapping[Starts, np.ndarray]) -> np.ndarray | SplitArray:
    try:
        array = SplitArray(parts)
    except ValueError as error:
        raise ValueError(f"{name!r:.80} in {error}") from None
    return next(iter(parts.values())) if len(parts) == 1 else array
