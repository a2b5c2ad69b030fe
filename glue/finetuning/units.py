"""The units of fine-tuning: a task, or a mixture of tasks, with its examples as tokens."""

import dataclasses
import functools
import operator
from collections.abc import Mapping

from glue import data, tasks
from glue.data import batches, packing
from glue.data.batches import EvaluationBatches, Examples, TrainingBatches
from glue.finetuning.config import MIXTURE, FinetuneConfig
from trainers.data.vocabulary import Vocabulary

Pairs = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A task or a mixture."""

    name: str  # the task's, or `mixture`
    train: Examples  # examples of all its tasks
    validation: Examples  # examples of all its tasks
    # By task and split, input and target texts that it is judged by.
    evaluated: Mapping[str, Mapping[str, Pairs]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of its tasks."""
        return tuple(self.evaluated)

    @property
    def identity(self) -> dict:
        """The data that it learns from and is judged by, which tells a fine-tuning from others."""
        return {
            "tasks": list(self.tasks),
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
        }

    def batches(self, config: FinetuneConfig, seed: int, devices: int) -> TrainingBatches:
        """Its training batches; a mixture draws each task in proportion to its size."""
        if not config.packed:
            return TrainingBatches(self.train, config.batch_size, seed)
        rows = packing.pack(self.train, seed)
        multiple = devices * config.devices.microbatches
        return TrainingBatches(rows, rows.batch_size(config.batch_size, multiple), seed)

    def validation_batches(self, config: FinetuneConfig) -> EvaluationBatches:
        """The batches whose loss is followed while it trains."""
        return EvaluationBatches(self.validation, config.batch_size, config.eval_batches)


def read(config: FinetuneConfig, names: tuple[str, ...], vocabulary: Vocabulary) -> list[Unit]:
    """Reads and tokenises the tasks whose data is there."""
    units = [_read(config, name, vocabulary) for name in names]
    if not config.is_mixture:
        return units
    train = functools.reduce(operator.add, (unit.train for unit in units))
    validation = functools.reduce(operator.add, (unit.validation for unit in units))
    evaluated = {name: unit.evaluated[name] for unit in units for name in unit.tasks}
    return [Unit(MIXTURE, train, validation, evaluated)]


def _read(config: FinetuneConfig, name: str, vocabulary: Vocabulary) -> Unit:
    def tokens(pairs: Pairs) -> Examples:
        return batches.tokenize(pairs, vocabulary, config.input_length, config.target_length)

    evaluated = {
        split: data.load_examples(name, split, config.data_dir)
        for split in tasks.find(name).evaluated
    }
    validation = [pair for pairs in evaluated.values() for pair in pairs]
    train = data.load_examples(name, "train", config.data_dir)
    return Unit(name, tokens(train), tokens(validation), {name: evaluated})
