"""The fusion operator: the array of a fused weight from the arrays of its sources (Eq. 3-5).

Each source's array is a block at its own offset along every growing axis. Two growing axes give
the block diagonal of Eq. 5, one gives a concatenation, none gives the mean. What no block covers
is η: zero, or noise. This module is the only place that knows; it works on numpy arrays, so a
fusion gives the same values on every backend, and it computes any region of a fused array from
the parts of the sources that the region covers.
"""

import functools
import itertools
import math

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.noise import Noise as Noise
from keras_fusion.noise import add_noise, check_balanced
from keras_fusion.regions import clipped, pieces, placed, region_of, region_shape, within

# Sources are read in pieces of this many values: no second array of a weight's size is made, and
# what was checked is still in the processor's cache when it is copied.
_CHUNK = 1 << 18
_NO_SIGN = np.uint16(0x7FFF)


def fused_shape(shapes, axes, grow):
    """Shape of the fused array.

    Args:
        shapes: The sources' shapes.
        axes: The `Axes` of the weight.
        grow: Names of the axes that grow, or `{name: Layout}`.

    Raises:
        FusionError: Shapes differ in rank, or along an axis that does not grow.
    """
    return tuple(layout.size for layout in axes.layouts(grow, shapes))


class FusedArray:
    """A fused weight that is computed where it is read (Eq. 3-5).

    An index computes that region, from the parts of the sources that it covers: without noise a
    region inside one source's block reads no other source. The values do not depend on how the
    array is cut. `np.asarray` of it is the whole.

    Args:
        arrays: The sources' arrays of one weight, n ≥ 2, all of one dtype, which is kept. Anything
            with `shape`, `dtype` and slicing: numpy arrays, memory-mapped files, `FusedArray`s.
        axes: The weight's `Axes`.
        grow: Names of the axes that grow, or `{name: Layout}` where the blocks are no plain runs.
        noise: A `Noise` for η; default none. Its deviation is relative to all values of all
            sources, so the first region that is asked for reads them once.
        path: The weight's name; with the noise's seed it determines the draw.
        factors: Optional, one number for each source that its block is multiplied by, besides
            AVG's weight.
        weights: Optional, the weight of each source in the average; default 1/n.
        shares: Optional, for equal sources, numbers that add up to 1: every block holds a copy,
            those of an input axis multiplied by the share of the source that they read (LEMON's
            and HyperCloning's growth), in place of Eq. 5's diagonal.

    Raises:
        FusionError: Shapes or dtypes that do not fit together; balanced noise over blocks of
            unequal widths. When a region is read: NaN or infinite values in what it covers; no
            axis grows and the weight's mean would not compute the mean of the outputs.

    Examples:
        >>> axes = Axes(("in", "out"), sums=("in",))
        >>> fused = FusedArray([np.ones((1, 2)), 2 * np.ones((1, 2))], axes, {"in", "out"})
        >>> fused.shape, fused[:, 2:]
        ((2, 4), array([[0., 0.],
               [2., 2.]]))
    """

    def __init__(
        self, arrays, axes, grow, noise=None, path="", factors=None, weights=None, shares=None
    ):
        self.path = path
        self._arrays = tuple(arrays)
        self._axes, self._grow = axes, grow
        self._noise = noise or Noise()
        self._check_sources()
        shapes = [tuple(array.shape) for array in self._arrays]
        self._layouts = axes.layouts(grow, shapes)
        self.shape = tuple(layout.size for layout in self._layouts)
        if self._noise.scale and self._noise.kind == "balanced":
            check_balanced(
                {
                    name: layout.widths
                    for name, layout in zip(axes.names, self._layouts, strict=True)
                    if layout.grows
                },
                axes,
                path,
            )
        self.dtype = np.dtype(self._arrays[0].dtype)
        self._weights = weights or [1 / len(shapes)] * len(shapes)
        self._averages = axes.averages_here(grow)
        self._factors = list(factors or [1.0] * len(shapes))
        self._shares = shares

    def with_noise(self, noise):
        """The same array with noise in η."""
        return FusedArray(
            self._arrays,
            self._axes,
            self._grow,
            noise,
            self.path,
            self._factors,
            self._weights,
            self._shares,
        )

    @property
    def axes(self):
        """The weight's `Axes`."""
        return self._axes

    @property
    def layouts(self):
        """`Layout` of each dimension."""
        return self._layouts

    @property
    def grow(self):
        """Axes that grow, as they were given."""
        return self._grow

    @property
    def averages(self):
        """True where the sources' values are averaged (AVG)."""
        return self._averages

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    def __repr__(self):
        return f"<FusedArray {self.path} {self.shape} {self.dtype} of {len(self._arrays)}>"

    def __array__(self, dtype=None, copy=None):
        del copy  # Every read makes a new array.
        return self[...] if dtype is None else self[...].astype(dtype, copy=False)

    def __getitem__(self, index):
        region = region_of(index, self.shape)
        # numpy's zeros are pages that the system hands out untouched: η costs no write.
        values = np.zeros(region_shape(region), self.dtype)
        if self._shares is not None:
            for factor, target, origin in self._copied_parts(region):
                self._copy(values[within(target, region)], 0, origin, factor)
        else:
            for source in range(len(self._arrays)):
                for target, origin in self._own_parts(source, region):
                    self._copy(values[within(target, region)], source, origin)
        for target, origins in self._shared_parts(region):
            for piece in pieces(target, _CHUNK):
                values[within(piece, region)] = self._mean(
                    [placed(within(piece, target), origin) for origin in origins]
                )
        if self._noise.scale:
            add_noise(
                values, region, self._layouts, self._axes, self._noise, self._deviation, self.path
            )
        return values

    def _own_parts(self, source, region):
        """Rectangles of a region that belong to one source: where, and where in the source."""
        kinds = [
            [
                (parts, own)
                for own, runs in ((True, layout.own[source]), (False, layout.shared[source]))
                for parts in clipped(runs, frame)
            ]
            for layout, frame in zip(self._layouts, region, strict=True)
        ]
        for choice in itertools.product(*kinds):
            if any(own for _, own in choice):
                yield (
                    tuple(target for (target, _), _ in choice),
                    tuple(origin for (_, origin), _ in choice),
                )

    def _copied_parts(self, region):
        """Rectangles of a region in a fusion of equal sources whose blocks all hold copies.

        Yields:
            The copy's factor, the rectangle, and where it lies in the source.
        """
        keys = [[*enumerate(layout.own), (None, layout.shared[0])] for layout in self._layouts]
        for choice in itertools.product(*keys):
            summed, outputs = [], set()
            for name, (source, _) in zip(self._axes.names, choice, strict=True):
                if source is not None and name in self._axes.sums:
                    summed.append(source)
                elif source is not None:
                    outputs.add(source)
            if len(outputs) > 1 or not (summed or outputs):
                continue
            factor = math.prod(self._shares[source] for source in summed)
            for parts in itertools.product(
                *(clipped(runs, frame) for (_, runs), frame in zip(choice, region, strict=True))
            ):
                yield factor, tuple(part[0] for part in parts), tuple(part[1] for part in parts)

    def _shared_parts(self, region):
        """Rectangles of a region that all sources have: where, and where in each source."""
        parts = [
            list(
                zip(
                    *(
                        list(clipped(layout.shared[source], frame))
                        for source in range(len(self._arrays))
                    ),
                    strict=True,
                )
            )
            for layout, frame in zip(self._layouts, region, strict=True)
        ]
        for choice in itertools.product(*parts):
            yield (
                tuple(sources[0][0] for sources in choice),
                [
                    tuple(sources[source][1] for sources in choice)
                    for source in range(len(self._arrays))
                ],
            )

    def _copy(self, block, source, region, share=None):
        """block[...] = that region of the source, times its factor, and its share or weight."""
        factor = self._factors[source]
        if share is not None:
            factor *= share
        elif self._averages:
            factor *= self._weights[source]
        for piece in pieces(region, _CHUNK):
            part = block[within(piece, region)]
            _write(part, self._read(source, piece), factor)
            if factor > 1 and count_not_finite(part):
                raise FusionError(
                    f"weight `{self.path}` of source {source} times {factor:.4g} is too large for "
                    f"{self.dtype.name}; load the sources in another dtype"
                )

    def _read(self, source, region):
        """That region of a source's array, once it is known to hold numbers only."""
        values = np.asarray(self._arrays[source][region])
        bad = count_not_finite(values)
        if bad:
            raise FusionError(
                f"weight `{self.path}` of source {source} holds {bad} NaN or infinite values"
            )
        return values

    def _mean(self, regions):
        """The weighted mean of the sources, which is exact where they are equal."""
        if all(array is self._arrays[0] for array in self._arrays):
            return self._read(0, regions[0])
        parts = [self._read(source, region) for source, region in enumerate(regions)]
        first = parts[0]
        equal = np.logical_and.reduce([first == part for part in parts[1:]])
        if np.all(equal):
            return first
        if not self._axes.averages:
            raise FusionError(
                f"{self.path or 'this weight'} has no growing axis and does not average, so it "
                "must be equal in every source; fuse networks that share it"
            )
        wide = np.float64 if first.dtype.itemsize >= 8 else np.float32
        total = sum(
            part.astype(wide) * wide(weight)
            for part, weight in zip(parts, self._weights, strict=True)
        )
        return np.where(equal, first, total.astype(first.dtype))

    def _deviation(self):
        """The standard deviation of the noise."""
        scale = self._noise.scale * self._size_of_values
        return scale / len(self._arrays) if self._averages else scale

    @functools.cached_property
    def _size_of_values(self):
        size = root_mean_square(self._arrays)
        if not np.isfinite(size):
            raise FusionError(f"weight `{self.path}` of a source holds NaN or infinite values")
        return size

    def _check_sources(self):
        name = self.path or "this weight"
        if len(self._arrays) < 2:
            raise FusionError(
                f"fusing {name} takes at least two sources. Received: {len(self._arrays)}"
            )
        dtypes = [np.dtype(array.dtype).name for array in self._arrays]
        if len(set(dtypes)) > 1:
            raise FusionError(f"the sources of {name} must share one dtype. Received: {dtypes}")


