"""Multi-head attention that can be fused to y + y' heads, and the masks it adds to its scores."""

import math

import keras
from keras import ops

from keras_fusion.axes import Joined
from keras_fusion.layers import flash_attention
from keras_fusion.layers.declarations import register_fusion
from keras_fusion.layers.dense import FusableDense
from keras_fusion.layers.dropout import FusableDropout
from keras_fusion.layers.fusable import Fusable
from keras_fusion.layers.stock_attention import multi_head

# Added to the scores of positions that must not be attended to; large, yet finite in float32.
MASKED = -1e9


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableMultiHeadAttention(Fusable, keras.layers.Layer):
    """Multi-head attention with the constructor and call of `keras.layers.MultiHeadAttention`.

    Fusing y and y' heads gives y + y' heads that do not interact at first (section 3.2). The
    projections are matrices whose heads and key_dim are one joined axis, as in T5X, so that
    factored optimizers see them as matrices.

    Args:
        num_heads: Number of heads.
        key_dim: Size of a head's query and key.
        value_dim: Size of a head's value; default `key_dim`.
        dropout: Rate of dropout on the attention weights.
        use_bias: Whether the projections have biases.
        output_shape: Size of the output; default that of the query.
        attention_axes, sliding_window, flash_attention, use_gate: Keras' arguments at their
            defaults; anything else cannot be fused, and is refused.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: As in Keras, for all projections.
        seed: Seed of the dropout.
        use_scale: Whether scores are divided by sqrt(key_dim). T5 does not.
        broadcast_dropout: Whether one dropout mask serves all query positions, as in T5.
        initializers: Optional `{"query" | "key" | "value" | "output": initializer}` that override
            `kernel_initializer`.
        axes: Names of the input's, the heads' and the output's axes.

    Call arguments:
        query, value, key: Tensors (batch, length, features).
        query_mask, value_mask, key_mask: Boolean (batch, length); True where there is content.
        attention_mask: Boolean (batch, target length, source length).
        return_attention_scores: Whether to return (output, scores).
        use_causal_mask: Whether a position sees only itself and what is before it.
        position_bias: Tensor that broadcasts to (batch, heads, target length, source length),
            added to the scores.

    Examples:
        >>> a = FusableMultiHeadAttention(num_heads=2, key_dim=4)
        >>> b = FusableMultiHeadAttention(num_heads=3, key_dim=4)
        >>> x = keras.random.normal((1, 5, 8))
        >>> a(x, x).shape, b(x, x).shape, a.fuse(b).num_heads
        ((1, 5, 8), (1, 5, 8), 5)
    """

    default_axes = ("input", "heads", "output")

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        dropout=0.0,
        use_bias=True,
        output_shape=None,
        attention_axes=None,
        sliding_window=None,
        flash_attention=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        use_gate=False,
        seed=None,
        use_scale=True,
        broadcast_dropout=False,
        initializers=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        _refuse_set(
            attention_axes=attention_axes,
            sliding_window=sliding_window,
            flash_attention=flash_attention,
            use_gate=use_gate,
        )
        self.supports_masking = True
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim or key_dim
        self.dropout = dropout
        self.use_bias = use_bias
        self.output_dim = output_shape
        self.seed = seed
        self.use_scale = use_scale
        self.broadcast_dropout = broadcast_dropout
        self.initializers = dict(initializers or {})
        self._projection_options = {
            "kernel_initializer": keras.initializers.get(kernel_initializer),
            "bias_initializer": keras.initializers.get(bias_initializer),
            "kernel_regularizer": keras.regularizers.get(kernel_regularizer),
            "bias_regularizer": keras.regularizers.get(bias_regularizer),
            "kernel_constraint": keras.constraints.get(kernel_constraint),
            "bias_constraint": keras.constraints.get(bias_constraint),
        }
        into, heads, out = self.axes
        keys, values = Joined(heads, after=key_dim), Joined(heads, after=self.value_dim)
        self.query = self._projection("query", num_heads * key_dim, (into, keys))
        self.key = self._projection("key", num_heads * key_dim, (into, keys))
        self.value = self._projection("value", num_heads * self.value_dim, (into, values))
        self.attention_dropout = FusableDropout(
            dropout,
            noise_shape=(None, None, 1, None) if broadcast_dropout else None,
            seed=seed,
            dtype=self.dtype_policy,
            name="attention_dropout",
        )
        # Without an `output_shape` the size of the output is known when the query's is.
        self.attention_output = None
        if output_shape is not None:
            self.attention_output = self._projection(
                "attention_output", output_shape, (values, out)
            )

    def _projection(self, name, units, axes):
        options = {
            key: type(value).from_config(value.get_config()) if "initializer" in key else value
            for key, value in self._projection_options.items()
        }
        initializer = self.initializers.get(name.removeprefix("attention_"))
        if initializer is not None:
            options["kernel_initializer"] = keras.initializers.get(initializer)
        return FusableDense(
            units, use_bias=self.use_bias, axes=axes, dtype=self.dtype_policy, name=name, **options
        )

    def build(self, query_shape, value_shape, key_shape=None):
        if len(query_shape) != 3:
            raise ValueError(
                "FusableMultiHeadAttention takes inputs (batch, length, features). Received: "
                f"query_shape={tuple(query_shape)}; keras.layers.MultiHeadAttention takes other "
                "ranks, and kf.fuse takes that layer"
            )
        _, heads, out = self.axes
        if self.attention_output is None:
            values = Joined(heads, after=self.value_dim)
            self.attention_output = self._projection(
                "attention_output", query_shape[-1], (values, out)
            )
        self.query.build(query_shape)
        self.value.build(value_shape)
        self.key.build(key_shape or value_shape)
        self.attention_output.build((*query_shape[:-1], self.num_heads * self.value_dim))

    def weight_axes(self):
        return {}  # All weights are those of the projections.

    def sizes(self):
        return {"num_heads": self.axes[1], "output_shape": self.axes[2]}

    def widened_config(self, sources, options):
        config = super().widened_config(sources, options)
        outputs = [source.attention_output.units for source in sources]
        grows = self.axes[2] in options.grow
        return config | {"output_shape": sum(outputs) if grows else outputs[0]}

    def flow(self):
        return {self.axes[0]}, {self.axes[2]}

    def input_axes(self):
        return dict.fromkeys(("query_shape", "value_shape", "key_shape"), self.axes[:1])

    def project_key_value(self, value, key=None):
        """Keys and values (batch, heads, length, size) of a source, to be used many times."""
        return (
            self._split(self.key(value if key is None else key), self.key_dim),
            self._split(self.value(value), self.value_dim),
        )

    def project_query(self, query):
        """Queries (batch, heads, length, key_dim)."""
        return self._split(self.query(query), self.key_dim)

    def attend(self, query, key, value, bias=None, training=None, return_weights=False):
        """Attention of projected queries to projected keys and values.

        Args:
            query, key, value: Tensors (batch, heads, length, size).
            bias: Added to the scores; broadcasts to (batch, heads, target, source).
            training: Whether dropout acts.
            return_weights: Whether the attention weights are needed.

        Returns:
            The output (batch, target, features) and the attention weights; None in their place
            where they are not needed and were not made.
        """
        is_dropping = self.dropout > 0 and training is not False
        if not (is_dropping or return_weights) and flash_attention.fits(query, key, value, bias):
            scale = self.key_dim**-0.5 if self.use_scale else 1.0
            attended = flash_attention.flash_attention(query, key, value, bias, scale)
            return self._output(attended), None
        scores = ops.einsum("bhtd,bhsd->bhts", query, key)
        wide = keras.backend.result_type(scores.dtype, "float32")
        scores = ops.cast(scores, wide)
        if self.use_scale:
            scores = scores / math.sqrt(self.key_dim)
        if bias is not None:
            scores = scores + ops.cast(bias, wide)
        weights = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        dropped = self.attention_dropout(weights, training=training)
        return self._output(ops.transpose(ops.matmul(dropped, value), (0, 2, 1, 3))), weights

    def _output(self, attended):
        """The output's projection of what heads attended to, (batch, target, heads, value_dim)."""
        shape = ops.shape(attended)
        return self.attention_output(
            ops.reshape(attended, (*shape[:2], self.num_heads * self.value_dim))
        )

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
        position_bias=None,
    ):
        del query_mask  # What a masked query receives is masked downstream.
        bias = position_bias
        for mask in _masks(query, value, value_mask, key_mask, attention_mask, use_causal_mask):
            masked = mask_bias(mask)
            bias = masked if bias is None else bias + masked
        output, scores = self.attend(
            self.project_query(query),
            *self.project_key_value(value, key),
            bias=bias,
            training=training,
            return_weights=return_attention_scores,
        )
        return (output, scores) if return_attention_scores else output

    def compute_output_spec(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
        position_bias=None,
    ):
        shape = (*query.shape[:-1], self.output_dim or query.shape[-1])
        output = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return output
        scores = (query.shape[0], self.num_heads, query.shape[1], value.shape[1])
        return output, keras.KerasTensor(scores, dtype=self.compute_dtype)

    def compute_output_shape(self, query_shape, value_shape, key_shape=None):
        return (*query_shape[:-1], self.output_dim or query_shape[-1])

    def get_config(self):
        options = self._projection_options
        regularizer = keras.saving.serialize_keras_object(self.activity_regularizer)
        return super().get_config() | {
            "attention_axes": None,
            "sliding_window": None,
            "flash_attention": None,
            "use_gate": False,
            "activity_regularizer": regularizer,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "output_shape": self.output_dim,
            "seed": self.seed,
            "use_scale": self.use_scale,
            "broadcast_dropout": self.broadcast_dropout,
            "initializers": {
                name: keras.initializers.serialize(keras.initializers.get(value))
                for name, value in self.initializers.items()
            },
            **{name: keras.saving.serialize_keras_object(value) for name, value in options.items()},
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in [name for name in config if name.endswith(("_regularizer", "_constraint"))]:
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)

    def _split(self, inputs, size):
        shape = ops.shape(inputs)
        heads = ops.reshape(inputs, (*shape[:2], self.num_heads, size))
        return ops.transpose(heads, (0, 2, 1, 3))


