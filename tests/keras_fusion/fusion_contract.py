"""The contract of everything fusable, as one function that each layer's test calls.

A fusable layer stands in for a Keras layer, computes the concatenation (or the mean) of its
sources, loses no weight, survives saving and loading in safe mode, trains, works in mixed
precision, hands masks on, and says what it cannot fuse.
"""

import inspect
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers import FusableDense, FusableEmbedding

# JAX would compile every operation of a step by itself; TensorFlow takes longer to trace a step.
EAGERLY = keras.backend.backend() != "jax"


def run_fusion_test(
    layer_class,
    init_kwargs,
    *,
    tmp_path,
    input_shapes,
    other_kwargs=None,
    other_shapes=None,
    input_axis=-1,
    output_axis=-1,
    grow=None,
    vocabulary=None,
    keras_class=None,
    to_keras=None,
    mismatch=None,
    masking=True,
):
    """Checks everything that a fusable layer promises.

    Args:
        layer_class: The fusable layer.
        init_kwargs: Constructor arguments of the first source.
        tmp_path: Folder to save a model in.
        input_shapes: Shapes of the call's positional tensors, with the batch.
        other_kwargs: What differs in the second source, such as its width.
        other_shapes: The second source's input shapes; default the first's.
        input_axis: Axis along which the fused layer's inputs are the concatenation of the
            sources'; None where all share their inputs.
        output_axis: Axis along which outputs are concatenated; None where they are averaged.
        grow: Axes that grow; default the layer's.
        vocabulary: Inputs are integers below this; default normal values.
        keras_class: The Keras layer that this one stands for, or None.
        to_keras: Maps the layer's `get_weights()` to those of `keras_class`.
        mismatch: (arguments of a third source that must not fuse, regular expression of why).
        masking: Whether the layer must hand its input's mask on.
    """
    other_kwargs = init_kwargs | (other_kwargs or {})
    shapes = [input_shapes, other_shapes or input_shapes]
    inputs = [random_inputs(shape, vocabulary, seed) for seed, shape in enumerate(shapes)]
    if input_axis is None:
        inputs = [inputs[0]] * 2
    sources = [
        built(layer_class(**kwargs), values, seed)
        for seed, (kwargs, values) in enumerate(
            zip([init_kwargs, other_kwargs], inputs, strict=True)
        )
    ]
    if keras_class is not None:
        check_stands_for(layer_class, keras_class, init_kwargs, inputs[0], to_keras)
    fused = sources[0].fuse(*sources[1:], grow=grow)
    together = inputs[0]
    if input_axis is not None:
        together = [np.concatenate(pair, input_axis) for pair in zip(*inputs, strict=True)]
    check_output(fused, sources, together, inputs, output_axis)
    check_every_weight(fused, sources, average=output_axis is None)
    check_config(fused)
    check_saving(fused, together, vocabulary, tmp_path)
    check_training(fused, together, vocabulary)
    check_mixed_precision(layer_class, init_kwargs, inputs[0])
    check_errors(layer_class, sources[0], init_kwargs, inputs[0], grow, mismatch)
    if masking:
        check_masking(fused, together, vocabulary)


def random_inputs(shapes, vocabulary=None, seed=0):
    """Reproducible inputs: integers below `vocabulary`, or normal values."""
    rng = np.random.default_rng(seed)
    if vocabulary is not None:
        return [rng.integers(0, vocabulary, shape).astype("int32") for shape in shapes]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def built(layer, inputs, seed=0):
    """The layer, built by a call, with no weight left at a value such as 0 or 1."""
    layer(*inputs)
    rng = np.random.default_rng(seed + 100)
    layer.set_weights(
        [rng.normal(1.0, 0.5, weight.shape).astype(weight.dtype) for weight in layer.get_weights()]
    )
    return layer


def numpy(tensor):
    """A tensor's values in float32 at least."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def check_stands_for(layer_class, keras_class, kwargs, inputs, to_keras=None):
    """The same constructor, the same initial weights, the same function."""
    ours = list(inspect.signature(layer_class).parameters)
    peers = list(inspect.signature(keras_class).parameters)
    if "args" not in ours:
        assert ours[: len(peers) - 1] == [name for name in peers if name != "kwargs"]
    made = []
    for kind in (layer_class, keras_class):
        keras.utils.set_random_seed(0)
        layer = kind(**kwargs)
        layer(*inputs)
        made.append(layer)
    ours, peer = made
    if to_keras is None:
        for a, b in zip(ours.get_weights(), peer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    built(ours, inputs)
    weights = ours.get_weights()
    peer.set_weights(weights if to_keras is None else to_keras(weights))
    np.testing.assert_allclose(numpy(ours(*inputs)), numpy(peer(*inputs)), rtol=1e-5, atol=1e-5)
    shapes = [value.shape for value in inputs]
    if len(shapes) == 1:
        assert ours.compute_output_shape(shapes[0]) == peer.compute_output_shape(shapes[0])
    # Keras' attention writes the shapes that it was built with into its configuration, too.
    needless = {"quantization_config", "query_shape", "key_shape", "value_shape"}
    assert set(peer.get_config()) - needless <= set(ours.get_config())


def check_output(fused, sources, together, inputs, output_axis):
    """Eq. 5: the concatenation of the sources' outputs; or their mean."""
    outputs = [numpy(source(*values)) for source, values in zip(sources, inputs, strict=True)]
    expected = np.mean(outputs, 0) if output_axis is None else np.concatenate(outputs, output_axis)
    result = numpy(fused(*together))
    assert fused.built and type(fused) is type(sources[0])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def check_every_weight(fused, sources, average):
    """Every entry of every source is in the fused layer, and nothing but zeros besides."""
    assert len(fused.get_weights()) == len(sources[0].get_weights())
    if average:
        return
    for weight, *origins in zip(
        fused.get_weights(), *(source.get_weights() for source in sources), strict=True
    ):
        expected = np.sort(np.concatenate([origin.ravel() for origin in origins]))
        np.testing.assert_array_equal(np.sort(weight[weight != 0]), expected)


