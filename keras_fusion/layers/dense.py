"""Dense, einsum-dense and embedding layers that can be fused."""

import keras
from keras import ops

from keras_fusion.layers.checks import differing_fields
from keras_fusion.layers.fusable import Fusable


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableDense(Fusable, keras.layers.Dense):
    """`keras.layers.Dense` that can be fused: n + n' inputs to m + m' outputs (Eq. 3-5).

    Takes the arguments of `keras.layers.Dense`, and `axes`, the names of its input and output.

    Examples:
        >>> x = keras.Input((3,))
        >>> a, b = FusableDense(4, activation="relu"), FusableDense(6, activation="relu")
        >>> a(x).shape, b(x).shape, a.fuse(b, grow={"output"}).kernel.shape
        ((None, 4), (None, 6), (3, 10))
    """

    default_axes = ("input", "output")

    def call(self, inputs, training=None):
        if _bias_is_apart(self):
            return _with_bias(self, ops.matmul(inputs, self.kernel))
        # An activation may depend on the number of axes.
        is_linear = self.activation in (None, keras.activations.linear)
        if keras.backend.backend() != "jax" or len(inputs.shape) < 3 or not is_linear:
            return super().call(inputs, training=training)
        # As a product of two matrices: for the kernel's gradient of one with more axes, XLA
        # transposes a copy of the outputs' gradient on a CPU.
        outputs = super().call(ops.reshape(inputs, (-1, inputs.shape[-1])), training=training)
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.units))


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableEmbedding(Fusable, keras.layers.Embedding):
    """`keras.layers.Embedding` that can be fused: the tables are concatenated (section 3.2).

    Takes the arguments of `keras.layers.Embedding`, and `axes`, the names of its two axes. The
    vocabulary never grows: fused networks read the same tokens.

    Examples:
        >>> a, b = FusableEmbedding(100, 4), FusableEmbedding(100, 6)
        >>> a.build(), b.build()
        >>> a.fuse(b).embeddings.shape
        (100, 10)
    """

    default_axes = ("vocabulary", "output")

    def add_weight(self, *args, **kwargs):
        # With mixed precision rows are cast after they are chosen, so that their gradients, one for
        # each time that a token occurs, add up in the table's dtype.
        return super().add_weight(*args, **{"autocast": False, **kwargs})

    def build_fused(self, sources, options):
        del sources, options
        self.build()


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableEinsumDense(Fusable, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` that can be fused; its axes are the letters of its equation.

    By default the first letter that the kernel sums over grows, and the first that its input lacks:
    for `"abc,cde->abde"` (projection to heads) c and d, for `"abde,dec->abc"` d and c. Pass
    `grow` to choose others. Takes the arguments of `keras.layers.EinsumDense`.

    Examples:
        >>> a = FusableEinsumDense("abc,cde->abde", output_shape=(None, 2, 4))
        >>> a.build((None, None, 8))
        >>> a.fuse(a, noise=0.1).kernel.shape
        (16, 4, 4)
    """

    def call(self, inputs, training=None):
        if _bias_is_apart(self):
            return _with_bias(self, ops.einsum(self.equation, inputs, self.kernel))
        return super().call(inputs, training=training)

    def default_grow(self):
        declaration = self._declaration()
        return frozenset(declaration.weights["kernel"].sums[:1]) | declaration.made_axes

    def widened_config(self, sources, options):
        config = super().widened_config(sources, options)
        shapes = [_as_tuple(source.partial_output_shape) for source in sources]
        output = self.equation.split("->")[1][-len(shapes[0]) :]
        config["output_shape"] = tuple(
            sum(sizes) if letter in options.grow and sizes[0] is not None else sizes[0]
            for letter, sizes in zip(output, zip(*shapes, strict=True), strict=True)
        )
        return config

    def config_mismatches(self, sources, options):
        # The weights' shapes say where the outputs differ, axis by axis.
        messages = differing_fields([source.get_config() for source in sources], {"output_shape"})
        grow = dict.fromkeys(sorted(options.grow))
        reason = None if messages else self._declaration().refuse(sources, grow, options.norm)
        return messages + ([reason] if reason else [])


def _bias_is_apart(layer):
    """True where the gradient of a bias would be wrong if Keras added it.

    Of a product plus a bias, in this order, Keras makes TensorFlow's `bias_add`, whose gradient
    adds up bfloat16 one after the other, so that it ends where one more is less than a last digit.
    """
    is_short = layer.bias is not None and layer.compute_dtype == "bfloat16"
    return is_short and keras.backend.backend() == "tensorflow"


def _with_bias(layer, product):
    """A layer's output, of its product and its bias in the order that is no `bias_add`."""
    outputs = ops.add(layer.bias, product)
    return outputs if layer.activation is None else layer.activation(outputs)


def _as_tuple(shape):
    return (shape,) if isinstance(shape, int) or shape is None else tuple(shape)