@register_fusion(FusableMultiHeadAttention)
def _declaration(layer):
    keys = (Joined("heads", after=layer.key_dim),)
    values = (Joined("heads", after=layer.value_dim),)
    return multi_head(layer, {"query": keys, "key": keys, "value": values, "gate": values})


def _refuse_set(**arguments):
    """Raises for an argument of Keras' layer that this one knows only the default of."""
    for name, value in arguments.items():
        if value:
            raise ValueError(
                f"FusableMultiHeadAttention takes only Keras' default of `{name}`. "
                f"Received: {name}={value}"
            )


def mask_bias(mask):
    """The bias (0 or a large negative number) that stands for a boolean mask."""
    return ops.cast(ops.logical_not(ops.cast(mask, "bool")), "float32") * MASKED


def causal_mask(target_length, source_length, offset=0):
    """Boolean (1, 1, target, source): a position sees itself and what comes before it."""
    rows = ops.expand_dims(ops.arange(target_length) + offset, 1)
    columns = ops.expand_dims(ops.arange(source_length), 0)
    return ops.reshape(rows >= columns, (1, 1, target_length, source_length))


def _masks(query, value, value_mask, key_mask, attention_mask, use_causal_mask):
    """Every mask that applies, each broadcasting to (batch, heads, target, source)."""
    for mask in (value_mask, key_mask):
        if mask is not None:
            yield ops.expand_dims(ops.expand_dims(mask, 1), 1)
    if attention_mask is not None:
        yield (
            ops.expand_dims(attention_mask, 1)
            if len(attention_mask.shape) == 3
            else (attention_mask)
        )
    if use_causal_mask:
        yield causal_mask(ops.shape(query)[1], ops.shape(value)[1])
