"""The blocks of fused kernels at saved steps, as numbers: how large η is, and what maps show.

A kernel whose two axes grow has its sources' blocks on the diagonal; η is the rest. Checkpoints
stay memory-mapped, and a kernel is read in pieces: no more than one piece is held in memory.
"""

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Mapping

import numpy as np

import keras_fusion as kf
from keras_fusion.axes import Axes
from keras_fusion.layers.tree import weight_axes
from keras_fusion.layers.values import misfits
from keras_fusion.regions import pieces
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.checkpoints.models import read_config
from trainers.errors import UserError

MEAN, MAXIMUM = "mean", "max"
_SQUARES = "squares"
# What is done to a value, and how values are put together.
_MEASURES = {
    MEAN: (np.abs, np.add),
    MAXIMUM: (np.abs, np.maximum),
    _SQUARES: (np.square, np.add),
}
# Values that are read at a time.
_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Saved:
    """One good checkpoint of a fused stage.

    Args:
        weights: path → array; memory-mapped.
        axes: path → `Axes`.
        config: of the model.
    """

    weights: Mapping[str, np.ndarray]
    axes: dict[str, Axes]
    config: kf.models.T5Config

    @property
    def blocks(self):
        """Axis → widths, one a source."""
        return self.config.blocks

    def borders(self, path):
        """Where the blocks of a weight begin and end, one tuple a dimension."""
        return borders(self.axes[path], self.weights[path].shape, self.blocks)

    @property
    def matrices(self):
        """Paths of all weights of two dimensions."""
        return tuple(path for path, axes in self.axes.items() if len(axes.names) == 2)

    @property
    def kernels(self):
        """Paths of all weights of two dimensions that both grow: those that have η."""
        return tuple(
            path for path in self.matrices if len(self.axes[path].growing(self.blocks)) == 2
        )


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sums of squares, and over how many values, inside and outside the diagonal blocks."""

    diagonal: float = 0.0
    diagonal_count: int = 0
    eta: float = 0.0
    eta_count: int = 0

    def __add__(self, other):
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Sizes(*(mine + theirs for mine, theirs in pairs))

    @property
    def rms(self):
        """The root mean squares of η and of the diagonal blocks."""
        return (
            math.sqrt(self.eta / max(1, self.eta_count)),
            math.sqrt(self.diagonal / max(1, self.diagonal_count)),
        )

    @property
    def ratio(self):
        """The RMS of η over that of the diagonal; None where that is zero, or either no number."""
        eta, diagonal = self.rms
        return eta / diagonal if diagonal and math.isfinite(eta + diagonal) else None


def open_saved(folder, wanted=None):
    """Opens the good checkpoints of a fused stage.

    Args:
        folder: the stage's folder.
        wanted: function from the list of all saved steps to those to open; None opens all.

    Returns:
        {step: `Saved`} and, for each that cannot be used, a sentence that says why.
    """
    folder = folder / CHECKPOINT_FOLDER
    found, faults = {}, []
    steps = checkpoints.steps(folder)
    for step in steps if wanted is None else wanted(steps):
        path = folder / checkpoints.step_folder(step)
        try:
            found[step] = _open(path)
        except UserError as error:
            # Gone meanwhile: the run that writes here keeps the newest ones only.
            if os.path.lexists(path):
                faults.append(str(error).replace(str(path), f"step {step}"))
    for step in [step for step in found if found[step].config != found[max(found)].config]:
        faults.append(f"step {step}, a model of another configuration than the newest one's.")
        del found[step]
    return found, tuple(faults)


def _open(path):
    checkpoint = checkpoints.load(path)
    config = read_config(checkpoint)
    skeleton = _skeleton(config)
    wrong = misfits(skeleton, checkpoint.weights)
    if wrong or not config.blocks:
        raise UserError(
            "Expected the weights of a fused T5. "
            f"Received: {path} with {wrong[0] if wrong else 'no blocks in its configuration'}. "
            "Use another checkpoint."
        )
    return Saved(checkpoint.weights, weight_axes(skeleton), config)


@functools.lru_cache(maxsize=16)
def _skeleton(config):
    return kf.models.T5.skeleton(config)


def borders(axes, shape, blocks):
    """Where the blocks of a weight begin and end.

    Args:
        axes: its `Axes`.
        shape: its shape.
        blocks: axis → widths, as in a model's configuration.

    Returns:
        A tuple a dimension: 0, the inner borders, and the size.

    Example:
        >>> borders(Axes(("hidden", "vocab")), (4, 9), {"hidden": (1, 3)})
        ((0, 1, 4), (0, 9))
    """
    positions = axes.slices(shape, blocks)
    return tuple(
        tuple(sorted({0, size, *(position[dim].stop for position in positions)}))
        for dim, size in enumerate(shape)
    )


def bands(edges, most):
    """Cuts an axis into bands none of which lies across a border.

    Args:
        edges: borders of the blocks, 0 and the size included.
        most: about the largest number of bands; each block has one at least.

    Returns:
        The bands' borders; bands of one block are alike up to one value.

    Example:
        >>> bands((0, 4, 12), 6)
        (0, 2, 4, 6, 8, 10, 12)
    """
    band, found = math.ceil(edges[-1] / most), [0]
    for start, stop in itertools.pairwise(edges):
        width = stop - start
        count = math.ceil(width / band)
        found += [start + width * number // count for number in range(1, count + 1)]
    return tuple(found)


def cells(array, edges, measure=MEAN):
    """Reduces a matrix to one number a cell of a grid.

    Args:
        array: anything of two dimensions with slicing; it is read in pieces.
        edges: borders of the grid's rows and of its columns, from 0 to the size.
        measure: "mean" or "max" of |w|, or "squares", their sum.

    Returns:
        A float64 array (rows, columns); NaN where a cell holds one.
    """
    rows, columns = edges
    value, join = _MEASURES[measure]
    result = np.zeros((len(rows) - 1, len(columns) - 1))
    for index, (begin, end) in enumerate(itertools.pairwise(rows)):
        for piece in pieces((slice(begin, end), slice(0, columns[-1])), _CHUNK):
            values = value(np.asarray(array[piece]).astype(np.float64))
            across = join.reduceat(values, columns[:-1], axis=1)
            result[index] = join(result[index], join.reduce(across, axis=0))
    return result / _counts(edges) if measure == MEAN else result


def eta_sizes(array, edges):
    """How large η and the diagonal blocks of a kernel are.

    Args:
        array: as for `cells`.
        edges: borders of its blocks, equally many along both dimensions.

    Returns:
        `Sizes`.
    """
    squares, counts = cells(array, edges, _SQUARES), _counts(edges)
    inside = np.eye(len(squares), dtype=bool)
    return Sizes(
        float(squares[inside].sum()),
        int(counts[inside].sum()),
        float(squares[~inside].sum()),
        int(counts[~inside].sum()),
    )


def corner(edges, reach):
    """The region around the place where blocks meet.

    Args:
        edges: borders of the blocks along each dimension.
        reach: values to either side of that place.

    Returns:
        A tuple of slices, around the middle one of the inner borders; along an axis without any,
        around its middle.
    """
    region = []
    for each in edges:
        inner, size = each[1:-1], each[-1]
        place = inner[len(inner) // 2] if inner else size // 2
        region.append(slice(max(0, place - reach), min(size, place + reach)))
    return tuple(region)


def _counts(edges):
    return np.multiply.outer(*(np.diff(each) for each in edges))
