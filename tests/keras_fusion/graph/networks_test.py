"""Networks as people write them, of stock layers and of unequal widths, fuse to the mean."""

import keras
import pytest
from keras import layers

from tests.keras_fusion.graph.networks import check_mean, graph

pytestmark = pytest.mark.one_backend


def perceptron(width, features):
    x = layers.Dense(2 * width, activation="relu")(features)
    x = layers.Dropout(0.2)(x)
    return layers.Dense(3, activation="softmax")(layers.Dense(width, activation="relu")(x))


def lenet(width, images):
    x = layers.Conv2D(width, 5, padding="same", activation="tanh")(images)
    x = layers.AveragePooling2D(2)(x)
    x = layers.AveragePooling2D(2)(layers.Conv2D(2 * width, 3, activation="tanh")(x))
    x = layers.Dense(4 * width, activation="tanh")(layers.Flatten()(x))
    return layers.Dense(10)(layers.Dense(3 * width, activation="tanh")(x))


def _normalised(x, filters, size, strides=1):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def residual_network(width, images):
    x = layers.ReLU()(_normalised(layers.Rescaling(1 / 127.5, -1)(images), width, 3))
    for filters, strides in ((width, 1), (2 * width, 2)):
        y = layers.ReLU()(_normalised(x, filters, 3, strides))
        y = _normalised(y, filters, 3)
        shortcut = x if strides == 1 else _normalised(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def mobile_network(width, images):
    x = layers.ReLU(6)(_normalised(images, width, 3, strides=2))
    y = layers.ReLU(6)(_normalised(x, 3 * width, 1))
    y = layers.ZeroPadding2D(1)(y)
    y = layers.ReLU(6)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, use_bias=False)(y)))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(y)
    squeezed = layers.Conv2D(width, 1, activation="relu")(squeezed)
    gate = layers.Conv2D(3 * width, 1, activation="hard_sigmoid")(squeezed)
    x = layers.Add()([x, _normalised(layers.Multiply()([y, gate]), width, 1)])
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def u_net(width, images):
    first = layers.Conv2D(width, 3, padding="same", activation="relu")(images)
    x = layers.MaxPooling2D()(first)
    second = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(3 * width, 3, padding="same")(layers.MaxPooling2D()(second))
    x = layers.Concatenate()([layers.UpSampling2D()(x), second])
    x = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.Conv2DTranspose(width, 2, strides=2)(x), first])
    return layers.Conv2D(1, 1, activation="sigmoid")(x)


def tagger(width, words):
    x = layers.Embedding(9, width, mask_zero=True)(words)
    x = layers.Bidirectional(layers.LSTM(width, return_sequences=True))(x)
    return layers.TimeDistributed(layers.Dense(4))(layers.Dropout(0.1)(x))


def encoder(width, words):
    x = layers.Embedding(9, 2 * width)(words)
    for _ in range(2):
        y = layers.MultiHeadAttention(width, 2, dropout=0.1)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(0.1)(y)]))
        y = layers.Dense(2 * width)(layers.Dense(4 * width, activation="gelu")(x))
        x = layers.LayerNormalization()(x + y)
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(x))


def two_towers(width, words, others):
    embedding = layers.Embedding(9, width)

    def tower(tokens):
        x = layers.GlobalAveragePooling1D()(embedding(tokens))
        return layers.UnitNormalization()(layers.Dense(width + 1, activation="relu")(x))

    return layers.Dot(1)([tower(words), tower(others)])


def several_tasks(width, features):
    trunk = layers.BatchNormalization()(layers.Dense(width, activation="relu")(features))
    kinds = layers.Dense(3, activation="softmax", name="kind")(trunk)
    size = layers.Dense(1, name="size")(layers.Dense(2 * width, activation="selu")(trunk))
    return {"kind": kinds, "size": size}


@pytest.mark.parametrize(
    ("network", "shapes", "dtype"),
    [
        (perceptron, [(5,)], None),
        (lenet, [(10, 10, 1)], None),
        (residual_network, [(8, 8, 3)], None),
        (mobile_network, [(8, 8, 3)], None),
        (u_net, [(8, 8, 1)], None),
        (tagger, [(6,)], "int32"),
        (encoder, [(6,)], "int32"),
        (two_towers, [(4,), (6,)], "int32"),
        (several_tasks, [(5,)], None),
    ],
)
def test_the_mean_of_two_networks(network, shapes, dtype):
    sources = [
        graph(lambda *inputs, w=width: network(w, *inputs), *shapes, seed=seed, dtype=dtype)
        for seed, width in enumerate((4, 3))
    ]
    # Probabilities are averaged as such; everything else is linear behind the last weights.
    average = "logits" if network is tagger else "outputs"
    fused = check_mean(sources, average=average)
    assert fused.output_names == sources[0].output_names
    assert isinstance(fused, keras.Model) and fused.count_params() > sources[0].count_params()
