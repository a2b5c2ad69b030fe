"""Several examples in one row, so that a fine-tuning computes less padding.

GLUE's examples are much shorter than the longest of them, to which a padded batch pads. Here rows
of that length hold as many as fit; segment ids keep every attention within its example. The loss
of a batch and its gradient are those of the same examples padded. With dropout, the examples of a
row share their masks, as the tokens of one example do.

The seed alone decides which examples share a row; seed and step decide which rows a batch has.
`glue.data.batches.TrainingBatches` and `EvaluationBatches` take rows as they take examples.

Example:
    >>> rows = pack(examples, seed=0)
    >>> batches = TrainingBatches(rows, rows.batch_size(32), seed=0)
    >>> sorted(batches.batch(7))
    ['decoder_segment_ids', 'decoder_token_ids', 'encoder_segment_ids', 'encoder_token_ids',
     'targets']
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from glue.data.batches import Examples
from trainers.data.tokens import PAD_ID
from trainers.errors import UserError

# Rows that stay open for later examples; more rows fill better, and take longer.
WINDOW = 64
# Targets are short: a little more room than they need on average costs little, and no row that
# still has room for an input is closed for want of it.
_SLACK = 1.25
_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows of examples, made into batches as examples are."""

    examples: Examples  # of a task or of a mixture
    rows: Sequence[Sequence[int]]  # the numbers of the examples of each row
    input_length: int  # of a row
    target_length: int  # of a row

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def examples_per_row(self) -> float:
        """The mean."""
        return len(self.examples) / len(self.rows)

    @functools.cached_property
    def fill(self) -> tuple[float, float]:
        """Shares of the input and of the target positions that hold a token."""
        inputs, targets = (
            sum(map(len, parts)) for parts in (self.examples.inputs, self.examples.targets)
        )
        rows = len(self.rows)
        return inputs / (rows * self.input_length), targets / (rows * self.target_length)

    def batch_size(self, examples: int, multiple_of: int = 1) -> int:
        """Number of rows that hold about so many examples, so that an epoch keeps its steps.

        It is a multiple of what a batch is divided among: replicas times microbatches.
        """
        rows = examples / self.examples_per_row / multiple_of
        return multiple_of * max(1, round(rows))

    def batch(self, rows: Sequence[int], size: int | None = None) -> dict[str, np.ndarray]:
        """The batch of some rows, filled up to a size by rows of padding alone.

        Returns:
            int32 arrays: `encoder_token_ids` and `encoder_segment_ids` (size, input_length),
            `decoder_token_ids`, `decoder_segment_ids` and `targets` (size, target_length). The
            segments of a row are 1, 2, …; padding is 0. The decoder sees each example's targets
            one place later, after a 0 of its own.
        """
        size = len(rows) if size is None else size
        members = [self.rows[row] for row in rows]
        inputs, encoder_segments = _join(self.examples.inputs, members, size, self.input_length)
        targets, decoder_segments = _join(self.examples.targets, members, size, self.target_length)
        shifted = np.zeros_like(targets)
        same_segment = decoder_segments[:, 1:] == decoder_segments[:, :-1]
        shifted[:, 1:] = np.where(same_segment, targets[:, :-1], PAD_ID)
        return {
            "encoder_token_ids": inputs,
            "encoder_segment_ids": encoder_segments,
            "decoder_token_ids": shifted,
            "decoder_segment_ids": decoder_segments,
            "targets": targets,
        }


def pack(examples: Examples, seed: int = 0) -> PackedRows:
    """Puts examples into rows: first fit, in a random order, among the rows that are open."""
    if not len(examples):
        raise UserError("examples to pack", "none", "Give a task with some")
    sizes = np.array([list(map(len, part)) for part in (examples.inputs, examples.targets)]).T
    lengths = examples.input_length, _target_length(sizes, examples.input_length)
    order = np.random.default_rng(seed % 2**32).permutation(len(examples))
    return PackedRows(examples, first_fit(sizes, order, lengths), *lengths)


def first_fit(
    sizes: np.ndarray, order: Sequence[int], room: tuple[int, int], window: int = WINDOW
) -> list[list[int]]:
    """Puts each item into the first open row with room for it, or opens another one.

    Args:
        sizes: (items, 2), what each needs of both lengths.
        room: what an empty row has of both lengths.
        window: rows that are open at a time; another one closes the oldest.
    """
    rows: list[list[int]] = []
    # Of the rows from `first` on; the oldest one comes first.
    free = np.zeros((0, 2), sizes.dtype)
    for item in order:
        first = len(rows) - len(free)
        fits = (free >= sizes[item]).all(1)
        place = int(fits.argmax()) if fits.any() else len(free)
        if place == len(free):
            rows.append([])
            free = np.vstack([free, [room]])
        rows[first + place].append(int(item))
        free[place] -= sizes[item]
        free = free[-window:]
    return rows


def _target_length(sizes: np.ndarray, input_length: int) -> int:
    """Room for the targets of a row whose inputs are full, and for the longest target."""
    inputs, targets = sizes.sum(0)
    needed = max(sizes[:, 1].max(), _SLACK * targets / inputs * input_length, 1)
    return _MULTIPLE * math.ceil(needed / _MULTIPLE)


def _join(
    parts: Sequence[np.ndarray], members: Sequence[Sequence[int]], size: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the rows' examples one after the other, and the segment of each token."""
    tokens, segments = np.full((size, length), PAD_ID, np.int32), np.zeros((size, length), np.int32)
    for row, numbers in enumerate(members):
        start = 0
        for segment, number in enumerate(numbers, start=1):
            stop = start + len(parts[number])
            tokens[row, start:stop], segments[row, start:stop] = parts[number], segment
            start = stop
    return tokens, segments
