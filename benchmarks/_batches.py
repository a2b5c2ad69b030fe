"""Random batches of span corruption's shapes, for all benchmarks of training steps."""

import itertools

import numpy as np

from trainers.data.spans import raw_length, target_length


def lengths(input_length):
    """Returns the input and target tokens of a sequence, `(512, 114)` for 512."""
    return input_length, target_length(raw_length(input_length))


def random_batches(vocabulary_size, batch_size, input_length, seed=0):
    """An endless iterator over one random batch."""
    rng = np.random.default_rng(seed)
    inputs, targets = lengths(input_length)
    shapes = {
        "encoder_token_ids": (batch_size, inputs),
        "decoder_token_ids": (batch_size, targets),
        "targets": (batch_size, targets),
    }
    batch = {
        name: rng.integers(2, vocabulary_size, shape).astype("int32")
        for name, shape in shapes.items()
    }
    return itertools.repeat(batch)
