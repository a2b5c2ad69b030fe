"""Declarations: the axes of a layer's weights, inputs and outputs, and its sizes.

A declaration is all that fusing a layer inside a model's graph needs; `stock` has those of Keras'
layers. A layer of your own takes part by declaring its axes:

    @kf.register_fusion(Scale)
    def scale(layer):
        axes = {"factor": Axes(("units",), averages=False)}
        return Declaration(axes, inputs={0: {-1: "units"}}, outputs=({-1: "units"},))
"""

import dataclasses
from collections.abc import Callable, Mapping

from keras_fusion.axes import Axes, Joined, Stacked

_REGISTRY = {}


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The axes of a layer.

    Args:
        weights: `{name: Axes}` of every weight; the name of a weight inside a sublayer is a path,
            such as "query/kernel".
        inputs: `{argument of call, by name or position: {dimension: axis}}`; of an argument that
            holds the layer's states, a tuple of one for each: the layer makes their axes itself
            where it is given none. Dimensions are negative where they are counted from the end. An
            argument that is not here must be the same for all sources. Dimensions that are not
            here belong to no axis.
        outputs: For each output, `{dimension: axis}`.
        sizes: `{constructor argument: axis}` of the arguments that are the size of an axis.
        fixed: Names of axes that exist in the weights only and never grow.
        tied: `{axis: axis}` of axes that are another one under a second name, such as the state
            that a recurrent kernel sums over.
        alone: `{name: axes}` of the axes that can grow while what comes in and goes out stays as
            it is, such as an attention's heads; the name is the one that `kf.grow` takes.
        averages: Whether the outputs, before the layer's activation, are linear in the weights,
            so that a weighted mean of the sources' outputs can be taken in them (AVG).
        unitwise: Names of input axes whose units the layer treats apart. Sources that share such
            an input need a copy of it for each.
        resize: Optional function of (configuration, sources, layouts, norm) that returns the fused
            layer's class and configuration, for what `sizes` cannot say. `layouts` is
            `{axis: Layout}` of what grew.
        refuse: Optional function of (sources, layouts, norm) that returns why this growth is not
            possible, or None.
        keeps: Optional function of (sources, layouts, norm) that returns whether the fused layer
            computes what the sources do; by default it does.

    Examples:
        >>> Declaration(
        ...     {"kernel": Axes(("input", "output"), sums=("input",))},
        ...     inputs={0: {-1: "input"}}, outputs=({-1: "output"},), sizes={"units": "output"},
        ... )
    """

    weights: Mapping[str, Axes]
    inputs: Mapping[str | int, Mapping[int, str | Joined | Stacked] | tuple]
    outputs: tuple[Mapping[int, str | Joined | Stacked], ...]
    sizes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    alone: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    averages: bool = True
    unitwise: tuple[str, ...] = ()
    resize: Callable | None = None
    refuse: Callable | None = None
    keeps: Callable | None = None

    @property
    def input_axes(self):
        """Names of the axes that come in, those of states left out."""
        return {
            name
            for dims in self.inputs.values()
            if not isinstance(dims, tuple)
            for axis in dims.values()
            for name in names_of(axis)
        }

    @property
    def output_axes(self):
        """Names of the axes that go out."""
        return {name for dims in self.outputs for axis in dims.values() for name in names_of(axis)}

    @property
    def inner_axes(self):
        """Names of the axes that exist inside the layer only, such as the heads of an attention."""
        names = {name for axes in self.weights.values() for name in axes.names}
        return names - self.input_axes - self.output_axes - set(self.fixed) - set(self.tied)

    @property
    def made_axes(self):
        """Names of the axes that the layer makes: inside it, or in what goes out."""
        made = self.inner_axes | self.output_axes
        return made - self.input_axes - set(self.tied) - set(self.fixed)

    def widened(self, layer, sources, layouts, norm):
        """Class and configuration of the fused layer.

        Args:
            layer: The first source.
            sources: All sources.
            layouts: `{axis: Layout}` of the axes that grow.
            norm: "property" or "rule".
        """
        config = layer.get_config()
        config |= {
            argument: layouts[axis].size
            for argument, axis in self.sizes.items()
            if axis in layouts and config[argument] is not None
        }
        if "blocks" in config:
            config["blocks"] = _blocks(layer, layouts)
        if self.resize is not None:
            return self.resize(config, sources, layouts, norm)
        return type(layer), config


# Of what has no axes.
UNDECLARED = Declaration({}, inputs={}, outputs=())


def register_fusion(*classes):
    """Registers the declaration of layer classes; a subclass has that of its nearest ancestor.

    Args:
        *classes: Classes of layers.

    Returns:
        A decorator of a function from a built layer to its `Declaration`, or to None where this
        layer cannot be widened.

    Examples:
        >>> @kf.register_fusion(keras.layers.Dense)
        ... def dense(layer): ...
    """

    def register(function):
        _REGISTRY.update(dict.fromkeys(classes, function))
        return function

    return register


def declaration_of(layer):
    """The `Declaration` of a built layer; None for a layer that has none."""
    for ancestor in type(layer).__mro__:
        if ancestor in _REGISTRY:
            return _REGISTRY[ancestor](layer)
    return None


def _blocks(layer, layouts):
    """Widths that a fusable layer writes down, under the names that it gives its axes."""
    names = dict(zip(layer.default_axes, layer.axes, strict=True))
    return {
        names.get(axis, axis): layout.widths
        for axis, layout in layouts.items()
        if layout.is_blocks and (axis in names or not names)
    }


def names_of(axis):
    """Names in an axis expression."""
    if isinstance(axis, Stacked):
        return axis.names
    return (axis.name if isinstance(axis, Joined) else axis,)
