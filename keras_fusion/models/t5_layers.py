"""The layers of T5: feed-forward, block, stack. Their weights share the axes hidden, heads, mlp."""

import functools

import keras
from keras import ops

from keras_fusion.layers.attention import (
    FusableMultiHeadAttention,
    causal_mask,
    mask_bias,
)
from keras_fusion.layers.dense import FusableDense
from keras_fusion.layers.dropout import FusableDropout
from keras_fusion.layers.norms import FusableRMSNorm
from keras_fusion.layers.position_bias import FusableRelativePositionBias
from keras_fusion.models.biases import wide_bias, with_padding, with_segments

# One dropout mask serves the whole length (Mesh TensorFlow's `dropout_broadcast_dims`).
_BROADCAST_LENGTH = (None, 1, None)

ACTIVATIONS = {
    "gelu": functools.partial(keras.activations.gelu, approximate=True),
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
}


class SeedSequence:
    """Hands out different, reproducible seeds for initialisers and dropouts.

    Args:
        seed: First seed, or None for seeds that differ from run to run.
    """

    def __init__(self, seed=None):
        self._next = None if seed is None else (seed * 1_000_003) % (2**31)

    def __call__(self):
        if self._next is None:
            return None
        self._next = (self._next + 1) % (2**31)
        return self._next


def normal(variance, seeds):
    """Returns the initialiser N(0, variance)."""
    return keras.initializers.RandomNormal(stddev=variance**0.5, seed=seeds())


def fan_in(seeds):
    """Returns T5's initialiser of the MLP and the head: truncated normal, scale 1, fan-in."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal", seed=seeds())


def norm(config, name, policy):
    """Returns the root mean square norm over the hidden axis, in the configuration's groups."""
    return FusableRMSNorm(
        epsilon=config.layer_norm_epsilon,
        groups=config.norm_groups,
        axes=("hidden",),
        dtype=policy,
        name=name,
    )


def dropout(config, name, policy, seeds):
    """Returns a dropout whose mask is shared along the length."""
    return FusableDropout(
        config.dropout,
        noise_shape=_BROADCAST_LENGTH,
        seed=seeds(),
        axes=(),
        dtype=policy,
        name=name,
    )


def attention(config, name, policy, seeds):
    """Returns T5's attention: no biases, no division by sqrt(key_value_dim)."""
    inner = config.num_heads * config.key_value_dim
    initializers = {
        "query": normal(1 / (config.hidden_dim * config.key_value_dim), seeds),
        "key": normal(1 / config.hidden_dim, seeds),
        "value": normal(1 / config.hidden_dim, seeds),
        "output": normal(1 / inner, seeds),
    }
    return FusableMultiHeadAttention(
        config.num_heads,
        config.key_value_dim,
        dropout=config.dropout,
        use_bias=False,
        use_scale=False,
        broadcast_dropout=True,
        initializers=initializers,
        seed=seeds(),
        output_shape=config.hidden_dim,
        axes=("hidden", "heads", "hidden"),
        dtype=policy,
        name=name,
    )


