"""Padded batches for fine-tuning as a pure function of (seed, step), and those to evaluate on.

A text is tokenised, cut to one less than the length and ended by EOS. Every epoch visits the
examples in another order; a batch may reach into the next epoch, so that all are of one shape. A
mixture is the examples of its tasks together, so its batches hold each task in proportion to its
size.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from trainers.data.batches import Batch, read_ahead
from trainers.data.tokens import EOS_ID, PAD_ID
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError

_LENGTHS = 16
_NONE = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Tokenised examples; each sequence ends with EOS."""

    inputs: Sequence[np.ndarray]  # an int32 array for each example, of at most the lengths
    targets: Sequence[np.ndarray]  # an int32 array for each example, of at most the lengths
    input_length: int  # lengths that batches are padded to
    target_length: int  # lengths that batches are padded to
    cut: int = 0  # number of inputs that were longer

    def __len__(self) -> int:
        return len(self.inputs)

    def __add__(self, other: "Examples") -> "Examples":
        return Examples(
            [*self.inputs, *other.inputs],
            [*self.targets, *other.targets],
            max(self.input_length, other.input_length),
            max(self.target_length, other.target_length),
            self.cut + other.cut,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of all tokens: two trainings with the same one see the same examples."""
        digest = hashlib.sha256()
        for pair in zip(self.inputs, self.targets, strict=True):
            for ids in pair:
                digest.update(np.asarray(ids, "<i4").tobytes())
        return digest.hexdigest()[:12]

    def batch(self, rows: Sequence[int], size: int | None = None) -> dict[str, np.ndarray]:
        """The batch of some examples, filled up to a size by rows of an empty input and no target.

        Returns:
            int32 arrays: `encoder_token_ids` and `encoder_padding_mask` (size, input_length),
            `decoder_token_ids` and `targets` (size, target_length). The decoder needs no mask: it
            sees only earlier positions, and targets that are padding do not count.
        """
        unused = 0 if size is None else size - len(rows)
        empty = np.array([EOS_ID], np.int32)
        inputs = _pad([*(self.inputs[row] for row in rows), *[empty] * unused], self.input_length)
        targets = [*(self.targets[row] for row in rows), *[_NONE] * unused]
        targets = _pad(targets, self.target_length)
        shifted = np.zeros_like(targets)
        shifted[:, 1:] = targets[:, :-1]
        return {
            "encoder_token_ids": inputs,
            "encoder_padding_mask": (inputs != PAD_ID).astype(np.int32),
            "decoder_token_ids": shifted,
            "targets": targets,
        }


def tokenize(
    pairs: Sequence[tuple[str, str]], vocabulary: Vocabulary, input_length: int, target_length: int
) -> Examples:
    """Tokenises what `glue.data.load_examples` returns.

    Inputs are cut to a length, EOS included; where all are shorter, batches are padded to less.

    Raises:
        UserError: a target that is longer, or that the vocabulary cannot write: no generated text
            would ever equal it.
    """
    labels = {
        text: _target(text, vocabulary, target_length)
        for text in sorted({target for _, target in pairs})
    }
    examples = tokenize_inputs([text for text, _ in pairs], vocabulary, input_length)
    targets = [labels[target] for _, target in pairs]
    return dataclasses.replace(examples, targets=targets, target_length=target_length)


def tokenize_inputs(texts: Sequence[str], vocabulary: Vocabulary, input_length: int) -> Examples:
    """Tokenises input texts alone; arguments as for `tokenize`."""
    encoded = vocabulary.encode(texts)
    inputs = [_ended(ids[: input_length - 1]) for ids in encoded]
    longest = max(map(len, inputs), default=0)
    return Examples(
        inputs,
        [_NONE] * len(inputs),
        # No more padding than the longest one needs, in lengths that do not change with each text.
        input_length=min(input_length, -(-longest // _LENGTHS) * _LENGTHS),
        target_length=0,
        cut=sum(len(ids) >= input_length for ids in encoded),
    )


def _target(text: str, vocabulary: Vocabulary, length: int) -> np.ndarray:
    (ids,) = vocabulary.encode([text], "sentencepiece")
    written = vocabulary.decode(ids)
    if written != text:
        raise UserError(
            "a vocabulary that can write every label",
            f"label={text!r}, which comes back as {written!r}",
            "Pretrain with a vocabulary that has its letters",
        )
    if len(ids) >= length:
        raise UserError(
            f"labels of at most {length - 1} tokens and EOS",
            f"label={text!r} of {len(ids)} tokens, target_length={length}",
            f"Give --target_length={len(ids) + 1}",
        )
    return _ended(ids)


def _ended(ids: np.ndarray) -> np.ndarray:
    return np.append(ids, EOS_ID).astype(np.int32)


def _pad(sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
    padded = np.full((len(sequences), length), PAD_ID, np.int32)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded


class TrainingBatches:
    """Endless batches of `Examples` or `PackedRows`, in an order that (seed, epoch) decide.

    Example:
        >>> batches = TrainingBatches(examples, 32, seed=0)
        >>> batches.batch(7)["encoder_token_ids"].shape
        (32, 128)
    """

    def __init__(self, examples: Examples, batch_size: int, seed: int = 0):
        self.examples = examples
        self.batch_size = batch_size
        order = grain.MapDataset.range(len(examples)).seed(seed % 2**32).shuffle()
        self._rows = order.repeat().batch(batch_size)

    @property
    def tokens_per_batch(self) -> int:
        """Input and target positions of a batch, padding included."""
        return self.batch_size * (self.examples.input_length + self.examples.target_length)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the batch of a step, whatever was asked for before."""
        return self.examples.batch(self._rows[step].tolist())

    def from_step(self, start: int) -> Iterator[Batch]:
        """Returns an endless iterator of `batch(start)`, `batch(start + 1)`, …, made ahead."""
        return read_ahead(self.batch, start)


class EvaluationBatches:
    """At most so many batches from all over `Examples` or `PackedRows`, whose loss is followed."""

    def __init__(self, examples: Examples, batch_size: int, most: int):
        self.examples = examples
        self.batch_size = batch_size
        size = min(len(examples), most * batch_size)
        # At equal distances, so that every task of a mixture has its share.
        self._rows = np.arange(size) * len(examples) // size

    def __len__(self) -> int:
        return -(-len(self._rows) // self.batch_size)

    def batch(self, index: int) -> dict[str, np.ndarray]:
        """Returns a batch, 0 ≤ index < len(self); rows that fill up the last one do not count."""
        start = index * self.batch_size
        return self.examples.batch(self._rows[start : start + self.batch_size], self.batch_size)
