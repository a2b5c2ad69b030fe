"""Fusing built layers: check every source, widen the configuration, build from the blocks.

Every weight of the target is born from the sources' blocks: none is initialised first and then
overwritten. Besides sources and target a fusion holds the weight at hand, as an array and a tensor.
The sources' values may also come from elsewhere than their variables: from files, say.
"""

import dataclasses
from collections.abc import Mapping

from keras_fusion.errors import FusionError
from keras_fusion.layers import checks
from keras_fusion.layers.tree import (
    declared_axes,
    is_fusable,
    join,
    leaves,
    own_weights,
    values_of,
    weight_axes,
)
from keras_fusion.layers.values import born_as
from keras_fusion.noise import Noise, uneven_inputs
from keras_fusion.operator import FusedArray, count_not_finite, fused_shape
from keras_fusion.options import BlockOptions, mean_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionOptions(BlockOptions):
    """Options of a fusion of layers: `BlockOptions`, and the names of the axes that grow."""

    grow: frozenset[str]

    @classmethod
    def of(cls, grow, num_sources, noise=0.0, noise_kind="gaussian", seed=0, weights=None, **rest):
        """Options from the arguments of `Fusable.fuse`."""
        noise = Noise(noise, noise_kind, seed)
        weights = mean_weights(weights, num_sources)
        return cls(grow=frozenset(grow), noise=noise, weights=weights, **rest)


def fuse_layers(sources, options):
    """Fuses built layers of one class into one built layer; see `Fusable.fuse`.

    Args:
        sources: Two or more built layers.
        options: `FusionOptions`.

    Raises:
        FusionError: Naming everything that keeps them from being fused; nothing is allocated.
    """
    checks.raise_mismatches(mismatches(sources, options))
    if not options.noise.scale and not options.asymmetry:
        checks.warn_if_never_parting(sources, values_of(sources))
    return build_fused(sources, options)


def mismatches(sources, options, weights=None):
    """Everything that keeps sources from being fused, as messages; empty if nothing does.

    Args:
        sources: Built layers.
        options: `FusionOptions`.
        weights: `{path: array-like}` of every source, where its values are not those of its
            variables. They are then not searched for NaN beforehand: reading them tells.
    """
    messages = source_mismatches(sources) + options.copies_mismatches(sources)
    if messages:
        return messages
    messages = sources[0].config_mismatches(sources, options)
    values = values_of(sources) if weights is None else weights
    if not messages:
        messages = _weight_mismatches([leaves(source) for source in sources], values, options)
    if weights is None:
        # By identity: layers of two models may have one name, and a source may stand there twice.
        names = {
            id(variables): (variables, source.name)
            for variables, source in zip(values, sources, strict=True)
        }
        messages += [
            text for variables, name in names.values() for text in unusable_values(variables, name)
        ]
    return messages


class FusedWeights(Mapping):
    """`{path: FusedArray}` of the fusion of sources; each is made when it is asked for.

    Args:
        sources: Built layers of one class, which `mismatches` has nothing against.
        weights: `{path: array-like}` of every source.
        options: `FusionOptions`.
        path: Where the layer is in its model; the noise of its weights depends on it.
    """

    def __init__(self, sources, weights, options, path=""):
        self._weights = weights
        self._options = options
        self._path = path
        self._axes = weight_axes(sources[0])
        self._factors = sources[0].weight_factors(sources, options)

    def __getitem__(self, path):
        return FusedArray(
            [weights[path] for weights in self._weights],
            self._axes[path],
            self._options.grow,
            noise=self._options.noise,
            path=join(self._path, path),
            factors=self._factors.get(path),
            weights=self._options.weights,
            shares=self._options.shares(len(self._weights)),
        )

    def __contains__(self, path):
        return path in self._axes

    def __iter__(self):
        return iter(self._axes)

    def __len__(self):
        return len(self._axes)


