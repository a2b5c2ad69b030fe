"""The cost of a training step of a size, before anything is built: for plans with budgets."""

import pathlib

import keras_fusion as kf
from trainers.data import manifest
from trainers.data.objectives import Objective
from trainers.data.vocabulary import PADDING_MULTIPLE, Vocabulary
from trainers.engines.flops import planned_step_flops
from trainers.errors import UserError
from trainers.plans.options import PlanOptions
from trainers.plans.sizes import Size


def step_cost(
    letter: str,
    size: Size,
    options: PlanOptions,
    batch_size: int,
    input_length: int,
    objective: Objective,
    data_dir: str | pathlib.Path | None = None,
    vocabulary: str | None = None,
) -> float:
    """FLOPs of a training step, or its device-seconds where the user gave them.

    The vocabulary is that of prepared tokens, or a SentencePiece model; without either it is as
    large as the size wants it.
    """
    if options.step_seconds is not None:
        if letter not in options.step_seconds:
            raise UserError(
                f"--step_seconds for size {letter} too",
                f"step_seconds={dict(options.step_seconds)}",
                f"Add {letter}:SECONDS",
            )
        return options.step_seconds[letter]
    lengths = objective.lengths(objective.raw_length(input_length))
    return planned_step_flops(
        kf.models.T5Config.from_size(
            size.models[letter], vocabulary_size=_vocabulary_size(size, data_dir, vocabulary)
        ),
        batch_size,
        *lengths,
    )


def _vocabulary_size(
    size: Size, data_dir: str | pathlib.Path | None, vocabulary: str | None
) -> int:
    if data_dir:
        return manifest.read(pathlib.Path(data_dir))["vocabulary"]["padded_size"]
    if vocabulary:
        return Vocabulary.from_file(vocabulary, size.num_sentinels).padded_size
    words = size.vocabulary_pieces + size.num_sentinels
    return -(-words // PADDING_MULTIPLE) * PADDING_MULTIPLE
