"""Pretraining batches as a pure function of (seed, step).

The tokens of a split are one long row, cut into examples of L raw tokens, where L is the largest
number whose inputs fit (568 for 512 in span corruption). Every epoch visits the examples in
another order. Of several texts every batch has equal shares, each in an order of its own.
A run that stops at any step resumes with the very batch that would have come next.
"""

import hashlib
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

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
        data_dir: folder of `trainers.data.preparation.prepare`, or several of one vocabulary.
        split: "train" or "validation". Validation ignores `seed`: its batches are the same for
            every run on this data, `num_batches` of them before they repeat.
        batch_size: examples per batch.
        input_length: encoder tokens, EOS included.
        seed: of the order and of the spans.
        first: number of batches that others took before; step 0 takes the one after them.
        objective: the task; default T5's span corruption.
        rows: rows of each batch that are made; the others are not read. None for all.

    Raises:
        UserError: a damaged folder, too few sentinels for the length, less text than a batch, or
            texts with different vocabularies.

    Example:
        >>> batches = PretrainingBatches(folder, "train", 32, 128, seed=0)
        >>> batches.batch(7)["encoder_token_ids"].shape
        (32, 128)
    """

    def __init__(
        self,
        data_dir: str | pathlib.Path | Sequence[str | pathlib.Path],
        split: str,
        batch_size: int,
        input_length: int,
        seed: int = 0,
        first: int = 0,
        objective: Objective = Objective(),  # noqa: B008 - it is frozen
        rows: slice | None = None,
    ):
        check_choice((TRAIN, VALIDATION), split=split)
        several = isinstance(data_dir, Sequence) and not isinstance(data_dir, str)
        folders = [pathlib.Path(folder) for folder in (data_dir if several else (data_dir,))]
        self._folder = folder = folders[0]
        self._manifests = [manifest.read(folder) for folder in folders]
        self.manifest = self._manifests[0]
        self._check_vocabularies(folders)
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
        self._texts = [self._examples(folder, split) for folder in folders]
        # The examples are numbered through; these are the first numbers of the texts.
        *self._starts, self.num_examples = itertools.accumulate(map(len, self._texts), initial=0)
        self._seed = 0 if split == VALIDATION else seed
        self._first = first
        self._indices = self._order().batch(batch_size)

    def _check_vocabularies(self, folders: Sequence[pathlib.Path]):
        vocabularies = [facts["vocabulary"]["sha256"] for facts in self._manifests]
        if len(set(vocabularies)) > 1:
            received = ", ".join(
                f"{folder} with {digest:.12}…"
                for folder, digest in zip(folders, vocabularies, strict=True)
            )
            words = folders[0] / manifest.VOCABULARY
            raise UserError(
                "texts with one vocabulary",
                received,
                f"Prepare the others with trainers.prepare --vocabulary={words}",
            )

    def _examples(self, folder: pathlib.Path, split: str) -> np.ndarray:
        """The examples of a text, (number, L)."""
        dtype = manifest.token_dtype(self.manifest["vocabulary"]["size"])
        tokens = np.memmap(folder / manifest.token_file(split), dtype, mode="r")
        count = len(tokens) // self.raw_length
        # The fixed validation set may be smaller than a batch, which then repeats examples.
        if count < (self.batch_size if split == TRAIN else 1):
            batch = f"one {split} batch of {self.batch_size} ×"
            examples = batch if split == TRAIN else "validation of"
            raise UserError(
                f"text for {examples} {self.raw_length} tokens",
                f"data_dir={folder} with {len(tokens)} {split} tokens",
                "Take a smaller batch or shorter inputs, more text, or prepare it with "
                "trainers.prepare --validation_fraction=0.5",
            )
        return tokens[: count * self.raw_length].reshape(-1, self.raw_length)

    def _order(self) -> grain.MapDataset:
        """Numbers of examples without end: of the texts in turn, each epoch in another order."""
        orders = []
        for text, start in zip(self._texts, self._starts, strict=True):
            order = grain.MapDataset.range(start, start + len(text))
            orders.append(order.seed(self._seed % 2**32).shuffle().repeat())
        return orders[0] if len(orders) == 1 else grain.MapDataset.mix(orders)

    def _tokens(self, numbers: np.ndarray) -> np.ndarray:
        """The tokens of examples, (number, L)."""
        of_text = np.searchsorted(self._starts, numbers, side="right") - 1
        tokens = np.empty((len(numbers), self.raw_length), self._texts[0].dtype)
        for index, (text, start) in enumerate(zip(self._texts, self._starts, strict=True)):
            chosen = of_text == index
            tokens[chosen] = text[numbers[chosen] - start]
        return tokens

    @property
    def num_batches(self) -> int:
        """Whole batches of different examples, at least one: an epoch, but for a remainder."""
        return max(1, self.num_examples // self.batch_size)

    def passes(self, steps: int) -> tuple[float, ...]:
        """Returns how many times as many batches go through each of the texts."""
        rows = steps * self.batch_size / len(self._texts)
        return tuple(rows / len(text) for text in self._texts)

    @property
    def tokens_per_batch(self) -> int:
        """Input and target tokens of a batch, what a training step is counted by."""
        return self.batch_size * (self.input_length + self.target_length)

    @property
    def fingerprint(self) -> str:
        """Hash of tokens and vocabulary: two runs with the same one trained on the same data."""
        digests = [
            facts["files"][name]["sha256"] for facts in self._manifests for name in manifest.FILES
        ]
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
        tokens = self._tokens(self._indices[index][self._rows])
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
