"""Pretraining batches as a pure function of (seed, step).

The tokens of a split are one long row, cut into examples of L raw tokens, where L is the largest
number whose inputs fit (568 for 512 in span corruption). Every epoch visits the examples in
another order.
A run that stops at any step resumes with the very batch that would have come next.
"""

import hashlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

from trainers.data import manifest, vocabulary
from trainers.data.corpora import TRAIN, VALIDATION
from trainers.data.objectives import Objective
from trainers.errors import UserError, check_choice

Batch = Mapping[str, np.ndarray]
# One thread prepares a batch in a fraction of a step; the buffer has those of the next calls.
_READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=64)


class PretrainingBatches:
    """Batches of a pretraining task from a prepared data folder.

    A batch is a dict of int32 arrays without padding: `encoder_token_ids` (batch, input_length),
    `decoder_token_ids` and `targets` (batch, target_length); the decoder's tokens are the targets
    shifted right, starting with 0.

    Args:
        data_dir: folder of `trainers.data.preparation.prepare`.
        split: "train" or "validation". Validation ignores `seed`: its batches are the same for
            every run on this data, `num_batches` of them before they repeat.
        batch_size: examples per batch.
        input_length: encoder tokens, EOS included.
        seed: of the order and of the spans.
        first: number of batches that others took before; step 0 takes the one after them.
        objective: the task; default T5's span corruption.
        rows: rows of each batch that are made; the others are not read. None for all.

    Raises:
        UserError: a damaged folder, too few sentinels for the length, or less text than a batch.

    Example:
        >>> batches = PretrainingBatches(folder, "train", 32, 128, seed=0)
        >>> batches.batch(7)["encoder_token_ids"].shape
        (32, 128)
    """

    def __init__(
        self,
        data_dir: str | pathlib.Path,
        split: str,
        batch_size: int,
        input_length: int,
        seed: int = 0,
        first: int = 0,
        objective: Objective = Objective(),  # noqa: B008 - it is frozen
        rows: slice | None = None,
    ):
        check_choice((TRAIN, VALIDATION), split=split)
        self._folder = folder = pathlib.Path(data_dir)
        self.manifest = manifest.read(folder)
        facts = self.manifest["vocabulary"]
        self.batch_size = batch_size
        self._objective = objective
        self._rows = rows or slice(0, batch_size)
        self.raw_length = objective.raw_length(input_length)
        self.input_length, self.target_length = objective.lengths(self.raw_length)
        self.vocabulary_size = facts["padded_size"]
        self._first_sentinel = facts["size"] - 1
        needed = objective.sentinels(self.raw_length)
        if needed > facts["sentinels"]:
            raise UserError(
                f"{needed} sentinels for this length",
                f"input_length={input_length} with {facts['sentinels']} sentinels in {folder}",
                f"Prepare with --num_sentinels={needed} or more, or take a shorter input",
            )
        dtype = manifest.token_dtype(facts["size"])
        tokens = np.memmap(folder / manifest.token_file(split), dtype, mode="r")
        self.num_examples = len(tokens) // self.raw_length
        # The fixed validation set may be smaller than a batch, which then repeats examples.
        if self.num_examples < (batch_size if split == TRAIN else 1):
            examples = f"one {split} batch of {batch_size} ×" if split == TRAIN else "validation of"
            raise UserError(
                f"text for {examples} {self.raw_length} tokens",
                f"data_dir={folder} with {len(tokens)} {split} tokens",
                "Take a smaller batch or shorter inputs, more text, or prepare it with "
                "trainers.prepare --validation_fraction=0.5",
            )
        size = self.num_examples * self.raw_length
        self._examples = tokens[:size].reshape(-1, self.raw_length)
        self._seed = 0 if split == VALIDATION else seed
        self._first = first
        order = grain.MapDataset.range(self.num_examples).seed(self._seed % 2**32).shuffle()
        self._indices = order.repeat().batch(batch_size)

    @property
    def num_batches(self) -> int:
        """Whole batches of different examples, at least one: an epoch, but for a remainder."""
        return max(1, self.num_examples // self.batch_size)

    @property
    def tokens_per_batch(self) -> int:
        """Input and target tokens of a batch, what a training step is counted by."""
        return self.batch_size * (self.input_length + self.target_length)

    @property
    def fingerprint(self) -> str:
        """Hash of tokens and vocabulary: two runs with the same one trained on the same data."""
        digests = [self.manifest["files"][name]["sha256"] for name in manifest.FILES]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def vocabulary(self) -> vocabulary.Vocabulary:
        """The vocabulary of the data, to read batches with."""
        return vocabulary.Vocabulary.from_file(
            self._folder / manifest.VOCABULARY, self.manifest["vocabulary"]["sentinels"]
        )

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the batch of a step, whatever was asked for before."""
        index = self._first + step
        rng = np.random.default_rng([self._seed, index])
        tokens = self._examples[self._indices[index][self._rows]]
        if tokens.max() > self._first_sentinel:
            raise UserError(
                f"ids up to {self._first_sentinel} in the tokens of {self._folder}",
                f"{tokens.max()} in batch {index}",
                "Prepare the text again",
            )
        rows_of = (self._rows, self.batch_size)
        inputs, targets = self._objective.pairs(tokens, rng, self._first_sentinel, rows_of)
        shifted = np.zeros_like(targets)
        shifted[:, 1:] = targets[:, :-1]
        return {"encoder_token_ids": inputs, "decoder_token_ids": shifted, "targets": targets}

    def from_step(self, start: int) -> Iterator[Batch]:
        """Returns an endless iterator of `batch(start)`, `batch(start + 1)`, …, made ahead."""
        return read_ahead(self.batch, start)


def read_ahead(batch: Callable[[int], Batch], start: int) -> Iterator[Batch]:
    """Returns an endless iterator of `batch(start)`, `batch(start + 1)`, …, made in a thread."""
    steps = grain.MapDataset.range(start, sys.maxsize // 2).map(batch)
    return iter(steps.to_iter_dataset(_READ_OPTIONS))
