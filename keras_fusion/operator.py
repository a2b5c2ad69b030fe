"""The fusion operator: the array of a fused weight from the arrays of its sources (Eq. 3-5).

Each source's array is a block at its own offset along every growing axis. Two growing axes give
the block diagonal of Eq. 5, one gives a concatenation, none gives the mean. What no block covers
is η: zero, or noise. This module is the only place that knows; it works on numpy arrays, so a
fusion gives the same values on every backend.
"""

import dataclasses
import itertools
import zlib

import numpy as np

from keras_fusion.errors import FusionError

# Noise is drawn in pieces of this many values, so that no second array of a weight's size is made.
_CHUNK = 1 << 20

NOISE_KINDS = ("gaussian", "balanced")


@dataclasses.dataclass(frozen=True)
class Noise:
    """What fills η, the part of a fused weight that comes from no source.

    Args:
        scale: Standard deviation over the root mean square of the sources' weight. 0 leaves η
            zero, as Eq. 5 has it.
        kind: `"gaussian"` draws for the zero blocks only (the paper's "low variance", section
            5.1). `"balanced"` draws for every block and makes the noise of the n input blocks
            sum to zero for every output: where the sources are equal, so are the n inputs, and
            the function is exactly kept while the copies come apart.
        seed: Seed of the draw. A weight's noise depends on this and on its path alone.

    Raises:
        ValueError: An unknown kind, or a negative or infinite scale.
    """

    scale: float = 0.0
    kind: str = "gaussian"
    seed: int = 0

    def __post_init__(self):
        if self.kind not in NOISE_KINDS:
            raise ValueError(f"noise_kind must be one of {NOISE_KINDS}. Received: {self.kind!r}")
        if not (np.isfinite(self.scale) and self.scale >= 0):
            raise ValueError(f"noise must be finite and at least 0. Received: noise={self.scale}")

    def generator(self, path):
        """A generator that depends on the seed and on the weight's path."""
        entropy = [self.seed & 0xFFFFFFFF, zlib.crc32(path.encode())]
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def fused_shape(shapes, axes, grow):
    """The shape of the fused array.

    Args:
        shapes: The sources' shapes.
        axes: The `Axes` of the weight.
        grow: The names of the axes that grow.

    Raises:
        FusionError: Shapes differ in rank, or along an axis that does not grow.
    """
    if any(len(shape) != len(axes.names) for shape in shapes):
        raise FusionError(
            f"a weight with axes {axes.names} needs that many dimensions. "
            f"Received: shapes={[tuple(s) for s in shapes]}"
        )
    fused = []
    for name, sizes in zip(axes.names, zip(*shapes, strict=True), strict=True):
        if name in grow:
            fused.append(sum(sizes))
        elif len(set(sizes)) == 1:
            fused.append(sizes[0])
        else:
            raise FusionError(
                f"axis `{name}` does not grow, so its size must be the same in "
                f"every source. Received: sizes={tuple(sizes)}"
            )
    return tuple(fused)


def block_widths(shapes, axes, grow):
    """`{axis: widths}`, one width per source, for the growing axes of a weight."""
    return {
        name: tuple(shape[dim] for shape in shapes)
        for dim, name in enumerate(axes.names)
        if name in grow
    }


def uneven_inputs(widths, axes):
    """The axes of `widths` that a weight sums over and whose blocks differ in width.

    Balanced noise sums to zero over the blocks of an input axis, so it needs equal ones.
    """
    return {name: each for name, each in widths.items() if name in axes.sums and len(set(each)) > 1}


def fuse_arrays(arrays, axes, grow, *, noise=None, path="", factors=None):
    """Places the sources' arrays as blocks of one array (Eq. 3-5).

    Args:
        arrays: The sources' arrays of one weight, n ≥ 2, all of one dtype, which is kept.
        axes: The weight's `Axes`.
        grow: The names of the axes that grow.
        noise: A `Noise` for η; default none.
        path: The weight's name; with the noise's seed it determines the draw.
        factors: Optional, one number per source that its block is multiplied by, besides the
            1/n of AVG.

    Returns:
        A new numpy array.

    Raises:
        FusionError: Shapes or dtypes that do not fit together; no axis grows and the weight's
            mean would not compute the mean of the outputs; balanced noise over blocks of unequal
            widths.

    Example:
        >>> axes = Axes(("in", "out"), sums=("in",))
        >>> fuse_arrays([np.ones((1, 1)), 2 * np.ones((1, 1))], axes, {"in", "out"})
        array([[1., 0.],
               [0., 2.]])
    """
    noise = noise or Noise()
    arrays = [np.asarray(array) for array in arrays]
    _check_arrays(arrays, axes, grow, path)
    shapes = [array.shape for array in arrays]
    # numpy's zeros are pages that the system hands out untouched: η costs no write.
    fused = np.zeros(fused_shape(shapes, axes, grow), arrays[0].dtype)
    divisor = axes.divisor(grow, len(arrays))
    positions = axes.slices(fused.shape, block_widths(shapes, axes, grow)) or (
        [tuple(slice(0, size) for size in fused.shape)] * len(arrays)
    )
    if axes.growing(grow):
        for index, (array, position) in enumerate(zip(arrays, positions, strict=True)):
            factor = (factors[index] if factors is not None else 1.0) / divisor
            _write(fused[position], array, factor)
    else:
        _write(fused, _mean(arrays), 1.0)
    if noise.scale:
        _add_noise(fused, arrays, axes, grow, noise, path, divisor)
    return fused


