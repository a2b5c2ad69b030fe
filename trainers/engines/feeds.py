"""Batches for calls of several steps: read ahead on the host, stacked into one array per name.

Not tf.data: a generator behind a distributed iterator lets the interpreter hang for minutes when it
ends, hides the exceptions of the data, and needs TensorFlow.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from trainers.errors import UserError

Batch = Mapping[str, np.ndarray]


class Feed:
    """Takes batches from an iterator, the next call's ones while the devices work.

    Args:
        source: iterator of batches; it is used from one thread at a time.

    Example:
        feed = Feed(batches.from_step(0))
        arrays = stack(feed.take(20), length=20)
    """

    def __init__(self, source: Iterator[Batch]):
        self.source = source
        self._ready: collections.deque[Batch] = collections.deque()
        self._taken = 0
        self._error: BaseException | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: Future | None = None

    def peek(self) -> Batch:
        """Returns the batch that comes next and leaves it there."""
        self._have(1)
        return self._ready[0]

    def take(self, count: int) -> list[Batch]:
        """Returns the next `count` batches and begins to read as many ahead.

        Raises:
            UserError: the iterator has ended; or whatever it raised itself.
        """
        self._have(count)
        batches = [self._ready.popleft() for _ in range(count)]
        self._taken += count
        self._ahead = self._reader.submit(self._read, count - len(self._ready))
        return batches

    def _have(self, count: int) -> None:
        if self._ahead is not None:
            self._ahead.result()
            self._ahead = None
        self._read(count - len(self._ready))
        if len(self._ready) < count:
            raise self._error

    def _read(self, count: int) -> None:
        """Appends batches; keeps an exception for when its batch is asked for."""
        for _ in range(count):
            if self._error is not None:
                return
            try:
                self._ready.append(next(self.source))
            except StopIteration:
                count = self._taken + len(self._ready)
                self._error = UserError(
                    expected="a batch for every step",
                    received=f"an iterator that ended after {count} batches",
                    do="Give more data or train fewer steps",
                )
            except BaseException as error:  # also KeyboardInterrupt, for the thread that asks
                self._error = error


class Calls:
    """Batches of an engine's calls: one feed per source, one length for all calls.

    The length is that of the longest call so far: a longer one means a new compilation.
    """

    def __init__(self):
        self.length = 0
        self._feed: Feed | None = None

    def peek(self, source: Iterator[Batch], num_steps: int) -> list[Batch]:
        """Returns the first batch of a call of `num_steps`, which stays there."""
        return [self._open(source, num_steps).peek()]

    def take(self, source: Iterator[Batch], num_steps: int) -> list[Batch]:
        """Returns the batches of a call of `num_steps`, as `Feed.take`."""
        return self._open(source, num_steps).take(num_steps)

    def _open(self, source: Iterator[Batch], num_steps: int) -> Feed:
        if self._feed is None or self._feed.source is not source:
            self._feed = Feed(source)
        self.length = max(self.length, num_steps)
        return self._feed


def at_least_one(batches: Iterable[Batch]) -> list[Batch]:
    """Returns the batches of an evaluation; a `UserError` where there are none."""
    batches = list(batches)
    if not batches:
        raise UserError(
            expected="at least one batch to evaluate on", received="batches=[]", do="Give more data"
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
                raise UserError(
                    expected="batches of one shape",
                    received=f"{name}={batch[name].shape} after {array.shape[1:]}",
                    do="Drop a last partial one",
                )
            array[index] = batch[name]
    return arrays