class T5FeedForward(keras.layers.Layer):
    """T5's MLP: act(x W) V, or gated, (act(x W) ∘ x G) V.

    Args:
        config: A `T5Config`.
        seeds: A `SeedSequence`.
    """

    def __init__(self, config, seeds, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        policy = self.dtype_policy

        def dense(units, axes, name):
            return FusableDense(
                units,
                use_bias=False,
                kernel_initializer=fan_in(seeds),
                axes=axes,
                dtype=policy,
                name=name,
            )

        self.input_projector = dense(config.intermediate_dim, ("hidden", "mlp"), "input_projector")
        self.gate_projector = None
        if config.use_gated_activation:
            self.gate_projector = dense(
                config.intermediate_dim, ("hidden", "mlp"), "gate_projector"
            )
        self.output_projector = dense(config.hidden_dim, ("mlp", "hidden"), "output_projector")
        self.inner_dropout = dropout(config, "inner_dropout", policy, seeds)

    def build(self, input_shape=None):
        hidden = (None, None, self.config.hidden_dim)
        self.input_projector.build(hidden)
        if self.gate_projector is not None:
            self.gate_projector.build(hidden)
        self.output_projector.build((None, None, self.config.intermediate_dim))

    def call(self, inputs, training=None):
        hidden = self.activation(self.input_projector(inputs))
        if self.gate_projector is not None:
            hidden = hidden * self.gate_projector(inputs)
        return self.output_projector(self.inner_dropout(hidden, training=training))


class T5Block(keras.layers.Layer):
    """One layer of a stack: self-attention, in a decoder cross-attention, MLP; all pre-norm.

    Args:
        config: A `T5Config`.
        seeds: A `SeedSequence`.
        is_decoder: Whether the block attends to the encoder's output.
    """

    def __init__(self, config, seeds, is_decoder, **kwargs):
        # Keras would cast the biases to float16, where what hides a position is infinite, and a
        # query with nothing to attend to turns NaN.
        super().__init__(autocast=False, **kwargs)
        self.config = config
        policy = self.dtype_policy
        self.self_attention_norm = norm(config, "self_attention_norm", policy)
        self.self_attention = attention(config, "self_attention", policy, seeds)
        self.cross_attention = None
        if is_decoder:
            self.cross_attention_norm = norm(config, "cross_attention_norm", policy)
            self.cross_attention = attention(config, "cross_attention", policy, seeds)
        self.feed_forward_norm = norm(config, "feed_forward_norm", policy)
        self.feed_forward = T5FeedForward(config, seeds, dtype=policy, name="feed_forward")
        self.residual_dropout = dropout(config, "residual_dropout", policy, seeds)

    def build(self, input_shape=None):
        hidden = (None, None, self.config.hidden_dim)
        self.self_attention_norm.build(hidden)
        self.self_attention.build(hidden, hidden)
        if self.cross_attention is not None:
            self.cross_attention_norm.build(hidden)
            self.cross_attention.build(hidden, hidden)
        self.feed_forward_norm.build(hidden)
        self.feed_forward.build(hidden)

    def call(self, inputs, bias, encoded=None, cross_bias=None, training=None):
        """Tensors (batch, length, hidden); `bias` and `cross_bias` are added to the scores."""
        cross = None if encoded is None else self.cross_attention.project_key_value(encoded)
        normed = self.self_attention_norm(inputs)
        keys_values = self.self_attention.project_key_value(normed)
        return self._finish(inputs, normed, keys_values, bias, cross, cross_bias, training)

    def step(self, inputs, bias, cache, index, cross, cross_bias):
        """One position of decoding: writes its key and value into the cache, then attends.

        Args:
            inputs: Tensor (batch, 1, hidden).
            bias: Added to the scores (1, heads, 1, max length); hides what is not yet written.
            cache: Keys and values (batch, heads, max length, key_value_dim) of the past.
            index: The position, an integer tensor.
            cross, cross_bias: Projected keys and values of the encoder's output, and their bias.

        Returns:
            The output (batch, 1, hidden) and the cache with this position in it.
        """
        normed = self.self_attention_norm(inputs)
        new = self.self_attention.project_key_value(normed)
        cache = tuple(
            ops.slice_update(old, (0, 0, index, 0), ops.cast(part, old.dtype))
            for old, part in zip(cache, new, strict=True)
        )
        return self._finish(inputs, normed, cache, bias, cross, cross_bias, False), cache

    def _finish(self, inputs, normed, keys_values, bias, cross, cross_bias, training):
        def add(residual, update):
            return residual + self.residual_dropout(update, training=training)

        query = self.self_attention.project_query(normed)
        hidden = add(inputs, self.self_attention.attend(query, *keys_values, bias, training)[0])
        if cross is not None:
            query = self.cross_attention.project_query(self.cross_attention_norm(hidden))
            hidden = add(
                hidden, self.cross_attention.attend(query, *cross, cross_bias, training)[0]
            )
        return add(hidden, self.feed_forward(self.feed_forward_norm(hidden), training=training))


class T5Stack(keras.layers.Layer):
    """The encoder or the decoder: position bias, blocks, final norm, dropout at both ends.

    Args:
        config: A `T5Config`.
        seeds: A `SeedSequence`.
        is_decoder: Whether blocks attend to the past only, and to the encoder's output.
    """

    def __init__(self, config, seeds, is_decoder, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.is_decoder = is_decoder
        policy = self.dtype_policy
        self.position_bias = FusableRelativePositionBias(
            config.num_heads,
            config.relative_attention_num_buckets,
            config.relative_attention_max_distance,
            bidirectional=not is_decoder,
            initializer=keras.initializers.VarianceScaling(1.0, "fan_avg", "uniform", seed=seeds()),
            axes=("buckets", "heads"),
            dtype=policy,
            name="position_bias",
        )
        self.blocks = [
            T5Block(config, seeds, is_decoder, dtype=policy, name=f"block_{index}")
            for index in range(config.num_layers)
        ]
        self.final_norm = norm(config, "final_norm", policy)
        self.input_dropout = dropout(config, "input_dropout", policy, seeds)
        self.output_dropout = dropout(config, "output_dropout", policy, seeds)

    def build(self, input_shape=None):
        self.position_bias.build()
        for block in self.blocks:
            block.build((None, None, self.config.hidden_dim))
        self.final_norm.build((None, None, self.config.hidden_dim))

    def call(
        self,
        embedded,
        padding_mask=None,
        encoded=None,
        encoded_mask=None,
        segment_ids=None,
        encoded_segment_ids=None,
        training=None,
    ):
        """Maps embedded tokens (batch, length, hidden) to the same shape.

        Args:
            padding_mask: (batch, length), true where there is a token; None where all are.
            encoded, encoded_mask: For a decoder the encoder's output and its padding mask.
            segment_ids: (batch, length), the example that each token belongs to; it attends to
                that one only. None where each row is one example.
            encoded_segment_ids: For a decoder those of the encoder's output.
        """
        hidden = self.input_dropout(embedded, training=training)
        length = ops.shape(hidden)[1]
        bias = wide_bias(self.position_bias.between(length, length))
        if self.is_decoder:
            bias = bias + ops.cast(mask_bias(causal_mask(length, length)), bias.dtype)
        bias = with_segments(with_padding(bias, padding_mask), segment_ids, segment_ids)
        cross_bias = with_padding(None, encoded_mask)
        cross_bias = with_segments(cross_bias, segment_ids, encoded_segment_ids)
        for block in self.blocks:
            hidden = block(hidden, bias, encoded, cross_bias, training=training)
        return self.output_dropout(self.final_norm(hidden), training=training)
