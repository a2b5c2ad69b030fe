"""Records of fusions: kept for the models that are in memory, or read from their layers.

A model of stock layers has no place for it in its file; a fusable layer writes its blocks down.
"""

import dataclasses
import weakref

import numpy as np

from keras_fusion.axes import Axes
from keras_fusion.layers.tree import declared_axes, join, leaves, own_weights, to_numpy
from keras_fusion.layouts import Layout

_RECORDS = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class FusedWeight:
    """A weight of a fused network.

    Args:
        path: Its path in the model.
        variable: The variable.
        axes: Its `Axes`.
        layouts: `Layout` of each dimension.
        averages: Whether the sources' values are averaged in it (AVG).
    """

    path: str
    variable: object
    axes: Axes
    layouts: tuple[Layout, ...]
    averages: bool = False

    @property
    def grows(self):
        """True where the sources have entries of their own."""
        return any(layout.grows for layout in self.layouts)

    @property
    def source_shapes(self):
        """Shape of the weight in each source."""
        return tuple(zip(*(layout.sizes for layout in self.layouts), strict=True))

    def blocks(self, value=None):
        """Each source's block, as numpy arrays.

        Args:
            value: Array to read in place of the variable's value.
        """
        value = to_numpy(self.variable) if value is None else value
        return [value[self._index(source)] for source in range(len(self.layouts[0].sizes))]

    def _index(self, source):
        runs = [layout.runs(source) for layout in self.layouts]
        if all(len(parts) == 1 for parts in runs):
            return tuple(slice(run.target, run.target + run.length) for (run,) in runs)
        return np.ix_(*(layout.indices(source) for layout in self.layouts))


def remember(model, weights):
    """Keeps the record of a model for as long as it lives.

    Args:
        model: A fused model.
        weights: Its `FusedWeight`s.
    """
    _RECORDS[model] = tuple(weights)


def recall(model):
    """`FusedWeight`s of a fused network; none for one that no fusion made.

    They are those that `remember` was given, or follow from the blocks that fusable layers wrote.
    """
    if model in _RECORDS:
        return _RECORDS[model]
    weights = []
    for path, leaf in leaves(model).items():
        blocks = getattr(leaf, "blocks", None) or getattr(model, "blocks", None) or {}
        declared = declared_axes(leaf)
        for name, variable in own_weights(leaf).items():
            layouts = (
                declared[name].positions(tuple(variable.shape), blocks) if name in declared else ()
            )
            if layouts:
                averages = declared[name].averages_here(blocks)
                weights.append(
                    FusedWeight(join(path, name), variable, declared[name], layouts, averages)
                )
    return tuple(weights)


def remember_growth(grown, before):
    """Keeps, beside a growth's own record, what came before of the weights that did not grow now.

    Args:
        grown: The model that a growth made, with its record.
        before: `FusedWeight`s of the model that it was made of.
    """
    earlier = {weight.path: weight for weight in before if weight.grows}
    kept = []
    for weight in recall(grown):
        old = earlier.get(weight.path)
        if weight.grows:
            kept.append(weight)
        elif old is not None and old.variable.shape == weight.variable.shape:
            kept.append(dataclasses.replace(old, variable=weight.variable))
    remember(grown, kept)
