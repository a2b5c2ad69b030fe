"""Measures fine-tuning in examples per second, with packed rows and with padded ones.

    python -m benchmarks.glue_packing [--size=tiny_m] [--tasks=cola,rte] [--batch_size=32]

Tasks are read from `--data_dir`, the benchmark's own files, and written with a vocabulary trained
on their texts, so the lengths are real ones. Two models of one size train in turn in this one
process: one on padded batches, one on rows that hold as many examples on average. Prints the ratio
for each task; one whose files are absent is named and left out. Takes about two minutes on two
cores at the default size.
"""

import dataclasses
import time

import numpy as np

import keras_fusion as kf
from benchmarks._rounds import in_turn, line, ratios
from glue import data
from glue.data import batches, packing
from trainers import programs
from trainers.data import vocabulary
from trainers.engines.tensorflow import TensorFlowEngine
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class PackingConfig:
    """The settings of the benchmark; checks itself."""

    size: str = option("tiny_m", "Size of the T5.", choices=tuple(sorted(kf.models.config.SIZES)))
    tasks: tuple[str, ...] = option(("cola", "rte"), "Tasks whose files are in --data_dir.")
    data_dir: str = option(
        "../shared/data/glue", "Folder of the benchmark's files: CoLA/train.tsv, …"
    )
    pieces: int = option(480, "Pieces of the vocabulary.", at_least=1)
    batch_size: int = option(32, "Mean examples per batch.", at_least=1)
    input_length: int = option(512, "Longest input; longer ones are cut.", at_least=2)
    steps: int = option(5, "Steps per round.", at_least=1)
    rounds: int = option(7, "Rounds, both in turn.", at_least=1)

    def __post_init__(self):
        check_options(self)


def read(task, data_dir, pieces, input_length):
    """The training examples of a task as tokens."""
    pairs = data.load_examples(task, "train", data_dir)
    # With the labels, so that it can write them.
    trained = vocabulary.train([" ".join(pair) for pair in pairs], pieces)
    words = vocabulary.Vocabulary(trained, num_sentinels=0)
    return batches.tokenize(pairs, words, input_length, target_length=16)


def make_run(config, source, steps):
    """A function that trains on some batches and returns examples per second."""
    engine = TensorFlowEngine()
    engine.compile(kf.models.T5(config, seed=0), kf.optimizers.Adafactor(0.001))
    feed = source.from_step(0)
    engine.train(feed, steps)
    done = steps

    def run():
        nonlocal done
        # Counted in advance, out of the time: the number of targets, and so of examples.
        examples = sum(count(source.batch(step)) for step in range(done, done + steps))
        start = time.perf_counter()
        engine.train(feed, steps)
        done += steps
        return examples / (time.perf_counter() - start)

    return run


def count(batch):
    """Number of examples of a batch: each has one end of its target."""
    return int(np.sum(batch["targets"] == vocabulary.EOS_ID))


def compare(config, examples, batch_size, steps, rounds):
    """Examples per second of packed and of padded batches, round by round, and the rows."""
    rows = packing.pack(examples)
    runs = [
        make_run(config, source, steps)
        for source in (
            batches.TrainingBatches(rows, rows.batch_size(batch_size)),
            batches.TrainingBatches(examples, batch_size),
        )
    ]
    return *in_turn(runs, rounds), rows


def main(config: PackingConfig) -> None:
    """Measures and prints, task after task."""
    model_config = kf.models.T5Config.from_size(config.size, dropout=0.1)
    tasks, missing = data.available(config.tasks, config.data_dir)
    for name, reason in missing.items():
        print(f"{name} is left out. {reason}")
    for task in tasks:
        examples = read(task, config.data_dir, config.pieces, config.input_length)
        packed, padded, rows = compare(
            model_config, examples, config.batch_size, config.steps, config.rounds
        )
        print(
            f"{task}, {config.size}, batch of {config.batch_size}: padded {config.batch_size} x "
            f"({examples.input_length} + {examples.target_length}), packed "
            f"{rows.batch_size(config.batch_size)} x ({rows.input_length} + {rows.target_length}), "
            f"{rows.examples_per_row:.2f} examples per row, {rows.fill[0]:.1%} of its input used"
        )
        print(line("packed", packed, "examples/s"))
        print(line("padded", padded, "examples/s"))
        print(line("ratio", ratios(packed, padded)), flush=True)


if __name__ == "__main__":
    programs.run(main, PackingConfig)
