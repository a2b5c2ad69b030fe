"""Costs and parameters of the models of a size before they are built: for plans with budgets."""

import dataclasses
import pathlib
from collections.abc import Mapping

import keras_fusion as kf
from trainers.data import manifest
from trainers.data.objectives import Objective
from trainers.data.vocabulary import PADDING_MULTIPLE, Vocabulary
from trainers.engines.flops import planned_step_flops
from trainers.errors import UserError
from trainers.plans.options import PlanOptions
from trainers.plans.sizes import Size


def model_config(
    letter: str,
    size: Size,
    data_dir: str | pathlib.Path | None = None,
    vocabulary: str | None = None,
    times: Mapping[str, float] | None = None,
) -> "kf.models.T5Config":
    """The configuration of a model, some of its fields multiplied.

    The vocabulary is that of prepared tokens, or a SentencePiece model; without either it is as
    large as the size wants it.
    """
    rows = _vocabulary_size(size, data_dir, vocabulary)
    config = kf.models.T5Config.from_size(size.models[letter], vocabulary_size=rows)
    grown = {f: round(factor * getattr(config, f)) for f, factor in (times or {}).items()}
    return dataclasses.replace(config, **grown)


def parameters(letter: str, **arguments) -> int:
    """Number of weights of a model; arguments are those of `model_config`."""
    return kf.models.parameter_count(model_config(letter, **arguments))


def step_cost(
    letter: str,
    size: Size,
    options: PlanOptions,
    batch_size: int,
    input_length: int,
    objective: Objective,
    training_length: int | None = None,
    **arguments,
) -> float:
    """FLOPs of a training step, or its device-seconds where the user gave them.

    A training length stands in the place of the input length. Further arguments are those of
    `model_config`.
    """
    if options.step_seconds is not None:
        if arguments.get("times") or training_length:
            expected = "FLOPs for models between the sizes, and for sequences of other lengths"
            raise UserError(expected, "--step_seconds", "Leave it out")
        if letter not in options.step_seconds:
            raise UserError(
                f"--step_seconds for size {letter} too",
                f"step_seconds={dict(options.step_seconds)}",
                f"Add {letter}:SECONDS",
            )
        return options.step_seconds[letter]
    lengths = objective.lengths(objective.raw_length(training_length or input_length))
    return planned_step_flops(model_config(letter, size, **arguments), batch_size, *lengths)


def _vocabulary_size(
    size: Size, data_dir: str | pathlib.Path | None, vocabulary: str | None
) -> int:
    if data_dir:
        return manifest.read(pathlib.Path(data_dir))["vocabulary"]["padded_size"]
    if vocabulary:
        return Vocabulary.from_file(vocabulary, size.num_sentinels).padded_size
    words = size.vocabulary_pieces + size.num_sentinels
    return -(-words // PADDING_MULTIPLE) * PADDING_MULTIPLE
