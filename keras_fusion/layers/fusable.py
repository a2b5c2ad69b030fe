"""What makes a layer fusable: it declares its axes, and everything else follows.

`Fusable` is mixed into a Keras layer. The layer declares the axes of its weights, which of its
constructor arguments are sizes of axes, and the axes of the shapes it is built with. From these
`fuse` checks the sources, widens the configuration, and builds the target so that every weight is
born from the sources' blocks: no weight is initialised first and overwritten later.
"""

import dataclasses
import functools

import numpy as np
from keras import ops

from keras_fusion import checks
from keras_fusion.axes import Axes
from keras_fusion.errors import FusionError
from keras_fusion.operator import Noise, block_widths, fuse_arrays, fused_shape

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


class Fusable:
    """Mixin of every layer that can be fused.

    A layer declares `weight_axes` and, where they exist, `sizes` and `input_axes`; see
    `FusableDense` for the shortest example. `axes` gives the layer's axes other names, so that a
    model can say which of its layers share an axis (T5's "hidden").

    Args:
        axes: Names of the layer's axes, in the order of the class's `default_axes`.
        blocks: `{axis: widths}` of the last fusion; written by `fuse`.
    """

    default_axes = ()

    def __init__(self, *args, axes=None, blocks=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.axes = tuple(axes or self.default_axes)
        if len(self.axes) != len(self.default_axes):
            raise ValueError(
                f"axes must name {self.default_axes}, one name each. Received: axes={axes}"
            )
        self.blocks = {name: tuple(widths) for name, widths in (blocks or {}).items()}

    def weight_axes(self):
        """`{weight name: Axes}` of the weights that this layer itself owns."""
        return {}

    def sizes(self):
        """`{constructor argument: axis}`: the arguments that are the size of an axis."""
        return {}

    def input_axes(self):
        """`{argument of build: axes of its last dimensions}`."""
        return {}

    def default_grow(self):
        """The axes that grow when `fuse` is not told."""
        return frozenset(self.axes)

    def widened_config(self, sources, options):
        """The configuration of the fused layer."""
        config = self.get_config()
        config.pop("name", None)
        for field, axis in self.sizes().items():
            if axis in options.grow and config[field] is not None:
                config[field] = sum(source.get_config()[field] for source in sources)
        config["blocks"] = {
            name: widths
            for axes in self._axes_with_shapes(sources, options.grow)
            for name, widths in axes.items()
        }
        return config

    def weight_factors(self, sources):
        """`{weight path: factors}` that sources' blocks are multiplied by, besides AVG's 1/n."""
        del sources
        return {}

    def config_mismatches(self, sources, options):
        """What keeps the sources' configurations from being fused, as `field: a vs b` strings."""
        sized = {field for field, axis in self.sizes().items() if axis in options.grow}
        return checks.differing_fields([source.get_config() for source in sources], sized)

    def build_fused(self, sources, options):
        """Builds this target, whose leaves know their sources, with the widened input shapes."""
        shapes = [source.get_build_config() for source in sources]
        shapes = [shape.get("shapes_dict", shape) for shape in shapes]
        self.build(
            **{
                name: _widened_shape(
                    [shape[name] for shape in shapes], self.input_axes().get(name, ()), options.grow
                )
                for name in shapes[0]
            }
        )

    def fuse(self, *others, grow=None, norm="property", noise=0.0, noise_kind="gaussian", seed=0):
        """Fuses this layer with others into one built layer (Eq. 3-5).

        On the concatenation of the sources' inputs the fused layer computes the concatenation of
        their outputs; where the output axis does not grow, their mean.

        Args:
            others: One or more built layers of this class, of equal or other widths.
            grow: Names of the axes that grow; default all that the layer can grow.
            norm: For norms: `"property"` keeps one group a source, `"rule"` makes one group.
            noise: Standard deviation of η over the root mean square of the weight.
            noise_kind: `"gaussian"` or `"balanced"`, see `keras_fusion.operator.Noise`.
            seed: Seed of the noise.

        Returns:
            A new, built layer of this class.

        Raises:
            FusionError: Naming everything that keeps the layers from being fused, before
                anything is allocated.

        Example:
            >>> a, b = FusableDense(4), FusableDense(6)
            >>> a.build((None, 2)), b.build((None, 3))
            >>> a.fuse(b).kernel.shape
            (5, 10)
        """
        grow = frozenset(self.default_grow() if grow is None else grow)
        return fuse_layers(
            [self, *others], FusionOptions(grow, norm, Noise(noise, noise_kind, seed))
        )

    def add_weight(self, *args, name=None, initializer=None, **kwargs):
        birth = getattr(self, "_birth", None)
        if birth is not None:
            initializer = birth.initializer(name)
        return super().add_weight(*args, name=name, initializer=initializer, **kwargs)

    def get_config(self):
        config = super().get_config()
        config["axes"] = list(self.axes)
        config["blocks"] = {name: list(widths) for name, widths in self.blocks.items()}
        return config

    def _axes_with_shapes(self, sources, grow):
        for name, axes in self.weight_axes().items():
            shapes = [own_weights(source)[name].shape for source in sources]
            yield block_widths(shapes, axes, grow)


def children(layer):
    """The layers directly inside a layer, in the order they were assigned."""
    return layer._flatten_layers(include_self=False, recursive=False)


def own_weights(layer):
    """`{name: variable}` of the weights that a layer holds itself, not through a sublayer."""
    inner = {id(weight) for child in children(layer) for weight in child.weights}
    return {weight.name: weight for weight in layer.weights if id(weight) not in inner}


def leaves(layer, path=""):
    """`{path: layer}` of every layer that declares or owns weights, the layer itself at ""."""
    found = {}
    if _declared(layer) or own_weights(layer):
        found[path] = layer
    for child in children(layer):
        found |= leaves(child, f"{path}/{child.name}".lstrip("/"))
    return found


def join(path, name):
    """The path of a weight from those of its layer and its own."""
    return f"{path}/{name}".lstrip("/")


def to_numpy(variable):
    """A variable's value as a numpy array; not to be written to, it may share memory."""
    return np.asarray(ops.convert_to_numpy(variable))


def fuse_layers(sources, options):
    """Fuses built layers of one class: checks, widens, builds from blocks. See `Fusable.fuse`."""
    checks.raise_mismatches(source_mismatches(sources))
    first = sources[0]
    mismatches = first.config_mismatches(sources, options)
    grouped = [leaves(source) for source in sources]
    if not mismatches:
        mismatches = _weight_mismatches(grouped, options)
    checks.raise_mismatches(mismatches)
    checks.raise_mismatches(_unusable_values(sources))
    if not options.noise.scale:
        checks.warn_if_never_parting(sources)
    target = type(first).from_config(first.widened_config(sources, options))
    factors = first.weight_factors(sources)
    born = leaves(target)
    for path, leaf in born.items():
        leaf._birth = _Birth(path, [group[path] for group in grouped], options, factors)
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

    def _fused(self, name, shape, dtype=None, **kwargs):
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
        if not isinstance(source, Fusable):
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


def _widened_shape(shapes, names, grow):
    """The input shape of the fused layer; `names` are the axes of the last dimensions."""
    widened = list(shapes[0])
    for dim, name in enumerate(reversed(names), start=1):
        if name in grow and widened[-dim] is not None:
            widened[-dim] = sum(shape[-dim] for shape in shapes)
    return tuple(widened)


def _weight_mismatches(grouped, options):
    """Weights that are not declared, not in every source, or whose shapes do not fit."""
    messages = []
    paths = list(dict.fromkeys(path for group in grouped for path in group))
    for path in paths:
        if not all(path in group for group in grouped):
            messages.append(f"layer `{path}` is not in every source")
            continue
        declared = _declared(grouped[0][path])
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
                messages += _shape_mismatch(
                    where, [own[name] for own in weights], declared[name], options.grow
                )
    return messages


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


def weight_axes(layer):
    """`{path: Axes}` of every weight inside a layer or model."""
    return {
        join(path, name): axes
        for path, leaf in leaves(layer).items()
        for name, axes in _declared(leaf).items()
    }


def _declared(leaf):
    return leaf.weight_axes() if isinstance(leaf, Fusable) else {}


__all__ = ["Axes", "Fusable", "FusionOptions", "fuse_layers", "leaves", "weight_axes"]