def unequal_shares(num_sources, asymmetry=0.0):
    """Shares of copies that add up to 1, as unequal as is asked for.

    Unequal shares keep the function of equal copies, and send them gradients of unequal size, so
    that they part without noise.

    Args:
        num_sources: Number of copies.
        asymmetry: Largest deviation of a share from 1/n, over 1/n; 0 for equal ones.

    Raises:
        FusionError: An asymmetry outside [0, 1).

    Examples:
        >>> unequal_shares(2, 0.1)
        (0.45, 0.55)
    """
    if not 0 <= asymmetry < 1:
        raise FusionError(
            f"asymmetry must be at least 0 and below 1. Received: asymmetry={asymmetry}"
        )
    deviations = np.linspace(-asymmetry, asymmetry, num_sources)
    return tuple(float(share) for share in (1 + deviations) / num_sources)


def fuse_arrays(arrays, axes, grow, **options):
    """Places the sources' arrays as blocks of one array (Eq. 3-5): all of a `FusedArray`.

    Takes the arguments of `FusedArray`.

    Returns:
        A new numpy array.

    Raises:
        FusionError: As `FusedArray`, and where a source holds NaN or infinite values.

    Examples:
        >>> axes = Axes(("in", "out"), sums=("in",))
        >>> fuse_arrays([np.ones((1, 1)), 2 * np.ones((1, 1))], axes, {"in", "out"})
        array([[1., 0.],
               [0., 2.]])
    """
    arrays = [np.asarray(array) for array in arrays]
    return FusedArray(arrays, axes, grow, **options)[...]


