"""Batches for calls of several steps, stacked into one array per name.

Not tf.data: a generator behind a distributed iterator lets the interpreter hang for minutes when it
ends, hides the exceptions of the data, and needs TensorFlow.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trainers.errors import UserError

Batch = Mapping[str, np.ndarray]


def take(source: Iterator[Batch], count: int) -> list[Batch]:
    """Returns the next `count` batches; a `UserError` where the iterator ends before."""
    batches = list(itertools.islice(source, count))
    if len(batches) < count:
        raise UserError(
            f"a batch for each of {count} steps",
            f"an iterator that ended after {len(batches)} batches",
            "Give more data or train fewer steps",
        )
    return batches


def stack(batches: Sequence[Batch], length: int) -> dict[str, np.ndarray]:
    """Stacks batches into one array per name: (length, batch, …), zeros behind the last.

    A fixed length gives a compiled loop one shape, whatever number of steps is due.

    Args:
        batches: at least one, all of one shape, at most `length`.
        length: size of the new first axis.
    """
    first = batches[0]
    arrays = {name: np.zeros((length, *value.shape), value.dtype) for name, value in first.items()}
    for index, batch in enumerate(batches):
        for name, array in arrays.items():
            if batch[name].shape != array.shape[1:]:
                shapes = f"{name}={batch[name].shape} after {array.shape[1:]}"
                raise UserError("batches of one shape", shapes, "Drop a last partial one")
            array[index] = batch[name]
    return arrays
