"""Noise for η, the part of a fused weight that comes from no source.

It is drawn in tiles, each from a generator of its own, so it does not depend on how an array is
cut: a region draws the tiles that it touches, and needs the memory of one at a time.
"""

import dataclasses
import itertools
import zlib

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.regions import overlap, placed, region_shape, tiles, within

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

    def generator(self, path, where=()):
        """Returns a generator for a seed, a weight's path, and the numbers of a tile."""
        entropy = [self.seed & 0xFFFFFFFF, zlib.crc32(path.encode())]
        return np.random.Generator(
            np.random.SFC64(np.random.SeedSequence(entropy, spawn_key=where))
        )


def uneven_inputs(widths, axes):
    """Returns the axes of `widths` that a weight sums over and whose blocks differ in width.

    Balanced noise sums to zero over the blocks of an input axis, so it needs equal ones.
    """
    return {
        name: blocks
        for name, blocks in widths.items()
        if name in axes.sums and len(set(blocks)) > 1
    }


def check_balanced(widths, axes, path):
    """Raises a `FusionError` where balanced noise has input blocks of unequal widths."""
    for name, blocks in uneven_inputs(widths, axes).items():
        raise FusionError(
            f"balanced noise needs input blocks of equal width, in {path or 'weight'}. "
            f"Received: axis `{name}` with widths={blocks}; use noise_kind='gaussian'"
        )


def add_noise(values, region, blocks, noise, deviation, path):
    """Adds the noise of a region of a fused array.

    Args:
        values: The region's values, changed in place.
        region: The part of the fused array that they are.
        blocks: The weight's `Blocks`.
        noise: A `Noise`.
        deviation: Returns the standard deviation of each entry; called where any is drawn.
        path: The weight's name.
    """
    for key, group in blocks.groups(noise.kind):
        for numbers, tile in tiles(region_shape(group[0]), _TILE):
            wanted = [overlap(region, placed(tile, block)) for block in group]
            if not any(wanted):
                continue
            generator = noise.generator(path, (*key, *numbers))
            draws = _draw(generator, len(group), region_shape(tile), deviation())
            for block, part, draw in zip(group, wanted, draws, strict=True):
                if part is not None:
                    target = values[within(part, region)]
                    target += draw[within(part, placed(tile, block))].astype(values.dtype)


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


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The blocks of a fused weight: one per choice of a source for each of its growing axes.

    Args:
        axes: The weight's `Axes`.
        growing: Names of its axes that grow.
        positions: One region per source, its own block, as `Axes.slices` gives them.
    """

    axes: object
    growing: tuple[str, ...]
    positions: tuple

    def block(self, choice):
        """Returns the region of the block with the chosen source along each growing axis."""
        return tuple(
            self.positions[choice.get(name, 0)][dim] for dim, name in enumerate(self.axes.names)
        )

    def groups(self, kind):
        """Yields the blocks whose noise is drawn together, as (key, regions)."""
        sources = range(len(self.positions))
        if kind == "gaussian":
            for choice in itertools.product(sources, repeat=len(self.growing)):
                if len(set(choice)) > 1:
                    yield choice, [self.block(dict(zip(self.growing, choice, strict=True)))]
            return
        summed = [name for name in self.growing if name in self.axes.sums]
        outputs = [name for name in self.growing if name not in summed]
        if not summed:
            return
        for key in itertools.product(sources, repeat=len(outputs)):
            output = dict(zip(outputs, key, strict=True))
            yield (
                key,
                [
                    self.block(output | dict(zip(summed, choice, strict=True)))
                    for choice in itertools.product(sources, repeat=len(summed))
                ],
            )
