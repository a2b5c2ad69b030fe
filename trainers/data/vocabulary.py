"""The vocabulary of T5: SentencePiece pieces, then sentinels, then padding.

Ids: PAD 0, EOS 1, UNK 2, no BOS, the pieces, the sentinels above them. `size` counts pieces and
sentinels (T5: 32,000 + 100 = 32,100), `padded_size` is the next multiple of 128 (32,128): the
width of the model's embedding. The first sentinel is id `size - 1`, written `<extra_id_0>`.

Two tokenizers give the same ids: tensorflow-text's inside a tf.data pass, which uses all cores
and is taken where Keras runs on TensorFlow, and sentencepiece itself.
"""

import hashlib
import importlib.util
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import sentencepiece

from trainers.data.cutting import cut
from trainers.data.tokens import EOS_ID, PAD_ID, UNK_ID
from trainers.errors import UserError, os_errors

PADDING_MULTIPLE = 128
# Bytes of a line that SentencePiece trains on; it leaves out longer ones without a word.
_LONGEST_LINE = 1 << 16
_SENTINEL = re.compile("\N{LOWER ONE EIGHTH BLOCK}?<extra_id_([0-9]+)>")


class Vocabulary:
    """A SentencePiece model with sentinels above its pieces.

    Args:
        model: bytes of a SentencePiece model whose PAD, EOS and UNK are 0, 1 and 2.
        num_sentinels: how many sentinels to add; a model that ends with sentinels of its own, as
            mT5's does, keeps these instead.
        source: what to call the model in an error message.

    Example:
        >>> vocabulary = Vocabulary(train(["some text", "more"], 40), num_sentinels=8)
        >>> vocabulary.decode(vocabulary.encode(["some text"])[0])
        'some text'
    """

    def __init__(self, model: bytes, num_sentinels: int = 100, source: str = "model"):
        self.model = model
        self._processor = _load(model, source)
        own_sentinels = _own_sentinels(self._processor, source)
        self.num_sentinels = own_sentinels or num_sentinels
        self.num_pieces = self._processor.get_piece_size() - own_sentinels

    @classmethod
    def from_file(cls, path: str | pathlib.Path, num_sentinels: int = 100) -> "Vocabulary":
        """Loads a `.model` file, such as T5's own of 32,000 pieces."""
        do = "Leave --vocabulary out to train one"
        with os_errors("a SentencePiece model file", f"vocabulary={path}", do):
            model = pathlib.Path(path).read_bytes()
        return cls(model, num_sentinels, source=str(path))

    @property
    def size(self) -> int:
        """Pieces and sentinels."""
        return self.num_pieces + self.num_sentinels

    @property
    def padded_size(self) -> int:
        """`size` rounded up to a multiple of 128, the rows of the model's embedding."""
        return -(-self.size // PADDING_MULTIPLE) * PADDING_MULTIPLE

    @property
    def first_sentinel(self) -> int:
        """Id of `<extra_id_0>`; `<extra_id_k>` is k below."""
        return self.size - 1

    @property
    def sha256(self) -> str:
        """SHA-256 of the model's bytes, in hexadecimal."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: Sequence[str], tokenizer: str | None = None) -> list[np.ndarray]:
        """Tokenises texts, without EOS and without sentinels; returns an int32 array for each.

        The tokenizer is "tensorflow_text", "sentencepiece", or None for `default_tokenizer()`.
        """
        return [ids for chunk in self.encode_chunks([list(texts)], tokenizer) for ids in chunk]

    def encode_chunks(
        self, chunks: Iterable[list[str]], tokenizer: str | None = None
    ) -> Iterator[list[np.ndarray]]:
        """Tokenises a stream of lists of texts; yields a list of int32 arrays for each."""
        return _TOKENIZERS[tokenizer or default_tokenizer()](self, chunks)

    def decode(self, ids: Iterable[int]) -> str:
        """Writes ids as text: sentinels as `<extra_id_k>`, PAD and ids above `size` left out.

        EOS is left out as well; the text does not end there, as ids may hold several documents.
        """
        words, run = [], []
        for token in map(int, ids):
            if token < self.num_pieces:
                run.append(token)
            elif token < self.size:
                words += [self._processor.decode(run), f"<extra_id_{self.first_sentinel - token}>"]
                run = []
        words.append(self._processor.decode(run))
        return " ".join(word for word in words if word)

    def _encode_sentencepiece(self, chunks: Iterable[list[str]]) -> Iterator[list[np.ndarray]]:
        for chunk in chunks:
            yield [np.array(ids, np.int32) for ids in self._processor.encode(chunk)]

    def _encode_tensorflow(self, chunks: Iterable[list[str]]) -> Iterator[list[np.ndarray]]:
        import tensorflow as tf
        import tensorflow_text

        tokenizer = tensorflow_text.SentencepieceTokenizer(model=self.model, out_type=tf.int32)

        # What a generator raises inside tf.data arrives as an error of TensorFlow, so it is kept.
        failures = []

        def guarded():
            try:
                yield from chunks
            except Exception as error:
                failures.append(error)

        def tokenize(texts):
            ragged = tokenizer.tokenize(texts)
            return ragged.flat_values, ragged.row_splits

        dataset = tf.data.Dataset.from_generator(
            guarded, output_signature=tf.TensorSpec([None], tf.string)
        )
        dataset = dataset.map(tokenize, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        for values, splits in dataset.prefetch(2).as_numpy_iterator():
            yield np.split(values, splits[1:-1]) if len(splits) > 1 else []
        if failures:
            raise failures[0]


_TOKENIZERS = {
    "tensorflow_text": Vocabulary._encode_tensorflow,
    "sentencepiece": Vocabulary._encode_sentencepiece,
}


def default_tokenizer() -> str:
    """Names the tokenizer that `Vocabulary.encode` takes by itself.

    Where Keras runs on another backend, TensorFlow stays unloaded: it would claim the accelerator.
    """
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return "sentencepiece"
    if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorflow_text"):
        return "tensorflow_text"
    return "sentencepiece"


def train(texts: Iterable[str], num_pieces: int) -> bytes:
    """Trains a unigram model with T5's special ids; the same texts give the same bytes.

    Args:
        texts: the sample; each text is cut at line ends, as SentencePiece wants sentences, and
            longer lines than it takes at spaces.
        num_pieces: pieces of the model, special ones included: a `UserError` where the texts have
            too few words, or too many letters, for so many.
    """
    lines = (
        part
        for text in texts
        for line in text.splitlines()
        for part in cut(line.strip(), _LONGEST_LINE)
    )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=num_pieces,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            num_threads=1,  # with more, the order of a sum differs, and so do the pieces
            max_sentence_length=_LONGEST_LINE,
            minloglevel=3,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition("] ")[2] or "the sample is empty"
        raise UserError(
            f"a number of pieces that fits the text: {reason}",
            f"vocabulary_pieces={num_pieces}",
            "Give more text or another number",
        ) from error
    return model.getvalue()


def _own_sentinels(processor: sentencepiece.SentencePieceProcessor, source: str) -> int:
    """Counts the sentinels at the end of a model: <extra_id_99> to <extra_id_0>, the last piece."""
    size = processor.get_piece_size()
    numbers = []
    for index in reversed(range(size)):
        match = _SENTINEL.fullmatch(processor.id_to_piece(index))
        if match is None:
            break
        numbers.append(int(match[1]))
    if numbers != list(range(len(numbers))):
        raise UserError(
            "a SentencePiece model whose sentinels end with <extra_id_0>, as mT5's do",
            f"vocabulary={source} that ends with {processor.id_to_piece(size - 1)}",
            "Train one without sentinels: they are added above the pieces",
        )
    return len(numbers)


def _load(model: bytes, source: str) -> sentencepiece.SentencePieceProcessor:
    try:
        # Empty bytes load as a model without pieces, and every call on it then only warns.
        if not model:
            raise RuntimeError("the file is empty")
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        expected = "a SentencePiece model (a .model file as spm_train writes it)"
        raise UserError(expected, f"vocabulary={source}, which is none") from error
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if ids != (PAD_ID, EOS_ID, UNK_ID):
        raise UserError(
            "a SentencePiece model with PAD, EOS, UNK = 0, 1, 2, as T5's has",
            f"vocabulary={source} with {ids}",
            "Train it with pad_id=0, eos_id=1, unk_id=2, bos_id=-1",
        )
    return processor