def build_fused(sources, options, path="", name=None):
    """The fused layer of sources that `mismatches` has nothing against.

    Args:
        sources: Built layers of one class.
        options: `FusionOptions`.
        path: Where the layer is in its model; the noise of its weights depends on it.
        name: The fused layer's name; by default Keras chooses one.
    """
    first = sources[0]
    target = type(first).from_config(first.widened_config(sources, options) | {"name": name})
    values = values_of(sources)
    with born_as(target, FusedWeights(sources, values, options, path)) as born:
        target.build_fused(sources, options)
    _check_complete(target, values, born)
    return target


def _check_complete(target, values, born):
    """Every weight of every source must have been born in the target, and no weight otherwise."""
    lost = sorted(set().union(*values) - born)
    if lost:
        raise FusionError(f"weights that the fused network has no place for: {lost}")
    (made,) = values_of([target])
    if made.keys() - born:
        raise FusionError(
            f"weights of the fused network without a source: {sorted(made.keys() - born)}"
        )


def source_mismatches(sources):
    """Sources that are too few, unbuilt, not fusable or of several classes."""
    if len(sources) < 2:
        return [
            f"fusing takes at least two networks, received {len(sources)}; "
            "for a network with itself pass it twice"
        ]
    messages = []
    for index, source in enumerate(sources):
        if not is_fusable(source):
            messages.append(
                f"source {index} is a {type(source).__name__}, which is not fusable; "
                "use a layer of keras_fusion.layers or a model of them"
            )
        elif not source.built:
            messages.append(
                f"source {index} (`{source.name}`) is not built; call it on data or "
                "`build` it first"
            )
        elif type(source) is not type(sources[0]):
            messages.append(f"class: {type(sources[0]).__name__} vs {type(source).__name__}")
    return messages


def widened_shape(shapes, names, grow):
    """The input shape of the fused layer; `names` are the axes of the last dimensions."""
    widened = list(shapes[0])
    for dim, name in enumerate(reversed(names), start=1):
        if name in grow and widened[-dim] is not None:
            widened[-dim] = sum(shape[-dim] for shape in shapes)
    return tuple(widened)


def _weight_mismatches(grouped, values, options):
    """Weights that are not declared, not in every source, or whose shapes do not fit."""
    messages, uneven = [], {}
    paths = list(dict.fromkeys(path for group in grouped for path in group))
    for path in paths:
        if not all(path in group for group in grouped):
            messages.append(f"layer `{path}` is not in every source")
            continue
        declared = declared_axes(grouped[0][path])
        weights = [own_weights(group[path]) for group in grouped]
        for name in dict.fromkeys(name for variables in weights for name in variables):
            where = join(path, name)
            if name not in declared:
                messages.append(
                    f"weight `{where}` of {type(grouped[0][path]).__name__} declares no axes"
                )
            elif not all(name in variables for variables in weights):
                messages.append(f"weight `{where}` is not in every source")
            else:
                axes = declared[name]
                shapes = [tuple(variables[name].shape) for variables in weights]
                messages += _shape_mismatch(where, shapes, values, axes, options.grow)
                if options.noise.scale and options.noise.kind == "balanced":
                    uneven |= uneven_inputs(axes.widths(shapes, options.grow), axes)
    return messages + [
        f"balanced noise needs sources of equal width, axis `{axis}` has widths {widths}; use "
        "noise_kind='gaussian'"
        for axis, widths in uneven.items()
    ]


def _shape_mismatch(where, shapes, values, axes, grow):
    if not axes.growing(grow) and not axes.averages:
        arrays = [weights[where] for weights in values]
        if not all(checks.equal_arrays(arrays[0], array) for array in arrays[1:]):
            return [f"`{where}` has no growing axis and must be equal in every source"]
    try:
        fused_shape(shapes, axes, grow)
    except FusionError as error:
        return [f"`{where}`: {error}"]
    return []


def unusable_values(weights, name):
    """Names the weights with NaN or infinite values, as messages; reads all of them.

    Args:
        weights: `{path: array}`.
        name: What they are the weights of.
    """
    counts = {path: count_not_finite(array) for path, array in weights.items()}
    return [
        f"weight `{path}` of `{name}` holds {bad} NaN or infinite values"
        for path, bad in counts.items()
        if bad
    ]
