"""Noise for η, the part of a fused weight that comes from no source.

It is drawn in tiles, each from a generator of its own, so it does not depend on how an array is
cut: a region draws the tiles that it touches, and needs the memory of one at a time.
"""

import dataclasses
import itertools
import zlib
from numbers import Integral, Real

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.layouts import Run
from keras_fusion.regions import clipped, region_shape, tiles, within

NOISE_KINDS = ("gaussian", "balanced")

# Rows and columns of a tile: large enough to draw fast, small beside any shard of a weight.
_TILE = 512


@dataclasses.dataclass(frozen=True)
class Noise:
    """Distribution of η, the part of a fused weight that comes from no source.

    Args:
        scale: Standard deviation over the root mean square of the sources' weight. 0 leaves η
            zero, as Eq. 5 has it.
        kind: `"gaussian"` draws for the zero blocks only (the paper's "low variance", section
            5.1). `"balanced"` draws for every block and makes the noise of the n input blocks
            sum to zero for every output: where the sources are equal, so are the n inputs, and
            the function is exactly kept while the copies diverge.
        seed: Seed of the draw. A weight's noise depends on this and on its path alone.

    Raises:
        FusionError: An unknown kind; a scale that is no number, negative or infinite; a seed that
            is no integer.
    """

    scale: float = 0.0
    kind: str = "gaussian"
    seed: int = 0

    @property
    def keeps_copies(self):
        """True where a network that is fused with itself keeps its function."""
        return not self.scale or self.kind == "balanced"

    def __post_init__(self):
        if self.kind not in NOISE_KINDS:
            raise FusionError(
                f"noise_kind must be one of {NOISE_KINDS}. Received: noise_kind={self.kind!r}"
            )
        is_number = isinstance(self.scale, Real)
        if not (is_number and np.isfinite(self.scale) and self.scale >= 0):
            raise FusionError(
                f"noise must be a finite number of at least 0. Received: noise={self.scale!r}"
            )

        if not isinstance(self.seed, Integral):
            raise FusionError(f"seed must be an integer. Received: seed={self.seed!r}")

    def generator(self, path, where=()):
        """Returns a generator for a seed, a weight's path, and the numbers of a tile."""
        entropy = [self.seed & 0xFFFFFFFF, zlib.crc32(path.encode())]
        return np.random.Generator(
            np.random.SFC64(np.random.SeedSequence(entropy, spawn_key=where))
        )


def uneven_inputs(widths, axes):
    """Axes of `widths` that a weight sums over and whose blocks differ in width.

    Balanced noise sums to zero over the blocks of an input axis, so it needs equal ones.
    """
    return {
        name: sizes for name, sizes in widths.items() if name in axes.sums and len(set(sizes)) > 1
    }


def check_balanced(widths, axes, path):
    """Raises a `FusionError` where balanced noise has input blocks of unequal widths."""
    for name, sizes in uneven_inputs(widths, axes).items():
        raise FusionError(
            f"balanced noise needs input blocks of equal width, in {path or 'weight'}. "
            f"Received: axis `{name}` with widths={sizes}; use noise_kind='gaussian'"
        )


def add_noise(values, region, layouts, axes, noise, deviation, path):
    """Adds the noise of a region of a fused array.

    Args:
        values: The region's values, changed in place.
        region: The part of the fused array that they are.
        layouts: `Layout` of each dimension of the fused array.
        axes: The weight's `Axes`.
        noise: A `Noise`.
        deviation: Returns the standard deviation of each entry; called where any is drawn.
        path: The weight's name.
    """
    for key, group in _groups(layouts, axes, noise.kind):
        shape = [sum(run.length for run in runs) for runs in group[0]]
        for numbers, tile in tiles(shape, _TILE):
            parts = [list(_parts(block, tile, region)) for block in group]
            if not any(parts):
                continue
            generator = noise.generator(path, (*key, *numbers))
            draws = _draw(generator, len(group), region_shape(tile), deviation())
            for draw, pairs in zip(draws, parts, strict=True):
                for target, source in pairs:
                    entries = values[within(target, region)]
                    entries += draw[within(source, tile)].astype(values.dtype)


def _groups(layouts, axes, kind):
    """Blocks whose noise is drawn together: (key, blocks), where there is noise of a kind.

    A block takes each dimension that grows from one source; it is given by its runs along each
    dimension, whose sources count through the block.
    """
    growing = [dim for dim, layout in enumerate(layouts) if layout.grows]
    if not growing:
        return
    sources = range(len(layouts[growing[0]].sizes))
    if kind == "gaussian":
        for choice in itertools.product(sources, repeat=len(growing)):
            if len(set(choice)) > 1:
                yield choice, [_block(layouts, dict(zip(growing, choice, strict=True)))]
        return
    summed = [dim for dim in growing if axes.names[dim] in axes.sums]
    outputs = [dim for dim in growing if dim not in summed]
    if not summed:
        return
    for key in itertools.product(sources, repeat=len(outputs)):
        output = dict(zip(outputs, key, strict=True))
        yield (
            key,
            [
                _block(layouts, output | dict(zip(summed, choice, strict=True)))
                for choice in itertools.product(sources, repeat=len(summed))
            ],
        )


def _block(layouts, choice):
    """Runs of a block along every dimension, numbered through from the block's first entry."""
    block = []
    for dim, layout in enumerate(layouts):
        start, runs = 0, []
        for run in layout.own[choice[dim]] if dim in choice else layout.shared[0]:
            runs.append(Run(run.target, start, run.length))
            start += run.length
        block.append(runs)
    return block


def _parts(block, tile, region):
    """Rectangles in which a tile of a block meets a region: in the array, and in the block."""
    for parts in itertools.product(*map(clipped, block, region, tile)):
        yield tuple(target for target, _ in parts), tuple(source for _, source in parts)


def _draw(generator, count, shape, deviation):
    """Returns `count` arrays of noise; of more than one, the sum is zero.

    n draws less their mean have variance (n − 1)/n each; scaling them back by √(n/(n − 1)) gives
    each the standard deviation asked for.
    """
    draws = generator.standard_normal((count, *shape), dtype=np.float32)
    if count == 1:
        draws *= np.float32(deviation)
        return draws
    draws -= draws.mean(axis=0)
    draws *= np.float32(deviation * (count / (count - 1)) ** 0.5)
    draws[-1] = -draws[:-1].sum(axis=0)
    return draws
