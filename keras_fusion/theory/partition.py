"""Partition of a fused network's weights into those of each source and η.

Section 4 writes w = (θ_1, …, θ_n, η). Here w is what the fused network holds, and a weight is

- cut into blocks, where it has growing axes: block i is c_i θ_i. Fusing copies most weights,
  c = 1. Where AVG acts c differs: 1/n in an untied head, √(D / d_i) / n in the final norm of a
  decoder with a tied head (D and d_i the fused and the source's width);
- the mean of the sources', where no axis grows, such as the bias of an output.

What lies in no source's block, between two growing axes, is η.
"""

import dataclasses

import numpy as np
from keras import ops

from keras_fusion.errors import FusionError
from keras_fusion.layers.tree import declared_axes, is_fusable, join, leaves, own_weights
from keras_fusion.operator import fused_shape


@dataclasses.dataclass(frozen=True)
class Part:
    """Positions of the sources in one fused weight.

    Args:
        path: The weight's path.
        positions: One tuple of slices per source; empty for a mean.
        factors: c_i, what source i's array was multiplied by; empty for a mean.
        owners: One integer array per growing axis, shaped to broadcast against the weight: the
            source of each entry along that axis.
    """

    path: str
    positions: tuple
    factors: tuple
    owners: tuple

    @property
    def has_eta(self):
        """True if some entries come from no source."""
        return len(self.owners) > 1

    def mask(self):
        """True where an entry belongs to a source, a tensor that broadcasts against the weight."""
        first, *others = self.owners
        together = ops.equal(first, others[0])
        for other in others[1:]:
            together = ops.logical_and(together, ops.equal(first, other))
        return together

    def source_array(self, array, index):
        """θ_i of one source, from the fused array."""
        if not self.positions:
            return array
        return array[self.positions[index]] / self.factors[index]


class Partition:
    """The weights of a fused network as (θ_1, …, θ_n, η).

    Args:
        fused: A network that was made by fusing `sources`, possibly trained since.
        sources: What it was fused from, in that order. Only their structure counts.

    Raises:
        FusionError: The network was not fused from such sources.

    Examples:
        >>> partition = Partition(small.self_fuse(2), [small, small])
        >>> [part.path for part in partition.parts if part.has_eta][0]
        'encoder/block_0/self_attention/query_kernel'
    """

    def __init__(self, fused, sources):
        self.sources = list(sources)
        self.parts = _parts(fused, self.sources)
        if not any(part.positions for part in self.parts):
            raise FusionError(
                f"the theory of section 4 is about a fused network. Received: `{fused.name}`, "
                "as wide as its sources"
            )

    @property
    def num_sources(self):
        return len(self.sources)

    @property
    def is_self_fusion(self):
        """True if all sources are one network."""
        return len({id(source) for source in self.sources}) == 1

    def theta(self, vector):
        """A list of arrays like the weights with η set to zero."""
        return [
            ops.where(part.mask(), array, ops.zeros_like(array)) if part.has_eta else array
            for part, array in zip(self.parts, vector, strict=True)
        ]

    def eta(self, vector):
        """A list of arrays like the weights with all but η set to zero."""
        return [
            ops.where(part.mask(), ops.zeros_like(array), array)
            if part.has_eta
            else ops.zeros_like(array)
            for part, array in zip(self.parts, vector, strict=True)
        ]

    def source_weights(self, weights, index):
        """θ_i as the weights of source i, from those of the fused network."""
        return [
            part.source_array(array, index) for part, array in zip(self.parts, weights, strict=True)
        ]

    def by_path(self, vector):
        """`{weight path: numpy array}` of a list of tensors."""
        return {
            part.path: ops.convert_to_numpy(array)
            for part, array in zip(self.parts, vector, strict=True)
        }


def _parts(fused, sources):
    """One `Part` per trainable weight, in Keras' order, which is the same in every network."""
    lists = [network.trainable_variables for network in (fused, *sources)]
    if len(sources) < 2 or len({len(variables) for variables in lists}) > 1:
        raise FusionError(
            f"expected the two or more networks that `{fused.name}` was fused from, of as many "
            f"weights; name one that was fused with itself once for every copy. Received: "
            f"{len(sources)} sources, numbers of weights {[len(variables) for variables in lists]}"
        )
    scaled = sources[0].weight_factors(sources) if is_fusable(sources[0]) else {}
    declared = _declarations(fused)
    parts = []
    for variable, *origins in zip(*lists, strict=True):
        path, axes, recorded = declared[id(variable)]
        shapes = [tuple(origin.shape) for origin in origins]
        factors = scaled.get(path, (1.0,) * len(sources))
        parts.append(_part(path, axes, tuple(variable.shape), shapes, recorded, factors))
    return parts


def _declarations(fused):
    """`{id(variable): (path, axes, blocks that the last fusion wrote down)}`."""
    declarations = {}
    for where, leaf in leaves(fused).items():
        blocks = getattr(leaf, "blocks", None) or getattr(fused, "blocks", None) or {}
        declared = declared_axes(leaf)
        for name, variable in own_weights(leaf).items():
            declarations[id(variable)] = join(where, name), declared[name], blocks
    return declarations


def _part(path, axes, shape, shapes, recorded, factors):
    """Returns the `Part` of a weight: the axes that grew are those wider than in the sources."""
    grow = {
        name
        for name, size, before in zip(axes.names, shape, shapes[0], strict=True)
        if size != before
    }
    expected = fused_shape(shapes, axes, grow)
    positions = axes.slices(expected, axes.widths(shapes, grow))
    blocks = {name: widths for name, widths in recorded.items() if name in grow}
    if expected != shape or (len(blocks) == len(grow) and axes.slices(shape, blocks) != positions):
        raise FusionError(
            f"`{path}` of shape {shape} was fused from blocks {blocks or 'of other widths'}. "
            f"Received: sources with {shapes}"
        )
    if not positions:
        return Part(path, (), (), ())
    divisor = axes.divisor(grow, len(positions))
    return Part(
        path,
        tuple(positions),
        tuple(factor / divisor for factor in factors),
        tuple(
            _owners(shape, dim, positions) for dim, name in enumerate(axes.names) if name in grow
        ),
    )


def _owners(shape, dim, positions):
    owners = np.zeros(shape[dim], "int32")
    for index, position in enumerate(positions):
        owners[position[dim]] = index
    return owners.reshape([-1 if axis == dim else 1 for axis in range(len(shape))])
