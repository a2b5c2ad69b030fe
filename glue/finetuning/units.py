"""What is fine-tuned in one go: a task, or a mixture of tasks, with its examples as tokens."""

import dataclasses
import functools
from collections.abc import Mapping

from glue import data, tasks
from glue.data import batches, packing
from glue.data.batches import EvaluationBatches, Examples, TrainingBatches
from glue.finetuning.config import MIXTURE, FinetuneConfig
from trainers.data.vocabulary import Vocabulary

Pairs = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A task or a mixture.

    Args:
        name: the task's, or `mixture`.
        tasks: names of its tasks.
        train, validation: examples of all its tasks.
        evaluated: by task and split, input and target texts that it is judged by.
    """

    name: str
    tasks: tuple[str, ...]
    train: Examples
    validation: Examples
    evaluated: Mapping[str, Mapping[str, Pairs]]

    @property
    def identity(self) -> dict:
        """What it learns from and is judged by: what tells a fine-tuning on it from others."""
        return {
            "tasks": list(self.tasks),
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
        }

    def batches(self, config: FinetuneConfig, seed: int, devices: int) -> TrainingBatches:
        """What it is trained on; of a mixture, each task as often as its size says.

        Args:
            config: a resolved one: batch size, and whether rows hold several examples.
            seed: of the order.
            devices: that a batch is divided among.
        """
        if not config.packed:
            return TrainingBatches(self.train, config.batch_size, seed)
        rows = packing.pack(self.train, seed)
        multiple = devices * config.devices.microbatches
        return TrainingBatches(rows, rows.batch_size(config.batch_size, multiple), seed)

    def validation_batches(self, batch_size: int, most: int) -> EvaluationBatches:
        """What the loss is followed on while it trains."""
        return EvaluationBatches(self.validation, batch_size, most)


def read(config: FinetuneConfig, names: tuple[str, ...], vocabulary: Vocabulary) -> list[Unit]:
    """Reads and tokenises the tasks.

    Args:
        config: a resolved one: lengths, where the data is, and whether it is one mixture.
        names: the tasks whose data is there.
        vocabulary: of the pretrained model.

    Raises:
        UserError: a file that cannot be used (file, line and value are named), or labels that the
            vocabulary or the target length cannot hold.
    """
    units = [_read(config, name, vocabulary) for name in names]
    if not config.is_mixture:
        return units
    return [
        Unit(
            MIXTURE,
            names,
            functools.reduce(Examples.__add__, (unit.train for unit in units)),
            functools.reduce(Examples.__add__, (unit.validation for unit in units)),
            {name: unit.evaluated[name] for name, unit in zip(names, units, strict=True)},
        )
    ]


def _read(config: FinetuneConfig, name: str, vocabulary: Vocabulary) -> Unit:
    def tokens(pairs: Pairs) -> Examples:
        return batches.tokenize(pairs, vocabulary, config.input_length, config.target_length)

    evaluated = {
        split: data.load_examples(name, split, config.data_dir)
        for split in tasks.find(name).evaluated
    }
    return Unit(
        name,
        (name,),
        tokens(data.load_examples(name, "train", config.data_dir)),
        tokens([pair for pairs in evaluated.values() for pair in pairs]),
        {name: evaluated},
    )
