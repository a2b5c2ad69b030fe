"""Values: the relation of a tensor of the fused model to those of its sources."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_fusion import _keras
from keras_fusion.layouts import Layout

SHARED, GROWN, MEAN, AFTER = "shared", "grown", "mean", "after"


@dataclasses.dataclass(frozen=True)
class Value:
    """Relation of a tensor to its counterparts in the sources.

    Args:
        kind: `SHARED`: it equals each of them. `GROWN`: it holds all of them, where `dims` says.
            `MEAN`: it is their weighted mean. `AFTER`: a function of means, of which nothing more
            is promised.
        dims: `{dimension: Layout}` of the dimensions that grew.
        exact: Whether this is promised; it is not behind a norm of the fusion rule whose sources
            differ.
    """

    kind: str = SHARED
    dims: Mapping[int, Layout] = dataclasses.field(default_factory=dict)
    exact: bool = True

    def shape(self, shape):
        """Shape of the fused tensor, from the first source's."""
        return tuple(
            self.dims[dim].size if dim in self.dims else size for dim, size in enumerate(shape)
        )

    def assemble(self, arrays):
        """The fused array from those of the sources."""
        if not self.dims:
            return arrays[0]
        fused = np.zeros(self.shape(arrays[0].shape), arrays[0].dtype)
        for source, array in enumerate(arrays):
            fused[self._index(fused.shape, source)] = array
        return fused

    def extract(self, array, source):
        """A source's part of a fused array."""
        return array[self._index(array.shape, source)] if self.dims else array

    def _index(self, shape, source):
        return np.ix_(
            *(
                self.dims[dim].indices(source) if dim in self.dims else range(size)
                for dim, size in enumerate(shape)
            )
        )


def grown(dims, exact=True):
    """The `Value` of a tensor with these dimensions; shared where none of them grew."""
    dims = {dim: layout for dim, layout in dims.items() if layout is not None and layout.grows}
    return Value(GROWN if dims else SHARED, dims, exact)


def part(tensor, value, source):
    """A source's part of a fused tensor of a graph, with its mask."""
    mask = _keras.mask_of(tensor)
    for dim, layout in value.dims.items():
        runs = sorted(layout.runs(source), key=lambda run: run.source)
        if len(runs) == 1:
            start, stop = runs[0].target, runs[0].target + runs[0].length
            tensor = tensor[(slice(None),) * dim + (slice(start, stop),)]
        else:
            tensor = ops.take(tensor, layout.indices(source), axis=dim)
    _keras.set_mask(tensor, mask)
    return tensor


def joined_parts(parts, dim, layout):
    """The fused tensor of a graph from its sources' parts along one dimension, with their mask."""
    blocks = Layout.blocks(layout.sizes)
    joint = keras.layers.Concatenate(axis=dim, dtype=parts[0].dtype)(parts)
    _keras.set_mask(joint, _keras.mask_of(parts[0]))
    return rearranged(joint, dim, blocks, layout)


def rearranged(tensor, dim, before, after):
    """A tensor of a graph whose dimension has one layout, with another layout, and its mask."""
    if before == after:
        return tensor
    if repeats(before, after):
        copies = [tensor] * len(after.sizes)
        made = keras.layers.Concatenate(axis=dim, dtype=tensor.dtype)(copies)
    else:
        made = ops.take(tensor, places(before, after), axis=dim)
    _keras.set_mask(made, _keras.mask_of(tensor))
    return made


def repeats(before, after):
    """Returns whether one layout becomes another by copies of a whole tensor, one per source."""
    return not before.grows and after.is_blocks


def places(before, after):
    """For each entry of one layout, the entry of another one that holds the same of the source.

    Where the first has one entry for each source, and the second more, it is repeated.
    """
    indices = np.zeros(after.size, "int32")
    for source in range(len(after.sizes)):
        origin = before.indices(source)
        target = after.indices(source)
        indices[target] = origin if len(origin) == len(target) else origin * len(target)
    return indices.tolist()
