"""Texts that a model generates greedily."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from glue.data import batches
from keras_fusion.models import generation
from trainers.data.tokens import EOS_ID
from trainers.data.vocabulary import Vocabulary


def predictor(
    model, vocabulary: Vocabulary, batch_size: int, input_length: int, target_length: int
) -> Callable[[Sequence[str]], list[str]]:
    """Returns a function that generates a text for each input, with the model's weights then."""
    decode = generation.compiled(model, max_length=target_length)

    def predict(texts: Sequence[str]) -> list[str]:
        examples = batches.tokenize_inputs(texts, vocabulary, input_length)
        generated = []
        for start in range(0, len(texts), batch_size):
            rows = range(start, min(start + batch_size, len(texts)))
            batch = examples.batch(rows, batch_size)
            ids = decode(batch["encoder_token_ids"], batch["encoder_padding_mask"])
            generated += [_text(row, vocabulary) for row in ops.convert_to_numpy(ids)[: len(rows)]]
        return generated

    return predict


def _text(ids: np.ndarray, vocabulary: Vocabulary) -> str:
    ends = np.flatnonzero(ids == EOS_ID)
    return vocabulary.decode(ids[: ends[0]] if ends.size else ids)