def _write(block, array, factor):
    """block[...] = array · factor, rounding once where the dtype is a small one."""
    if factor == 1.0:
        np.copyto(block, array)
    elif array.dtype.itemsize >= 4:
        np.multiply(array, np.asarray(factor, array.dtype), out=block)
    else:
        with np.errstate(over="ignore"):  # What a factor above one does is checked.
            np.copyto(block, (array.astype(np.float32) * np.float32(factor)).astype(array.dtype))


def count_not_finite(array):
    """Number of entries of an array that are NaN or infinite.

    A sum is not finite where an entry is not, and one pass over the memory finds it; only then
    the entries are counted, since a sum may also overflow. Floats of two bytes would have to be
    converted for that: their bits say it, which are at least those of infinity, without the sign.
    """
    array = np.asarray(array)
    if array.dtype.itemsize == 2 and array.dtype.kind not in "iu":
        infinity = np.array(np.inf, array.dtype).view(np.uint16)
        if np.max(array.view(np.uint16) & _NO_SIGN, initial=0) < infinity:
            return 0
    wide = np.float64 if array.dtype.itemsize >= 8 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=wide)
    if np.isfinite(total):
        return 0
    return int(array.size - np.count_nonzero(np.isfinite(array.astype(wide))))


def root_mean_square(arrays):
    """The root mean square over all entries of several arrays, in double precision."""
    squares = sum(
        float(np.sum(np.square(np.asarray(array[piece]), dtype=np.float64)))
        for array in arrays
        for piece in pieces(region_of(..., array.shape), _CHUNK)
    )
    return (squares / max(1, sum(math.prod(array.shape) for array in arrays))) ** 0.5
