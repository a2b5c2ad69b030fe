"""Greedy and sampled generation with a key/value cache, in one loop of fixed shapes."""

import functools

import keras
from keras import ops

from keras_fusion.layers.attention import MASKED
from keras_fusion.models.biases import wide_bias, with_padding


def generate(model, token_ids, padding_mask=None, **options):
    """Generates from the decoder, token after token; every position costs one decoder step.

    Compiles anew at each call: to generate for many batches, keep what `compiled` returns.

    Args:
        model: A `T5`.
        token_ids: Encoder token ids (batch, length).
        padding_mask: (batch, length), 1 where there is a token.
        **options: Those of `decoding`.

    Returns:
        Integer array (batch, max_length), padded after `end_id`.

    Raises:
        ValueError: As `decoding`.

    Examples:
        >>> model.generate(token_ids, max_length=20)
    """
    return ops.convert_to_numpy(compiled(model, **options)(token_ids, padding_mask))


def compiled(model, **options):
    """Returns a function that generates, compiled once for each shape.

    It reads the weights at each call, and so sees what training or `assign` has changed. The
    loop ends where every sequence has ended.

    Args:
        model: A built `T5`.
        **options: Those of `decoding`.

    Returns:
        Function of integer token ids (batch, length) and a padding mask or None, which returns
        int32 token ids (batch, max_length). On TensorFlow and JAX it is one graph; elsewhere it
        runs operation by operation.

    Raises:
        ValueError: As `decoding`.

    Examples:
        >>> decode = compiled(model, max_length=20)
        >>> for batch in batches:
        ...     decode(batch["encoder_token_ids"], batch["encoder_padding_mask"])
    """
    decode, seeds = _decoder(**options)
    run = _COMPILERS.get(keras.backend.backend(), functools.partial)(decode, model)

    def generated(token_ids, padding_mask=None):
        if padding_mask is not None:
            padding_mask = ops.convert_to_tensor(padding_mask)
        return run(ops.convert_to_tensor(token_ids, "int32"), padding_mask, seeds.next())

    return generated


def decoding(model, **options):
    """Returns what generates from tensors: a function to be part of a larger program.

    Its shapes follow from those of its arguments, so XLA takes it as it is.

    Args:
        model: A `T5`.
        max_length: How many tokens to generate at most; default 64.
        temperature: 0, the default, takes the likeliest token (greedy); above, samples from the
            logits divided by it.
        top_k: Sample among this many likeliest tokens only.
        seed: Seed of the sampling.
        start_id, end_id, pad_id: The first decoder input (default 0), the token that ends a
            sequence (1), and what follows it (0).

    Returns:
        Function of int32 token ids (batch, length) and a padding mask or None, which returns
        int32 token ids (batch, max_length).

    Raises:
        ValueError: A negative temperature, or a top_k or max_length below 1.

    Examples:
        >>> decode = tf.function(decoding(model, max_length=20), jit_compile=True)
    """
    decode, seeds = _decoder(**options)

    def generated(token_ids, padding_mask=None):
        return decode(model, token_ids, padding_mask, seeds.next())

    return generated


def _decoder(max_length=64, temperature=0.0, top_k=None, seed=None, start_id=0, end_id=1, pad_id=0):
    """Returns a pure function (model, token_ids, padding_mask, seed) → tokens, and its seeds."""
    if max_length < 1 or temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError(
            "generate takes max_length >= 1, temperature >= 0 and top_k >= 1. Received: "
            f"max_length={max_length}, temperature={temperature}, top_k={top_k}"
        )
    decode = functools.partial(
        _decode,
        max_length=max_length,
        choose=functools.partial(_choose, temperature=float(temperature), top_k=top_k),
        start_id=start_id,
        end_id=end_id,
        pad_id=pad_id,
    )
    return decode, keras.random.SeedGenerator(seed)


def _with_tensorflow(decode, model):
    """Returns a graph, which refers to the model's variables."""
    import tensorflow as tf

    return tf.function(functools.partial(decode, model))


def _with_jax(decode, model):
    """Returns a compiled function of the weights, which are passed at each call."""
    import jax

    @jax.jit
    def run(weights, *arguments):
        mapping = list(zip(model.weights, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return decode(model, *arguments)

    return lambda *arguments: run([weight.value for weight in model.weights], *arguments)


def _with_torch(decode, model):
    """Returns a function that keeps nothing for gradients."""
    import torch

    return torch.no_grad()(functools.partial(decode, model))


_COMPILERS = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}

# Odd, and near 2³² over the golden ratio: multiples of it modulo 2³² lie far apart.
_BETWEEN_POSITIONS = -1640531535


class _GivenSeed(keras.random.SeedGenerator):
    """A seed that is given as a tensor (2,); Keras' random functions take none.

    A generator keeps a state, which a compiled loop on JAX could not write.
    """

    def __init__(self, value):
        self.value = value

    def next(self, ordered=True):
        del ordered
        return self.value


def _choose(logits, seed, temperature, top_k):
    """Returns the next token ids (batch,) from logits (batch, vocabulary)."""
    if not temperature:
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    if top_k is not None:
        least = ops.top_k(logits, top_k)[0][:, -1:]
        logits = ops.where(logits < least, MASKED, logits)
    drawn = keras.random.categorical(logits / temperature, 1, seed=_GivenSeed(seed))
    return ops.cast(ops.squeeze(drawn, 1), "int32")


def _decode(model, token_ids, padding_mask, seed, max_length, choose, start_id, end_id, pad_id):
    config, decoder = model.config, model.decoder
    encoded = model.encode(token_ids, padding_mask, training=False)
    cross = [block.cross_attention.project_key_value(encoded) for block in decoder.blocks]
    cross_bias = with_padding(None, padding_mask)
    batch = ops.shape(token_ids)[0]
    empty = ops.zeros(
        (batch, config.num_heads, max_length, config.key_value_dim), model.compute_dtype
    )
    positions = ops.arange(max_length)

    def unfinished(index, tokens, done, current, caches):
        return ops.logical_and(index < max_length, ops.logical_not(ops.all(done)))

    def step(index, tokens, done, current, caches):
        bias = wide_bias(decoder.position_bias.between(1, max_length, offset=index))
        unseen = ops.cast(positions > index, bias.dtype) * MASKED
        hidden = model.token_embedding(ops.expand_dims(current, 1))
        new_caches = []
        for block, cache, projected in zip(decoder.blocks, caches, cross, strict=True):
            hidden, cache = block.step(hidden, bias + unseen, cache, index, projected, cross_bias)
            new_caches.append(cache)
        logits = model.logits(decoder.final_norm(hidden))[:, 0]
        # The generator counts calls in the second number; positions are counted in the first, in
        # long strides, as Keras on torch adds the two.
        own_seed = seed + ops.cast(ops.stack([index * _BETWEEN_POSITIONS, 0]), seed.dtype)
        chosen = ops.where(done, pad_id, choose(logits, own_seed))
        tokens = ops.slice_update(tokens, (0, index), ops.expand_dims(chosen, 1))
        return index + 1, tokens, ops.logical_or(done, chosen == end_id), chosen, new_caches

    start = (
        ops.convert_to_tensor(0, "int32"),
        ops.full((batch, max_length), pad_id, "int32"),
        ops.zeros((batch,), "bool"),
        ops.full((batch,), start_id, "int32"),
        [(empty, empty) for _ in decoder.blocks],
    )
    return ops.while_loop(unfinished, step, start)[1]