def _check_arrays(arrays, axes, grow, path):
    name = path or "this weight"
    if len(arrays) < 2:
        raise FusionError(f"fusing {name} takes at least two sources. Received: {len(arrays)}")
    dtypes = [array.dtype.name for array in arrays]
    if len(set(dtypes)) > 1:
        raise FusionError(f"the sources of {name} must share one dtype. Received: {dtypes}")
    if axes.growing(grow) or axes.averages:
        return
    if not all(np.array_equal(arrays[0], array) for array in arrays[1:]):
        raise FusionError(
            f"{name} has no growing axis and does not average, so it must be equal "
            "in every source; fuse networks that share it"
        )


def _write(block, array, factor):
    """block[...] = array · factor, rounding once where the dtype is a small one."""
    if factor == 1.0:
        np.copyto(block, array)
    elif array.dtype.itemsize >= 4:
        np.multiply(array, np.asarray(factor, array.dtype), out=block)
    else:
        np.copyto(block, (array.astype(np.float32) * np.float32(factor)).astype(array.dtype))


def _mean(arrays):
    wide = np.float64 if arrays[0].dtype.itemsize >= 8 else np.float32
    if all(np.array_equal(arrays[0], array) for array in arrays[1:]):
        return arrays[0]
    total = arrays[0].astype(wide)
    for array in arrays[1:]:
        total += array
    return (total / len(arrays)).astype(arrays[0].dtype)


def root_mean_square(arrays):
    """The root mean square over all entries of several arrays, in double precision."""
    squares = sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays)
    return (squares / max(1, sum(array.size for array in arrays))) ** 0.5


def _add_noise(fused, arrays, axes, grow, noise, path, divisor):
    growing = axes.growing(grow)
    widths = block_widths([array.shape for array in arrays], axes, grow)
    deviation = noise.scale * root_mean_square(arrays) / divisor
    generator = noise.generator(path)
    if noise.kind == "balanced":
        summed = [name for name in growing if name in axes.sums]
        if summed:
            _add_balanced(fused, axes, widths, summed, deviation, generator, path)
        return
    for choice in itertools.product(range(len(arrays)), repeat=len(growing)):
        if len(set(choice)) > 1:
            block = fused[
                _block(axes, fused.shape, widths, dict(zip(growing, choice, strict=True)))
            ]
            _add_gaussian(block, deviation, generator)


def _block(axes, shape, widths, choice):
    """The slices of one block: for every growing axis the source that `choice` names."""
    positions = axes.slices(shape, widths)
    return tuple(positions[choice.get(name, 0)][dim] for dim, name in enumerate(axes.names))


def _rows_per_chunk(block):
    return max(1, _CHUNK // max(1, int(np.prod(block.shape[1:], dtype=np.int64))))


def _add_gaussian(block, deviation, generator):
    rows = _rows_per_chunk(block)
    for start in range(0, block.shape[0], rows):
        part = block[start : start + rows]
        draw = generator.standard_normal(part.shape, dtype=np.float32) * np.float32(deviation)
        part += draw.astype(part.dtype)


def _add_balanced(fused, axes, widths, summed, deviation, generator, path):
    """Adds noise whose sum over the input blocks is zero, for every output block.

    n draws less their mean have variance (n − 1)/n each; scaling them back by √(n/(n − 1)) gives
    each block the standard deviation asked for.
    """
    uneven = list(uneven_inputs(widths, axes))
    if uneven:
        raise FusionError(
            f"balanced noise needs input blocks of equal width, in {path or 'weight'}"
            f". Received: axis `{uneven[0]}` with widths={widths[uneven[0]]}; use "
            "noise_kind='gaussian'"
        )
    num_sources = len(widths[summed[0]])
    outputs = [name for name in widths if name not in summed]
    choices = list(itertools.product(range(num_sources), repeat=len(summed)))
    scale = np.float32(deviation * (len(choices) / (len(choices) - 1)) ** 0.5)
    for output in itertools.product(range(num_sources), repeat=len(outputs)):
        chosen = dict(zip(outputs, output, strict=True))
        blocks = [
            fused[
                _block(axes, fused.shape, widths, chosen | dict(zip(summed, choice, strict=True)))
            ]
            for choice in choices
        ]
        rows = max(1, _rows_per_chunk(blocks[0]) // len(blocks))
        for start in range(0, blocks[0].shape[0], rows):
            parts = [block[start : start + rows] for block in blocks]
            draws = generator.standard_normal((len(parts), *parts[0].shape), dtype=np.float32)
            draws -= draws.mean(axis=0)
            draws *= scale
            draws[-1] = -draws[:-1].sum(axis=0)
            for part, draw in zip(parts, draws, strict=True):
                part += draw.astype(part.dtype)
