"""Random models of stock layers and operations, built from one program for sources of any width."""

import keras
import numpy as np
from keras import layers, ops

# Kinds of tensors: (batch, units), (batch, steps, units), (batch, height, width, channels).
VECTOR, SEQUENCE, IMAGE = "vector", "sequence", "image"


class Network:
    """Runs a program: each instruction makes one tensor from earlier ones.

    Args:
        program: Instructions `(operation, first, second)` of integers, which choose among what is
            possible at that point, alike for sources of every width.
        width: Of this source.
        norms: Whether norms over units may occur.
    """

    def __init__(self, program, width, norms=True):
        self.width, self.norms = width, norms
        self.inputs = [keras.Input((5,)), keras.Input((4, 3)), keras.Input((6, 6, 2))]
        # (tensor, kind, what its width is made of): equal labels are equal widths in all sources.
        self.pool = [
            (self.inputs[0], VECTOR, "raw 5"),
            (self.inputs[1], SEQUENCE, "raw 3"),
            (self.inputs[2], IMAGE, "raw 2"),
        ]
        for operation, first, second in program:
            self.step(operation, first, second)

    def step(self, operation, first, second):
        tensor, kind, label = self.pool[first % len(self.pool)]
        choices = [*_ANY, *_OF[kind], *(_NORMS if self.norms else ())]
        made = choices[operation % len(choices)](self, tensor, kind, label, second)
        if made is not None:
            self.pool.append(made)

    def partner(self, kind, label, number):
        """Another tensor of the same kind and width."""
        alike = [entry[0] for entry in self.pool if entry[1:] == (kind, label)]
        return alike[number % len(alike)]

    def units(self, number):
        """A width, and its label."""
        factor = 1 + number % 2
        return factor * self.width, f"{factor} width"

    def model(self, heads, seed):
        """The model, whose outputs read the newest tensors; its weights are random."""
        outputs = []
        for number in range(heads):
            tensor, kind, _ = self.pool[-1 - number % len(self.pool)]
            if kind == SEQUENCE:
                tensor = layers.GlobalAveragePooling1D()(tensor)
            elif kind == IMAGE:
                tensor = layers.GlobalMaxPooling2D()(tensor)
            outputs.append(layers.Dense(3, activation=[None, "tanh"][number % 2])(tensor))
        model = keras.Model(self.inputs, outputs)
        rng = np.random.default_rng(seed)
        for variable in model.variables:
            if "seed" in variable.path:
                continue
            value = rng.normal(0.0, 0.6, variable.shape)
            variable.assign(np.abs(value) + 0.3 if "variance" in variable.path else value)
        return model


def dense(net, tensor, kind, label, number):
    units, label = net.units(number)
    activation = ["relu", "tanh", None, "softmax"][number % 4]
    return layers.Dense(units, activation=activation)(tensor), kind, label


def activation(net, tensor, kind, label, number):
    made = [
        layers.Activation("gelu"),
        layers.ReLU(),
        layers.LeakyReLU(0.2),
        layers.Dropout(0.3),
        layers.Softmax(),
        layers.UnitNormalization(),
        layers.Activation(_centred),
    ]
    return made[number % len(made)](tensor), kind, label


def _centred(x):
    """An activation that joins units."""
    return x - ops.mean(x, axis=-1, keepdims=True)


def arithmetic(net, tensor, kind, label, number):
    other = net.partner(kind, label, number)
    made = [
        lambda: tensor + other,
        lambda: tensor * other,
        lambda: (tensor - other) / 2,
        lambda: layers.Add()([tensor, other]),
        lambda: layers.Maximum()([tensor, other]),
        lambda: layers.Average()([tensor, other]),
        lambda: ops.tanh(tensor) * 0.5,
        lambda: 1.0 - tensor,
    ]
    return made[number % len(made)](), kind, label


def gate(net, tensor, kind, label, number):
    return tensor * layers.Dense(1, activation="sigmoid")(tensor), kind, label


