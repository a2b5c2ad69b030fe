"""Fusing any functional or sequential Keras model whose layers are fusable.

The axes that grow follow from the model's graph. Its inputs are shared, so they do not grow; what
a fusable layer makes of them is the concatenation of the sources' representations, which grows;
the layers whose outputs leave the model average, so their outputs do not grow (section 3.1).
"""

import dataclasses
import warnings

import keras

from keras_fusion.errors import SymmetryWarning
from keras_fusion.layers import checks
from keras_fusion.layers.fusing import FusionOptions, build_fused, mismatches
from keras_fusion.layers.tree import Values, is_fusable

# Weightless layers that treat every unit apart, so that they act on a concatenation as on its
# parts. Softmax, Flatten or Concatenate do not.
TRANSPARENT = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.AlphaDropout,
    keras.layers.Average,
    keras.layers.AveragePooling1D,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.Masking,
    keras.layers.MaxPooling1D,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.SpatialDropout1D,
    keras.layers.Subtract,
)
# Of these, what does not carry the mean of two outputs to the mean of the results.
NOT_LINEAR = (keras.layers.Maximum, keras.layers.Minimum, keras.layers.Multiply)
_MIXING_ACTIVATIONS = ("softmax", "log_softmax", "sparsemax", "glu")


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of an operation: the tensors that go in and come out."""

    operation: object
    inputs: tuple
    outputs: tuple


def fuse_functional(models, norm, noise):
    """Fuses functional or sequential models of one structure.

    Args:
        models: Built `keras.Sequential` or functional models, at least two.
        norm: `"property"` or `"rule"`.
        noise: A `keras_fusion.noise.Noise`.

    Returns:
        A model of the first one's class, whose outputs before the last activation are the mean of
        the sources'.

    Raises:
        FusionError: Naming every layer that cannot be fused, and every mismatch.
    """
    checks.raise_mismatches(_structure_mismatches(models))
    growth, messages = infer_growth(models[0])
    pairs = list(zip(*(_layers(model) for model in models), strict=True))
    options = {
        id(layers[0]): FusionOptions(growth[id(layers[0])], norm, noise)
        for layers in pairs
        if id(layers[0]) in growth
    }
    for layers in pairs:
        if id(layers[0]) in options:
            found = mismatches(layers, options[id(layers[0])])
            messages += [f"layer `{layers[0].name}`: {message}" for message in found]
    checks.raise_mismatches(messages)
    if not noise.scale:
        values = {id(model): Values(enumerate(model.weights)) for model in models}
        checks.warn_if_never_parting(models, [values[id(model)] for model in models])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SymmetryWarning)
        fused = {
            id(layers[0]): build_fused(
                layers, options[id(layers[0])], path=layers[0].name, name=layers[0].name
            )
            for layers in pairs
            if id(layers[0]) in options
        }
    return keras.models.clone_model(
        models[0],
        clone_function=lambda layer: (
            fused[id(layer)] if id(layer) in fused else type(layer).from_config(layer.get_config())
        ),
    )


def infer_growth(model):
    """Which axes of every fusable layer grow when models of this structure are fused.

    Args:
        model: A built functional or sequential model.

    Returns:
        `{id(layer): names of the axes that grow}`, and messages on what cannot be fused.
    """
    calls = _calls(model)
    leaving, messages = _leaving(calls, [id(tensor) for tensor in model.outputs])
    grown, growth = {}, {}
    for call in calls:
        layer = call.operation
        states = {grown.get(id(tensor), False) for tensor in call.inputs}
        if len(states) > 1:
            messages.append(f"layer `{layer.name}` joins what fusion widens with what it does not")
        comes_in, goes_out = any(states), not any(id(tensor) in leaving for tensor in call.outputs)
        if _has_weights(layer):
            names, problem = _layer_growth(layer, comes_in, goes_out)
            if problem or growth.setdefault(id(layer), names) != names:
                messages.append(problem or f"layer `{layer.name}` is called in two ways")
        elif isinstance(layer, keras.layers.InputLayer):
            goes_out = False
        elif isinstance(layer, TRANSPARENT) or is_fusable(layer):
            goes_out = comes_in
            if comes_in and _mixes(layer):
                messages.append(f"layer `{layer.name}` mixes units that fusion keeps apart")
        else:
            messages.append(f"layer `{layer.name}` ({type(layer).__name__}) is not fusable")
        grown |= dict.fromkeys(map(id, call.outputs), goes_out)
    return growth, messages


def is_graph(model):
    """Whether a model is sequential or functional, so that its graph can be read."""
    return isinstance(model, keras.Sequential) or (
        isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")
    )


def _has_weights(layer):
    return is_fusable(layer) and bool(layer.weights)


def _layer_growth(layer, comes_in, goes_out):
    """The axes of a layer that grow, and what is wrong with that, if anything."""
    inputs, outputs = layer.flow()
    if inputs & outputs and comes_in != goes_out:
        what = "would average" if comes_in else "would widen"
        return frozenset(), (
            f"layer `{layer.name}` ({type(layer).__name__}) {what} its input, which it cannot; "
            "put a FusableDense between it and the model's " + ("output" if comes_in else "input")
        )
    if goes_out and _mixes(layer):
        return frozenset(), f"layer `{layer.name}` mixes units that fusion keeps apart"
    grow = {name for name in layer.default_grow() if name not in inputs | outputs}
    grow |= {name for name in layer.default_grow() & inputs if comes_in}
    grow |= {name for name in layer.default_grow() & outputs if goes_out}
    return frozenset(grow), None


def _mixes(layer):
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", None) in _MIXING_ACTIVATIONS


def _leaving(calls, outputs):
    """Tensors that leave the model, directly or through transparent layers only.

    A tensor that leaves and is also used inside would carry the mean into the network, which no
    source does: that is a message. So is a product of outputs, whose mean is not that of means.
    """
    leaving, messages = set(outputs), []
    for call in reversed(calls):
        if not _has_weights(call.operation):
            if any(id(tensor) in leaving for tensor in call.outputs):
                leaving |= set(map(id, call.inputs))
    learned = set()
    for call in calls:
        layer, inputs, results = (
            call.operation,
            set(map(id, call.inputs)),
            set(map(id, call.outputs)),
        )
        if learned & leaving & inputs and (_has_weights(layer) or not results & leaving):
            messages.append(
                f"layer `{layer.name}` uses an output of the model, which fusion would replace by "
                "the sources' mean"
            )
        if isinstance(layer, NOT_LINEAR) and results & leaving and learned & inputs:
            messages.append(
                f"layer `{layer.name}` ({type(layer).__name__}) joins outputs of the model, of "
                "which fusion takes the mean one by one; put a FusableDense behind it"
            )
        if _has_weights(layer) or learned & inputs:
            learned |= results
    return leaving, messages


def _layers(model):
    """The model's layers, in an order that depends on its structure alone."""
    return list({id(call.operation): call.operation for call in _calls(model)}.values())


def _calls(model):
    """Every call inside a functional or sequential model, in the order they are computed."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return [
        _Call(node.operation, tuple(node.input_tensors), tuple(node.output_tensors))
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
    ]


def _structure_mismatches(models):
    messages = [
        f"source {index} (`{model.name}`) is not built; call it on data or `build` it first"
        for index, model in enumerate(models)
        if isinstance(model, keras.Sequential) and not model.built
    ]
    if messages:
        return messages
    structures = [[type(layer).__name__ for layer in _layers(model)] for model in models]
    lengths = [len(structure) for structure in structures]
    if len(set(lengths)) > 1:
        return ["number of layers: " + " vs ".join(map(str, lengths))]
    return [
        f"layer {index}: " + " vs ".join(names)
        for index, names in enumerate(zip(*structures, strict=True))
        if len(set(names)) > 1
    ]
