"""Every stock layer and operation that has a rule fuses to the mean, many in one network."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from tests.keras_fusion.fusion_contract import numpy
from tests.keras_fusion.graph.networks import check_mean, pair, randomised

pytestmark = pytest.mark.one_backend


def chain(*makers):
    """Function of a width that returns one of a tensor: layers, each made for the width."""

    def function(width):
        def network(x):
            for make in makers:
                x = make(width)(x)
            return layers.Dense(2)(x)

        return network

    return function


def plain(*stack):
    """Makers of layers that know no width; a layer is made anew for each source."""
    return [
        lambda width, layer=layer: type(layer).from_config(layer.get_config()) for layer in stack
    ]


def random(*calls):
    """Makers of layers with a seed, which are made with no variable before the test runs."""
    return [lambda width, call=call: call[0](*call[1:]) for call in calls]


ONE = [
    lambda width: layers.Conv1D(width, 3, padding="same", activation="relu"),
    *plain(layers.MaxPooling1D(), layers.UpSampling1D()),
    lambda width: layers.Conv1DTranspose(width + 1, 2, strides=2),
    *plain(layers.AveragePooling1D(2), layers.DepthwiseConv1D(2, depth_multiplier=2)),
    lambda width: layers.SeparableConv1D(width, 2),
    *plain(layers.ZeroPadding1D(), layers.Cropping1D(1)),
    *random((layers.SpatialDropout1D, 0.1)),
    *plain(layers.GlobalMaxPooling1D()),
]
TWO = [
    lambda width: layers.Conv2D(width, 3, padding="same", activation="relu"),
    *plain(layers.MaxPooling2D(), layers.UpSampling2D(interpolation="bilinear")),
    lambda width: layers.Conv2DTranspose(width + 1, 2, strides=2),
    *plain(layers.AveragePooling2D(2), layers.DepthwiseConv2D(2, depth_multiplier=2)),
    lambda width: layers.SeparableConv2D(width, 2),
    *plain(layers.ZeroPadding2D(), layers.Cropping2D(1)),
    *random((layers.SpatialDropout2D, 0.1)),
    *plain(layers.Resizing(4, 4), layers.GroupNormalization(-1), layers.GlobalAveragePooling2D()),
]
THREE = [
    lambda width: layers.Conv3D(width, 2, padding="same", activation="relu"),
    *plain(layers.MaxPooling3D(), layers.UpSampling3D()),
    lambda width: layers.Conv3DTranspose(width + 1, 2, strides=2),
    *plain(layers.AveragePooling3D(2), layers.ZeroPadding3D(), layers.Cropping3D(1)),
    *random((layers.SpatialDropout3D, 0.1)),
    *plain(layers.GlobalMaxPooling3D()),
]
UNITS = [
    lambda width: layers.Dense(width),
    *plain(layers.ReLU(), layers.LeakyReLU(), layers.ELU(), layers.PReLU(), layers.Softmax()),
    *random((layers.Dropout, 0.1), (layers.GaussianDropout, 0.1), (layers.AlphaDropout, 0.1)),
    *random((layers.GaussianNoise, 0.1)),
    *plain(layers.ActivityRegularization(0.1), layers.Identity()),
    *plain(layers.BatchNormalization(), layers.LayerNormalization(), layers.RMSNormalization()),
    *plain(layers.UnitNormalization()),
    lambda width: layers.EinsumDense("ab,bc->ac", width, bias_axes="c"),
    *plain(layers.RepeatVector(3), layers.Permute((2, 1)), layers.Flatten()),
]
STEPS = [
    lambda width: layers.SimpleRNN(width, return_sequences=True),
    lambda width: layers.GRU(width, return_sequences=True, go_backwards=True),
    lambda width: layers.LSTM(width + 1, return_sequences=True),
    lambda width: layers.RNN([layers.GRUCell(width), layers.LSTMCell(2)], return_sequences=True),
    lambda width: layers.Bidirectional(layers.LSTM(width, return_sequences=True)),
    lambda width: layers.TimeDistributed(layers.Dense(width, activation="relu")),
    *plain(layers.GlobalAveragePooling1D()),
]
# Nothing has grown before the first layer with weights: anything may stand there.
IMAGES = [
    *plain(layers.Rescaling(1 / 255), layers.Resizing(6, 6), layers.CenterCrop(5, 5)),
    *random((layers.RandomFlip,), (layers.RandomRotation, 0.1), (layers.RandomContrast, 0.1)),
    *random((layers.RandomZoom, 0.1), (layers.RandomTranslation, 0.1, 0.1), (layers.Flatten,)),
    lambda width: layers.Dense(width, activation="relu"),
]


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize(
    ("makers", "shape"),
    [
        (ONE, (8, 2)),
        (TWO, (6, 6, 2)),
        (THREE, (4, 4, 4, 1)),
        (UNITS, (5,)),
        (STEPS, (4, 3)),
        (IMAGES, (8, 8, 1)),
    ],
    ids=["one", "two", "three", "units", "steps", "images"],
)
def test_layers(makers, shape):
    check_mean(pair(chain(*makers), shape))


def test_merges():
    def function(width):
        def network(x):
            a, b = layers.Dense(width)(x), layers.Dense(width)(x)
            kinds = (layers.Add, layers.Subtract, layers.Multiply, layers.Average)
            merged = [kind()([a, b]) for kind in (*kinds, layers.Maximum, layers.Minimum)]
            joint = layers.Concatenate()([*merged, x])
            return layers.Dense(2)(layers.Concatenate(axis=1)([joint, joint]))

        return network

    check_mean(pair(function, (3, 5)))


def test_products_over_units_are_those_of_each_source():
    def function(width):
        def network(x):
            scores = layers.Dot(2)([layers.Dense(width)(x), layers.Dense(width)(x)])
            return layers.Dense(2)(layers.Flatten()(scores))

        return network

    check_mean(pair(function, (3, 5)))


def test_a_reshape_of_units_and_positions():
    def function(width):
        def network(x):
            x = layers.Reshape((6, width))(layers.Dense(width)(x))
            x = layers.Conv1D(2 * width, 2, strides=2)(x)
            return layers.Dense(2)(layers.Reshape((3 * 2 * width,))(x))

        return network

    check_mean(pair(function, (2, 3, 4)))


def test_an_attention_over_two_dimensions():
    def function(width):
        def network(x):
            x = layers.Dense(2 * width)(x)
            y = layers.MultiHeadAttention(width, 2, attention_axes=(1, 2))(x, x)
            return layers.Dense(2)(layers.Flatten()(x + y))

        return network

    check_mean(pair(function, (2, 3, 4)))


APART = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("softsign", "tanh", "sigmoid", "hard_sigmoid", "hard_silu", "hard_tanh", "hard_shrink"),
    *("soft_shrink", "tanh_shrink", "squareplus", "log_sigmoid", "sparse_plus", "linear"),
    "sparse_sigmoid",
)
JOINING = ("softmax", "log_softmax", "sparsemax")


@pytest.mark.parametrize("names", [APART, JOINING], ids=["apart", "joining"])
def test_activations(names):
    def function(width):
        def network(x):
            hidden = [layers.Dense(width, activation=name)(x) for name in names]
            hidden += [layers.Activation(name)(layers.Dense(width)(x)) for name in names]
            return layers.Dense(2)(layers.Add()(hidden))

        return network

    fused = check_mean(pair(function, (5,)))
    parts = sum(isinstance(layer, layers.Activation) for layer in fused.layers)
    # What joins units is computed for each of the two sources, also behind a Dense.
    assert parts == (4 if names is JOINING else 1) * len(names)


OPERATIONS = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "half": lambda a, b: (a + b) / 2 + a * 0.5,
    "slice": lambda a, b: a[:, 0] + b[:, -1],
    "add": lambda a, b: ops.add(a, ops.multiply(b, 2.0)),
    "activations": lambda a, b: ops.relu(a) + ops.gelu(b),
    "softmax": lambda a, b: ops.softmax(a) + ops.softmax(b, axis=1),
    "reshape": lambda a, b: ops.reshape(a + b, (-1, 3 * a.shape[-1])),
    "transpose": lambda a, b: ops.transpose(ops.transpose(a, (0, 2, 1)), (0, 2, 1)) + b,
    "concatenate": lambda a, b: ops.concatenate([a, b], axis=-1),
    "mean": lambda a, b: ops.mean(a, axis=1) + ops.max(b, axis=1),
    "einsum": lambda a, b: ops.einsum("bsu,btu->bst", a, b),
    "matmul": lambda a, b: ops.matmul(ops.softmax(ops.matmul(a, ops.swapaxes(b, 1, 2))), b),
    "where": lambda a, b: ops.where(a > 0, a, b),
    "split": lambda a, b: ops.multiply(*ops.split(ops.concatenate([a, b], -1), 2, axis=-1)),
    "stack": lambda a, b: ops.mean(ops.stack([a, b], axis=1), axis=1),
    "take": lambda a, b: ops.take(a, [0, 2], axis=1) + b[:, :2],
    "over the batch": lambda a, b: a - ops.mean(b, axis=0, keepdims=True),
    "sort": lambda a, b: ops.sort(a, axis=-1) + ops.flip(b, axis=-1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    def function(width):
        def network(x):
            made = OPERATIONS[name](layers.Dense(width)(x), layers.Dense(width)(x))
            return layers.Dense(2)(made)

        return network

    check_mean(pair(function, (3, 5)))


def test_what_has_no_rule_behind_the_first_layer_that_grows():
    def function(make):
        return lambda width: lambda x: layers.Dense(2)(make(layers.Dense(width)(x)))

    with pytest.raises(kf.FusionError, match="a Lambda may stand only before the first layer"):
        kf.fuse(pair(function(layers.Lambda(lambda x: 2 * x)), (5,)))
    with pytest.raises(kf.FusionError, match="it would mask a step only where all sources would"):
        kf.fuse(pair(function(lambda x: layers.GRU(2)(layers.Masking()(x))), (3, 5)))
    with pytest.raises(kf.FusionError, match="operation `mean.*joins units that fusion keeps"):
        kf.fuse(pair(function(lambda x: x - ops.mean(x)), (5,)))


def test_nested_models_to_any_depth_and_one_that_is_called_twice():
    def block(width, depth):
        inner = keras.Input((width,))
        x = layers.Dense(width, activation="tanh")(inner)
        x = block(width, depth - 1)(x) if depth else layers.BatchNormalization()(x)
        return keras.Model(inner, layers.Add()([inner, x]), name=f"depth_{depth}")

    def function(width):
        def network(x):
            twice = block(width, 2)
            return layers.Dense(2)(twice(twice(layers.Dense(width)(x))))

        return network

    fused = check_mean(pair(function, (5,)))
    nested = fused.get_layer("depth_2").get_layer("depth_1").get_layer("depth_0")
    assert isinstance(nested, keras.Model) and nested.input_shape == (None, 7)


def learned(layer, data):
    layer.adapt(data)
    return layer


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's")
@pytest.mark.parametrize(
    ("preprocessing", "values"),
    [
        (lambda: learned(layers.Discretization(num_bins=3), np.arange(9.0)), [[0.5], [7.0]]),
        (lambda: layers.Hashing(4), [["a"], ["b"]]),
        (lambda: learned(layers.IntegerLookup(), [3, 5, 7]), [[5], [4]]),
        (
            lambda: learned(
                layers.TextVectorization(max_tokens=4, output_sequence_length=2), ["a b", "b c"]
            ),
            [["a b c"], ["c d"]],
        ),
    ],
    ids=["discretization", "hashing", "integers", "text"],
)
def test_numbers_that_words_and_bins_become(preprocessing, values):
    import tensorflow as tf

    values = tf.constant(values)

    def source(width, seed):
        inputs = keras.Input((1,), dtype=values.dtype.name)
        x = layers.Embedding(8, width)(preprocessing()(inputs))
        model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        return model

    sources = [source(4, 0), source(3, 1)]
    fused = kf.fuse(sources)
    mean = np.mean([numpy(model(values)) for model in sources], 0)
    np.testing.assert_allclose(numpy(fused(values)), mean, atol=1e-5)


def test_a_report_is_a_dictionary_too():
    sources = [
        randomised(keras.Sequential([keras.Input((3,)), layers.Dense(width), layers.Dense(1)]), 0)
        for width in (2, 4)
    ]
    first, *_ = kf.report(kf.fuse(sources)).to_dict()["weights"]
    assert first["path"].endswith("/kernel") and first["shape"] == (3, 6)
    assert first["sources"] == ((3, 2), (3, 4)) and first["operation"] == "concatenation"
    assert first["eta"] == 0.0 and first["factor"] == "1"
