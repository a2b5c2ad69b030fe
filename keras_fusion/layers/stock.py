"""The axes of Keras' own layers: a table entry for each class."""

import keras
from keras import layers

from keras_fusion.axes import Axes, Joined
from keras_fusion.layers.declarations import Declaration, register_fusion
from keras_fusion.layers.tree import own_weights


def _channel(layer):
    """Dimension of the channels of an image layer."""
    return 1 if layer.data_format == "channels_first" else -1


def _with_bias(layer, weights, axis):
    return weights | ({"bias": Axes((axis,))} if layer.use_bias else {})


@register_fusion(layers.Dense)
def dense(layer):
    weights = {"kernel": Axes(("input", "output"), sums=("input",))}
    return Declaration(
        _with_bias(layer, weights, "output"),
        inputs={0: {-1: "input"}},
        outputs=({-1: "output"},),
        sizes={"units": "output"},
    )


@register_fusion(layers.Embedding)
def embedding(layer):
    return Declaration(
        {"embeddings": Axes(("vocabulary", "output"))},
        inputs={0: {}},
        outputs=({-1: "output"},),
        sizes={"output_dim": "output"},
        fixed=("vocabulary",),
    )


@register_fusion(layers.ReversibleEmbedding)
def reversible_embedding(layer):
    # Its table is read in both directions, so no one factor averages it.
    return None


@register_fusion(layers.EinsumDense)
def einsum_dense(layer):
    terms = layer.equation.replace(" ", "").replace("->", ",").split(",")
    if any("..." in term[1:] for term in terms):
        return None  # Dimensions behind the letters have no place of their own.
    inputs, output = layer.equation.replace("...", "").replace(" ", "").split("->")
    inputs, kernel = inputs.split(",")
    summed = [letter for letter in kernel if letter not in output]
    made = [letter for letter in kernel if letter not in inputs]
    weights = {"kernel": Axes(tuple(kernel), sums=tuple(summed))}
    if layer.bias_axes:
        first = min(output.index(letter) for letter in layer.bias_axes)
        weights["bias"] = Axes(
            tuple(
                letter if letter in layer.bias_axes else f"{letter} (size 1)"
                for letter in output[first:]
            )
        )

    def resize(config, sources, layouts, norm):
        shape = config["output_shape"]
        shape = [shape] if isinstance(shape, int) or shape is None else list(shape)
        for dim, letter in enumerate(output[-len(shape) :]):
            if letter in layouts and shape[dim] is not None:
                shape[dim] = layouts[letter].size
        return type(layer), config | {"output_shape": tuple(shape)}

    def refuse(sources, layouts, norm):
        lost = [letter for letter in inputs if letter in layouts and letter not in kernel + output]
        if lost:
            return f"its equation sums over `{lost[0]}`, which grew, without a weight"
        varies = layer.bias_axes or output
        still = [letter for letter in layouts if letter in output and letter not in varies]
        if not still:
            return None
        biases = [own_weights(source)["bias"] for source in sources]
        return unless_equal(biases, f"its bias does not vary along `{still[0]}`, which grows")

    return Declaration(
        weights,
        inputs={0: {dim - len(inputs): letter for dim, letter in enumerate(inputs)}},
        outputs=({dim - len(output): letter for dim, letter in enumerate(output)},),
        # Of the axes that the layer makes, the first grows, such as the heads of a projection.
        fixed=tuple(made[1:]),
        unitwise=tuple(letter for letter in kernel if letter in inputs and letter in output),
        resize=resize,
        refuse=refuse,
    )


