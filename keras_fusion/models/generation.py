"""Greedy and sampled generation with a key/value cache, in one loop of fixed shapes."""

import functools

import keras
from keras import ops

from keras_fusion.layers.attention import MASKED
from keras_fusion.models.t5_layers import wide_bias, with_padding


def generate(model, token_ids, padding_mask=None, **options):
    """Generates from the decoder, a token at a time; every position costs one decoder step.

    Args:
        model: A `T5`.
        token_ids: Encoder token ids (batch, length).
        padding_mask: (batch, length), 1 where there is a token.
        **options: Those of `decoding`.

    Returns:
        Integer array (batch, max_length), padded after `end_id`.

    Raises:
        ValueError: As `decoding`.

    Example:
        >>> model.generate(token_ids, max_length=20)
    """
    decode = _compiled(decoding(model, **options))
    mask = None if padding_mask is None else ops.convert_to_tensor(padding_mask)
    return ops.convert_to_numpy(decode(ops.convert_to_tensor(token_ids, "int32"), mask))


def decoding(
    model,
    *,
    max_length=64,
    temperature=0.0,
    top_k=None,
    seed=None,
    start_id=0,
    end_id=1,
    pad_id=0,
):
    """Returns what generates from tensors: a function that a backend can compile.

    Its shapes follow from those of its arguments, so XLA takes it as it is.

    Args:
        model: A `T5`.
        max_length: How many tokens to generate at most.
        temperature: 0 takes the likeliest token (greedy); above, samples from the logits divided
            by it.
        top_k: Sample among this many likeliest tokens only.
        seed: Seed of the sampling.
        start_id, end_id, pad_id: The first decoder input, the token that ends a sequence, and
            what follows it.

    Returns:
        Function of int32 token ids (batch, length) and a padding mask or None, which returns
        int32 token ids (batch, max_length).

    Raises:
        ValueError: A negative temperature, or a top_k or max_length below 1.

    Example:
        >>> decode = tf.function(decoding(model, max_length=20), jit_compile=True)
    """
    if max_length < 1 or temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError(
            "generate takes max_length >= 1, temperature >= 0 and top_k >= 1. Received: "
            f"max_length={max_length}, temperature={temperature}, top_k={top_k}"
        )
    choose = functools.partial(
        _choose, temperature=float(temperature), top_k=top_k, seed=keras.random.SeedGenerator(seed)
    )
    return functools.partial(
        _decode,
        model,
        max_length=max_length,
        choose=choose,
        start_id=start_id,
        end_id=end_id,
        pad_id=pad_id,
    )


def _compiled(function):
    """The function as one graph where the backend would run it operation by operation."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def _choose(logits, temperature, top_k, seed):
    """Next token ids (batch,) from logits (batch, vocabulary)."""
    if not temperature:
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    if top_k is not None:
        least = ops.top_k(logits, top_k)[0][:, -1:]
        logits = ops.where(logits < least, MASKED, logits)
    drawn = keras.random.categorical(logits / temperature, 1, seed=seed)
    return ops.cast(ops.squeeze(drawn, 1), "int32")


def _decode(model, token_ids, padding_mask, max_length, choose, start_id, end_id, pad_id):
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
        chosen = ops.where(done, pad_id, choose(logits))
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