def check_config(layer):
    """A layer made from the configuration has the same configuration, and the same weights."""
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    again.build_from_config(layer.get_build_config())
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]
    assert [w.name for w in again.weights] == [w.name for w in layer.weights]


def functional_model(layer, inputs, vocabulary=None):
    """A functional model of nothing but the layer."""
    dtype = "int32" if vocabulary is not None else "float32"
    symbols = [keras.Input(value.shape[1:], dtype=dtype) for value in inputs]
    return keras.Model(symbols, layer(*symbols))


def check_saving(layer, inputs, vocabulary, tmp_path):
    """A model that holds the layer comes back from a .keras file, and can be fused again."""
    model = functional_model(layer, inputs, vocabulary)
    path = tmp_path / f"{layer.name}.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(numpy(loaded(inputs)), numpy(model(inputs)))
    again = loaded.get_layer(layer.name)
    assert type(again) is type(layer) and again.blocks == layer.blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SymmetryWarning)
        wide = again.fuse(layer)
    for weight, twice in zip(layer.weights, wide.weights, strict=True):
        assert twice.shape != weight.shape


def check_training(layer, inputs, vocabulary):
    """Steps of gradient descent on the fused layer lower the loss and move every weight."""
    if not layer.weights:
        return
    before = layer.get_weights()
    model = functional_model(layer, inputs, vocabulary)
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=EAGERLY)
    target = np.zeros(model(inputs).shape, "float32")
    losses = [float(model.train_on_batch(inputs, target)) for _ in range(3)]
    assert losses[2] < losses[0]
    for new, old in zip(layer.get_weights(), before, strict=True):
        assert not np.array_equal(new, old)
    layer.set_weights(before)


def gradients_of_the_sum(layer, inputs):
    """Gradients of the sum of a layer's outputs, by its trainable weights, as arrays."""
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=inputs.dtype), layer])
    model.compile(
        keras.optimizers.SGD(1.0), lambda target, output: ops.sum(ops.cast(output, "float32"))
    )
    before = [numpy(weight) for weight in layer.trainable_weights]
    model.train_on_batch(inputs, np.zeros(len(inputs)))
    return [
        old - numpy(weight) for old, weight in zip(before, layer.trainable_weights, strict=True)
    ]


def check_mixed_precision(layer_class, kwargs, inputs):
    """Weights stay float32, outputs are bfloat16, and a fusion keeps the policy."""
    layer = layer_class(**kwargs | {"dtype": "mixed_bfloat16"})
    output = layer(*inputs)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {weight.dtype for weight in layer.weights} <= {"float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SymmetryWarning)
        fused = layer.fuse(layer)
    assert fused.dtype_policy.name == "mixed_bfloat16"
    assert {weight.dtype for weight in fused.weights} <= {"float32"}


class Probe(keras.layers.Layer):
    """Remembers the mask that came with its input."""

    supports_masking = True

    def call(self, inputs, mask=None):
        self.received = mask
        return inputs


def check_masking(layer, inputs, vocabulary):
    """The mask of the (first) input reaches what follows."""
    first, *rest = [value.copy() for value in inputs]
    first[:, -1] = 0
    probe = Probe()
    if vocabulary is None:
        first = keras.layers.Masking()(first)
    probe(layer(first, *rest))
    assert probe.received is not None
    assert not ops.convert_to_numpy(probe.received)[:, -1].any()


def check_errors(layer_class, layer, kwargs, inputs, grow=None, mismatch=None):
    """Checks that one `FusionError` names all that cannot be fused."""
    with pytest.raises(FusionError, match="at least two networks, received 1"):
        layer.fuse()
    with pytest.raises(FusionError, match="source 1 is a Dense, which is not fusable"):
        layer.fuse(keras.layers.Dense(2))
    fresh = layer_class(**kwargs)
    if not fresh.built:  # Keras builds a layer without weights in its constructor.
        with pytest.raises(FusionError, match=r"source 1 \(`\w+`\) is not built"):
            layer.fuse(fresh)
    other_class = FusableEmbedding if layer_class is FusableDense else FusableDense
    other = other_class(2, 2) if other_class is FusableEmbedding else other_class(2)
    other.build((None, 2))
    with pytest.raises(FusionError, match=f"{layer_class.__name__} vs {other_class.__name__}"):
        layer.fuse(other)
    with pytest.raises(FusionError, match="norm must be one of .* Received: norm='batch'"):
        layer.fuse(layer, norm="batch")
    if mismatch is not None:
        changed, message = mismatch
        with pytest.raises(FusionError, match=message):
            layer.fuse(built(layer_class(**kwargs | changed), inputs), grow=grow)
    if layer.weights:
        broken = type(layer).from_config(layer.get_config())
        broken(*inputs)
        values = layer.get_weights()
        values[0].flat[:2] = [np.nan, np.inf]
        broken.set_weights(values)
        with pytest.raises(FusionError, match="holds 2 NaN or infinite values"):
            layer.fuse(broken)