@register_fusion(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(layer):
    window = tuple(f"window_{dim}" for dim in range(layer.rank))
    channel = _channel(layer)
    if layer.groups == 1:
        kernel = Axes((*window, "input", "output"), sums=("input",))
        return Declaration(
            _with_bias(layer, {"kernel": kernel}, "output"),
            inputs={0: {channel: "input"}},
            outputs=({channel: "output"},),
            sizes={"filters": "output"},
            fixed=window,
        )
    # A group sees its own channels only, so the sources' groups stand side by side.
    weights = {"kernel": Axes((*window, "group input", "output"), averages=False)}

    def resize(config, sources, layouts, norm):
        groups = sum(source.groups for source in sources)
        return type(layer), config | {"groups": groups, "filters": layouts["output"].size}

    def refuse(sources, layouts, norm):
        if not {"input", "output"} <= layouts.keys():
            return (
                "its groups stand side by side, so that its filters grow with the channels that "
                "it reads; name the layers of both"
            )
        per_group = [source.filters // source.groups for source in sources]
        if len(set(per_group)) > 1:
            return f"the filters of a group must be equally many, received {per_group}"
        return unless_blocks(layouts["input"], "its groups")

    return Declaration(
        _with_bias(layer, weights, "output"),
        inputs={0: {channel: "input"}},
        outputs=({channel: "output"},),
        fixed=(*window, "group input"),
        averages=False,
        unitwise=("input",),
        resize=resize,
        refuse=refuse,
    )


@register_fusion(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_convolution(layer):
    window = tuple(f"window_{dim}" for dim in range(layer.rank))
    channel = _channel(layer)
    kernel = Axes((*window, "output", "input"), sums=("input",))
    return Declaration(
        _with_bias(layer, {"kernel": kernel}, "output"),
        inputs={0: {channel: "input"}},
        outputs=({channel: "output"},),
        sizes={"filters": "output"},
        fixed=window,
    )


@register_fusion(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_convolution(layer):
    window = tuple(f"window_{dim}" for dim in range(layer.rank))
    channel, out = _channel(layer), Joined("channels", after=layer.depth_multiplier)
    weights = {"kernel": Axes((*window, "channels", "multiplier"), averages=False)}
    if layer.use_bias:
        weights["bias"] = Axes((out,), averages=False)
    return Declaration(
        weights,
        inputs={0: {channel: "channels"}},
        outputs=({channel: out},),
        fixed=(*window, "multiplier"),
        averages=False,
        unitwise=("channels",),
    )


@register_fusion(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_convolution(layer):
    window = tuple(f"window_{dim}" for dim in range(layer.rank))
    point = tuple(f"point_{dim}" for dim in range(layer.rank))
    channel, mixed = _channel(layer), Joined("input", after=layer.depth_multiplier)
    weights = {
        "depthwise_kernel": Axes((*window, "input", "multiplier"), averages=False),
        "pointwise_kernel": Axes((*point, mixed, "output"), sums=("input",)),
    }
    return Declaration(
        _with_bias(layer, weights, "output"),
        inputs={0: {channel: "input"}},
        outputs=({channel: "output"},),
        sizes={"filters": "output"},
        fixed=(*window, *point, "multiplier"),
        unitwise=("input",),
    )


@register_fusion(layers.PReLU)
def prelu(layer):
    shape = layer.alpha.shape
    units = {
        dim: f"units_{dim}" if size > 1 else f"size 1 of {dim}"
        for dim, size in enumerate(shape, start=1)
        if dim not in (layer.shared_axes or ())
    }
    names = tuple(units.get(dim, f"shared {dim}") for dim in range(1, len(shape) + 1))

    return Declaration(
        {"alpha": Axes(names, averages=False)},
        inputs={0: units},
        outputs=(units,),
        fixed=tuple(set(names) - set(units.values())),
        averages=False,
        unitwise=tuple(units.values()),
    )


def unless_equal(variables, reason):
    """The reason, unless variables of all sources are equal."""
    first, *others = [keras.ops.convert_to_numpy(variable) for variable in variables]
    equal = all(first.shape == other.shape and (first == other).all() for other in others)
    return None if equal else f"{reason}, so it must be equal in every source"


def unless_blocks(layout, users):
    """A reason, unless each source's units lie side by side."""
    if layout.is_blocks:
        return None
    return (
        f"{users} need the units of each source side by side, and a concatenation or a reshape "
        "before it has interleaved them"
    )
