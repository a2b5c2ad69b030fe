"""The blocks of fused kernels at saved steps, as numbers: the size of η, and the cells of maps.

A kernel whose two axes grow has its sources' blocks on the diagonal; η is the rest. Checkpoints
are memory-mapped, and a kernel is read in pieces, so that memory holds one piece at a time.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping

import numpy as np

import keras_fusion as kf
from keras_fusion.axes import Axes
from keras_fusion.layers.tree import weight_axes
from keras_fusion.layers.values import misfits
from keras_fusion.models.t5 import shared_skeleton
from keras_fusion.regions import pieces
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.checkpoints.models import read_config
from trainers.errors import UserError

MEAN, SQUARES = "mean", "squares"
# Values that are read at a time.
_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Saved:
    """One good checkpoint of a fused stage."""

    weights: Mapping[str, np.ndarray]  # path → array; memory-mapped
    axes: dict[str, Axes]  # path → `Axes`
    config: kf.models.T5Config  # of the model

    def borders(self, path):
        """Borders of the blocks of a weight, one tuple per dimension."""
        return borders(self.axes[path], self.weights[path].shape, self.config.blocks)

    @property
    def matrices(self):
        """Paths of all weights of two dimensions."""
        return tuple(path for path, axes in self.axes.items() if len(axes.names) == 2)

    @property
    def kernels(self):
        """Paths of all weights of two dimensions that both grow: those that have η."""
        widths = self.config.blocks
        return tuple(p for p in self.matrices if len(self.axes[p].growing(widths)) == 2)


def open_saved(folder, wanted=None):
    """Opens the good checkpoints in a stage's folder, or those among them that are wanted.

    Args:
        wanted: function from the list of all saved steps to those to open.

    Returns:
        {step: `Saved`}, and a sentence for each step that cannot be used.
    """
    folder = folder / CHECKPOINT_FOLDER
    opened, faults = {}, []
    steps = checkpoints.steps(folder)
    for step in steps if wanted is None else wanted(steps):
        path = folder / checkpoints.step_folder(step)
        try:
            opened[step] = _open(path)
        except UserError as error:
            # A checkpoint may vanish: the run that writes here keeps the newest ones only.
            if os.path.lexists(path):
                faults.append(str(error).replace(str(path), f"step {step}"))
    for step in [step for step in opened if opened[step].config != opened[max(opened)].config]:
        faults.append(f"step {step}, a model of another configuration than the newest one's.")
        del opened[step]
    return opened, tuple(faults)


def _open(path):
    checkpoint = checkpoints.load(path)
    config = read_config(checkpoint)
    skeleton = shared_skeleton(config)
    wrong = misfits(skeleton, checkpoint.weights)
    if wrong or not config.blocks:
        received = f"{path} with {wrong[0] if wrong else 'no blocks in its configuration'}"
        raise UserError("the weights of a fused T5", received, "Use another checkpoint")
    return Saved(checkpoint.weights, weight_axes(skeleton), config)


def borders(axes, shape, blocks):
    """Borders of the blocks of a weight, per dimension: 0, the inner borders, and the size.

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
    """Cuts an axis into bands within the borders of blocks, at most about so many, one per block.

    Example:
        >>> bands((0, 4, 12), 6)
        (0, 2, 4, 6, 8, 10, 12)
    """
    band, cuts = math.ceil(edges[-1] / most), [0]
    for start, stop in itertools.pairwise(edges):
        width = stop - start
        count = math.ceil(width / band)
        cuts += [start + width * number // count for number in range(1, count + 1)]
    return tuple(cuts)


def cells(array, edges, measure=MEAN, chunk=_CHUNK):
    """Reduces a matrix to a float64 number per cell of a grid, whose edges run from 0 to the size.

    The measure is the `MEAN` of |w|, or `SQUARES`, the sum of w²; it is NaN where a cell holds one.
    """
    rows, columns = edges
    value = np.abs if measure == MEAN else np.square
    result = np.zeros((len(rows) - 1, len(columns) - 1))
    for index, (begin, end) in enumerate(itertools.pairwise(rows)):
        for piece in pieces((slice(begin, end), slice(0, columns[-1])), chunk):
            values = value(np.asarray(array[piece]).astype(np.float64))
            result[index] += np.add.reduceat(values, columns[:-1], axis=1).sum(axis=0)
    return result / _counts(edges) if measure == MEAN else result


def eta_sizes(array, edges):
    """[[sum of the squares of η, how many], [the same of the diagonal blocks]] of a kernel.

    The arrays of several kernels add up.
    """
    squares, counts = cells(array, edges, SQUARES), _counts(edges)
    inside = np.eye(len(squares), dtype=bool)
    return np.array([[v[at].sum() for v in (squares, counts)] for at in (~inside, inside)], float)


def rms(sizes):
    """The root mean squares of η and of the diagonal blocks, from `eta_sizes`."""
    return tuple(float(math.sqrt(total / max(1, count))) for total, count in sizes)


def ratio(sizes):
    """The RMS of η over that of the diagonal; None where that is zero, or either not finite."""
    eta, diagonal = rms(sizes)
    return eta / diagonal if diagonal and math.isfinite(eta + diagonal) else None


def corner(edges, reach):
    """The region that reaches so many values to either side of a place where blocks meet.

    Along each dimension that is the middle one of the inner borders, or the middle of the axis.
    """
    region = []
    for borders_along in edges:
        inner, size = borders_along[1:-1], borders_along[-1]
        place = inner[len(inner) // 2] if inner else size // 2
        region.append(slice(max(0, place - reach), min(size, place + reach)))
    return tuple(region)


def _counts(edges):
    return np.multiply.outer(*map(np.diff, edges))