def concatenate(net, tensor, kind, label, number):
    others = [entry for entry in net.pool if entry[1] == kind]
    if kind == IMAGE:
        others = [entry for entry in others if entry[0].shape[1:3] == tensor.shape[1:3]]
    if kind == SEQUENCE:
        others = [entry for entry in others if entry[0].shape[1] == tensor.shape[1]]
    other, _, second = others[number % len(others)]
    return layers.Concatenate()([tensor, other]), kind, f"({label} | {second})"


def batch_norm(net, tensor, kind, label, number):
    return layers.BatchNormalization()(tensor), kind, label


def nested(net, tensor, kind, label, number):
    units, made = net.units(number)
    inner = keras.Input(tensor.shape[1:])
    x = layers.Dense(units, activation="tanh")(inner)
    block = keras.Model(inner, layers.Dense(units)(x) + x)
    return block(tensor), kind, made


def convolution(net, tensor, kind, label, number):
    units, label = net.units(number)
    return layers.Conv2D(units, 3, padding="same", activation="relu")(tensor), kind, label


def depthwise(net, tensor, kind, label, number):
    layer = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + number % 2)
    return layer(tensor), kind, label if number % 2 == 0 else f"2 x {label}"


def separable(net, tensor, kind, label, number):
    units, label = net.units(number)
    return layers.SeparableConv2D(units, 3, padding="same")(tensor), kind, label


def image_to_vector(net, tensor, kind, label, number):
    made = [layers.Flatten(), layers.GlobalAveragePooling2D(), layers.GlobalMaxPooling2D()]
    shape = tensor.shape[1] * tensor.shape[2] if number % 3 == 0 else 1
    return made[number % 3](tensor), VECTOR, f"{shape} * {label}"


def pool_and_up(net, tensor, kind, label, number):
    made = [
        lambda: layers.UpSampling2D()(layers.MaxPooling2D()(tensor)),
        lambda: layers.Cropping2D(1)(layers.ZeroPadding2D(1)(tensor)),
        lambda: layers.AveragePooling2D(3, strides=1, padding="same")(tensor),
        lambda: layers.Permute((2, 1, 3))(tensor),
    ]
    return made[number % len(made)](), kind, label


def recurrent(net, tensor, kind, label, number):
    units, made = net.units(number)
    layer = [layers.LSTM, layers.GRU, layers.SimpleRNN][number % 3]
    if number % 2:
        wrapped = layers.Bidirectional(layer(units, return_sequences=True))
        return wrapped(tensor), kind, f"({made} | {made})"
    return layer(units, return_sequences=True)(tensor), kind, made


def attention(net, tensor, kind, label, number):
    layer = layers.MultiHeadAttention(1 + number % 2, 2)
    return layer(tensor, tensor, use_causal_mask=bool(number % 2)), kind, label


def sequence_to_vector(net, tensor, kind, label, number):
    made = [
        lambda: tensor[:, 0],
        lambda: layers.GlobalAveragePooling1D()(tensor),
        lambda: ops.mean(tensor, axis=1),
    ]
    return made[number % len(made)](), VECTOR, f"1 * {label}"


def vector_to_sequence(net, tensor, kind, label, number):
    return layers.RepeatVector(4)(tensor), SEQUENCE, f"seq {label}"


def layer_norm(net, tensor, kind, label, number):
    layer = [layers.LayerNormalization, layers.RMSNormalization][number % 2]
    return layer()(tensor), kind, label


_ANY = (dense, activation, arithmetic, gate, concatenate, batch_norm, nested, dense, arithmetic)
_OF = {
    VECTOR: (vector_to_sequence,),
    SEQUENCE: (recurrent, attention, sequence_to_vector),
    IMAGE: (convolution, depthwise, separable, image_to_vector, pool_and_up),
}
_NORMS = (layer_norm,)
