"""Fusing built layers: check every source, widen the configuration, build from the blocks.

Every weight of the target is born from the sources' blocks: none is initialised first and then
overwritten. Besides sources and target a fusion holds the weight at hand, as an array and a tensor.
"""

import dataclasses
import functools

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.layers import checks
from keras_fusion.layers.tree import declared_axes, is_fusable, join, leaves, own_weights, to_numpy
from keras_fusion.operator import Noise, block_widths, fuse_arrays, fused_shape, uneven_inputs

NORMS = ("property", "rule")


@dataclasses.dataclass(frozen=True)
class FusionOptions:
    """How sources are fused.

    Args:
        grow: Names of the axes that grow.
        norm: `"property"` normalises each source's units apart (section 3.2, option 1), `"rule"`
            all together (option 2).
        noise: The `Noise` that fills η.
    """

    grow: frozenset[str]
    norm: str = "property"
    noise: Noise = Noise()

    def __post_init__(self):
        if self.norm not in NORMS:
            raise FusionError(f"norm must be one of {NORMS}. Received: norm={self.norm!r}")


def fuse_layers(sources, options):
    """Fuses built layers of one class into one built layer; see `Fusable.fuse`.

    Args:
        sources: Two or more built layers.
        options: `FusionOptions`.

    Raises:
        FusionError: Naming everything that keeps them from being fused; nothing is allocated.
    """
    checks.raise_mismatches(mismatches(sources, options))
    if not options.noise.scale:
        checks.warn_if_never_parting(sources)
    return build_fused(sources, options)


def mismatches(sources, options):
    """Everything that keeps sources from being fused, as messages; empty if nothing does."""
    messages = source_mismatches(sources)
    if messages:
        return messages
    messages = sources[0].config_mismatches(sources, options)
    if not messages:
        messages = _weight_mismatches([leaves(source) for source in sources], options)
    return messages + _unusable_values(sources)


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
    grouped = [leaves(source) for source in sources]
    factors = first.weight_factors(sources)
    born = leaves(target)
    for where, leaf in born.items():
        leaf._birth = _Birth(
            join(path, where), [group[where] for group in grouped], options, factors
        )
    target.build_fused(sources, options)
    _check_complete(target, grouped)
    for leaf in born.values():
        del leaf._birth
    return target


@dataclasses.dataclass(frozen=True)
class _Birth:
    """Where the weights of one target layer come from."""

    path: str
    sources: list
    options: FusionOptions
    factors: dict

    def initializer(self, name):
        """A Keras initializer that returns the fused array of the weight `name`."""
        return functools.partial(self._fused, name)

    def _fused(self, name, shape, **kwargs):
        path = join(self.path, name)
        axes = self.sources[0].weight_axes()[name]
        arrays = [to_numpy(own_weights(source)[name]) for source in self.sources]
        fused = fuse_arrays(
            arrays,
            axes,
            self.options.grow,
            noise=self.options.noise,
            path=path,
            factors=self.factors.get(path),
        )
        if tuple(shape) != fused.shape:
            raise FusionError(
                f"{path} has shape {fused.shape} after fusion, but the widened layer "
                f"expects {tuple(shape)}; its `sizes` do not fit its `weight_axes`"
            )
        return fused


def _check_complete(target, grouped):
    """Every weight of every source must have been born in the target, and no weight otherwise."""
    born = {
        join(path, name)
        for path, leaf in leaves(target).items()
        for name in own_weights(leaf)
        if hasattr(leaf, "_birth")
    }
    for group in grouped:
        lost = sorted(
            join(path, name)
            for path, leaf in group.items()
            for name in own_weights(leaf)
            if join(path, name) not in born
        )
        if lost:
            raise FusionError(f"weights that the fused network has no place for: {lost}")
    made = {join(path, name) for path, leaf in leaves(target).items() for name in own_weights(leaf)}
    if made - born:
        raise FusionError(f"weights of the fused network without a source: {sorted(made - born)}")


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


def _weight_mismatches(grouped, options):
    """Weights that are not declared, not in every source, or whose shapes do not fit."""
    messages, uneven = [], {}
    paths = list(dict.fromkeys(path for group in grouped for path in group))
    for path in paths:
        if not all(path in group for group in grouped):
            messages.append(f"layer `{path}` is not in every source")
            continue
        declared = declared_axes(grouped[0][path])
        weights = [own_weights(group[path]) for group in grouped]
        for name in dict.fromkeys(name for own in weights for name in own):
            where = join(path, name)
            if name not in declared:
                messages.append(
                    f"weight `{where}` of {type(grouped[0][path]).__name__} declares no axes"
                )
            elif not all(name in own for own in weights):
                messages.append(f"weight `{where}` is not in every source")
            else:
                variables, axes = [own[name] for own in weights], declared[name]
                messages += _shape_mismatch(where, variables, axes, options.grow)
                shapes = [tuple(variable.shape) for variable in variables]
                if options.noise.scale and options.noise.kind == "balanced":
                    uneven |= uneven_inputs(block_widths(shapes, axes, options.grow), axes)
    return messages + [
        f"balanced noise needs sources of equal width, axis `{axis}` has widths {widths}; use "
        "noise_kind='gaussian'"
        for axis, widths in uneven.items()
    ]


def _shape_mismatch(where, variables, axes, grow):
    if not axes.growing(grow) and not axes.averages:
        arrays = [to_numpy(variable) for variable in variables]
        if not all(np.array_equal(arrays[0], array) for array in arrays[1:]):
            return [f"`{where}` has no growing axis and must be equal in every source"]
    try:
        fused_shape([tuple(variable.shape) for variable in variables], axes, grow)
    except FusionError as error:
        return [f"`{where}`: {error}"]
    return []


def _unusable_values(sources):
    """Names of weights with NaN or infinite values, each source once."""
    messages = []
    for source in {id(source): source for source in sources}.values():
        for path, leaf in leaves(source).items():
            for name, variable in own_weights(leaf).items():
                bad = checks.count_not_finite(to_numpy(variable))
                if bad:
                    messages.append(
                        f"weight `{join(path, name)}` of `{source.name}` holds {bad} "
                        "NaN or infinite values"
                    )
    return messages
