"""Norms over groups of units: the fusion property or the fusion rule (section 3.2).

A norm cannot be fused and keep both. With `groups` it normalises each group of units apart: one
group a source keeps the fusion property. Without, it normalises all units together: the
architecture of the source, the fusion rule.
"""

import keras
from keras import ops

from keras_fusion.axes import Axes
from keras_fusion.layers.declarations import UNDECLARED
from keras_fusion.layers.fusable import Fusable


def apply_by_group(inputs, groups, function):
    """Applies a function of the last axis to each group of units apart.

    Equal groups cost one reshape. Unequal ones are split and concatenated.

    Args:
        inputs: Tensor (…, units).
        groups: Widths of the groups, adding up to units, or None for one group.
        function: Maps (…, width) to the same shape, from statistics over the last axis.

    Returns:
        Tensor of the shape of `inputs`.
    """
    if groups is None or len(groups) == 1:
        return function(inputs)
    if len(set(groups)) == 1:
        shape = ops.shape(inputs)
        grouped = ops.reshape(inputs, (*shape[:-1], len(groups), groups[0]))
        return ops.reshape(function(grouped), shape)
    ends = [sum(groups[:index]) for index in range(1, len(groups))]
    return ops.concatenate([function(part) for part in ops.split(inputs, ends, axis=-1)], axis=-1)


class _GroupedNorm(Fusable):
    """Base of the fusable norms: `groups`, as it follows from the sources.

    Args:
        groups: Widths of the groups of units that are normalised apart, adding up to the size of
            the last axis. Default: one group.
    """

    default_axes = ("input",)

    def __init__(self, *args, groups=None, **kwargs):
        super().__init__(*args, **kwargs)
        # A norm treats every position apart; Keras' RMSNormalization forgets to say so.
        self.supports_masking = True
        self.groups = None if groups is None else tuple(groups)

    def build(self, input_shape):
        if self.groups is not None and sum(self.groups) != input_shape[-1]:
            raise ValueError(
                f"groups must add up to the {input_shape[-1]} units of the last axis. "
                f"Received: groups={self.groups}"
            )
        super().build(input_shape)

    def input_axes(self):
        return {"input_shape": self.axes}

    def _declaration(self):
        return UNDECLARED  # That of the graphs needs the shape that the norm is built with.

    def flow(self):
        return set(self.axes), set(self.axes)

    def fused_groups(self, sources, options):
        """The groups of the fused norm: one per source (property), or one (rule)."""
        if self.axes[0] not in options.grow:
            return self.groups
        if options.norm == "rule":
            return None
        return tuple(width for source in sources for width in group_widths(source))

    def widened_config(self, sources, options):
        config = super().widened_config(sources, options)
        return config | {"groups": self.fused_groups(sources, options)}

    def config_mismatches(self, sources, options):
        messages = super().config_mismatches(sources, options)
        if any(
            source.get_config()["axis"] not in (-1, [-1], [source_rank(source) - 1])
            for source in sources
        ):
            messages.append(f"axis: a norm is fused along the last axis, received {self.axis}")
        if self.axes[0] not in options.grow and len({source.groups for source in sources}) > 1:
            messages.append("groups: " + " vs ".join(str(source.groups) for source in sources))
        return messages

    def get_config(self):
        return super().get_config() | {"groups": self.groups}


def group_widths(layer):
    """Widths of the groups of units that a norm of the last axis treats apart."""
    return getattr(layer, "groups", None) or (layer.get_build_config()["input_shape"][-1],)


def source_rank(layer):
    """Number of dimensions of the input that a layer was built with."""
    return len(layer.get_build_config()["input_shape"])


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableRMSNorm(_GroupedNorm, keras.layers.RMSNormalization):
    """`keras.layers.RMSNormalization` that can be fused; computed in float32.

    Takes the arguments of `keras.layers.RMSNormalization`, and `groups`, the widths of the groups
    of units that are normalised apart.

    Examples:
        >>> a, b = FusableRMSNorm(), FusableRMSNorm()
        >>> a.build((None, 4)), b.build((None, 6))
        >>> a.fuse(b).groups, a.fuse(b, norm="rule").groups
        ((4, 6), None)
    """

    def weight_axes(self):
        return {"scale": Axes(self.axes, averages=False)}

    def call(self, inputs):
        def normalise(units):
            mean_square = ops.mean(ops.square(units), axis=-1, keepdims=True)
            return units * ops.rsqrt(mean_square + self.epsilon)

        if self.axis not in (-1, [-1], [len(inputs.shape) - 1]):
            return super().call(inputs)
        wide = keras.backend.result_type(inputs.dtype, "float32")
        outputs = apply_by_group(ops.cast(inputs, wide), self.groups, normalise)
        return ops.cast(outputs * ops.cast(self.scale, wide), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableLayerNorm(_GroupedNorm, keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` that can be fused; computed in float32.

    Takes the arguments of `keras.layers.LayerNormalization`, and `groups`, the widths of the
    groups of units that are normalised apart.

    Examples:
        >>> a = FusableLayerNorm()
        >>> a.build((None, 4))
        >>> a.fuse(a, noise=0.1).groups
        (4, 4)
    """

    def config_mismatches(self, sources, options):
        messages = super().config_mismatches(sources, options)
        if any(source.rms_scaling for source in sources):
            messages.append("rms_scaling: not fusable, use FusableRMSNorm")
        return messages

    def weight_axes(self):
        names = [name for name, used in (("gamma", self.scale), ("beta", self.center)) if used]
        return {name: Axes(self.axes, averages=False) for name in names}

    def call(self, inputs):
        def normalise(units):
            # Not `ops.moments`, which Keras' layer calls too: TensorFlow's takes the mean for a
            # constant where it differentiates the variance, so that Hessians are wrong.
            units = units - ops.mean(units, axis=-1, keepdims=True)
            variance = ops.mean(ops.square(units), axis=-1, keepdims=True)
            return units * ops.rsqrt(variance + self.epsilon)

        if self.axis not in (-1, [-1], [len(inputs.shape) - 1]):
            return super().call(inputs)

        wide = keras.backend.result_type(inputs.dtype, "float32")
        outputs = apply_by_group(ops.cast(inputs, wide), self.groups, normalise)
        if self.scale:
            outputs = outputs * ops.cast(self.gamma, wide)
        if self.center:
            outputs = outputs + ops.cast(self.beta, wide)
        return ops.cast(outputs, self.compute_dtype)
