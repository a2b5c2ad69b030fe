"""Dense, einsum-dense and embedding layers that can be fused."""

import keras
import numpy as np

from keras_fusion.axes import Axes
from keras_fusion.layers.checks import differing_fields
from keras_fusion.layers.fusable import Fusable
from keras_fusion.layers.tree import to_numpy


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableDense(Fusable, keras.layers.Dense):
    """`keras.layers.Dense` that can be fused: n + n' inputs to m + m' outputs (Eq. 3-5).

    Takes the arguments of `keras.layers.Dense`, and `axes`, the names of its input and output.

    Example:
        >>> x = keras.Input((3,))
        >>> a, b = FusableDense(4, activation="relu"), FusableDense(6, activation="relu")
        >>> a(x).shape, b(x).shape, a.fuse(b, grow={"output"}).kernel.shape
        ((None, 4), (None, 6), (3, 10))
    """

    default_axes = ("input", "output")

    def weight_axes(self):
        into, out = self.dims
        axes = {"kernel": Axes((into, out), sums=self.axes[:1])}
        return axes | {"bias": Axes((out,))} if self.use_bias else axes

    def sizes(self):
        return {"units": self.axes[1]}

    def input_axes(self):
        return {"input_shape": self.axes[:1]}


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableEmbedding(Fusable, keras.layers.Embedding):
    """`keras.layers.Embedding` that can be fused: the tables are concatenated (section 3.2).

    Takes the arguments of `keras.layers.Embedding`, and `axes`, the names of its two axes. The
    vocabulary never grows: fused networks read the same tokens.

    Example:
        >>> a, b = FusableEmbedding(100, 4), FusableEmbedding(100, 6)
        >>> a.build(), b.build()
        >>> a.fuse(b).embeddings.shape
        (100, 10)
    """

    default_axes = ("vocabulary", "output")

    def weight_axes(self):
        return {"embeddings": Axes(self.axes)}

    def sizes(self):
        return {"output_dim": self.axes[1]}

    def default_grow(self):
        return frozenset(self.axes[1:])

    def build_fused(self, sources, options):
        del sources, options
        self.build()


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableEinsumDense(Fusable, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` that can be fused; its axes are the letters of its equation.

    By default the first letter that the kernel sums over grows, and the first that its input lacks:
    for `"abc,cde->abde"` (projection to heads) c and d, for `"abde,dec->abc"` d and c. Pass
    `grow` to choose others. Takes the arguments of `keras.layers.EinsumDense`.

    Example:
        >>> a = FusableEinsumDense("abc,cde->abde", output_shape=(None, 2, 4))
        >>> a.build((None, None, 8))
        >>> a.fuse(a, noise=0.1).kernel.shape
        (16, 4, 4)
    """

    def _letters(self):
        """Letters of input, kernel and output, without an ellipsis."""
        inputs, output = self.equation.replace("...", "").replace(" ", "").split("->")
        return *inputs.split(","), output

    def weight_axes(self):
        _, kernel, output = self._letters()
        summed = tuple(letter for letter in kernel if letter not in output)
        axes = {"kernel": Axes(tuple(kernel), sums=summed)}
        if self.bias_axes:
            first = min(output.index(letter) for letter in self.bias_axes)
            # A dimension that the bias does not vary along has size one and grows never.
            axes["bias"] = Axes(
                tuple(
                    letter if letter in self.bias_axes else f"{letter} (size 1)"
                    for letter in output[first:]
                )
            )
        return axes

    def input_axes(self):
        return {"input_shape": tuple(self._letters()[0])}

    def default_grow(self):
        inputs, kernel, output = self._letters()
        summed = [letter for letter in kernel if letter not in output]
        made = [letter for letter in kernel if letter not in inputs]
        return frozenset(summed[:1] + made[:1])

    def widened_config(self, sources, options):
        config = super().widened_config(sources, options)
        shapes = [_as_tuple(source.partial_output_shape) for source in sources]
        output = self._letters()[2][-len(shapes[0]) :]
        config["output_shape"] = tuple(
            sum(sizes) if letter in options.grow and sizes[0] is not None else sizes[0]
            for letter, sizes in zip(output, zip(*shapes, strict=True), strict=True)
        )
        return config

    def config_mismatches(self, sources, options):
        # The weights' shapes say where the outputs differ, axis by axis.
        messages = differing_fields([source.get_config() for source in sources], {"output_shape"})
        bias_axes = self.bias_axes or ""
        shared = sorted(options.grow & set(self.weight_axes()["kernel"].outputs) - set(bias_axes))
        if bias_axes and shared and not messages:
            biases = [to_numpy(source.bias) for source in sources]
            if not all(np.array_equal(biases[0], bias) for bias in biases[1:]):
                messages.append(
                    f"bias_axes: the bias does not vary along `{shared[0]}`, which grows, so it "
                    "must be equal in every source"
                )
        return messages


def _as_tuple(shape):
    return (shape,) if isinstance(shape, int) or shape is None else tuple(shape)
