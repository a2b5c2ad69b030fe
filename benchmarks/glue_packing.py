"""How many examples a second does fine-tuning take with packed rows, over padded ones?

    python -m benchmarks.glue_packing [--size=tiny_m] [--tasks=cola,rte] [--batch_size=32]

Tasks are read from `--data_dir`, the benchmark's own files, and written with a vocabulary trained
on their texts, so the lengths are real ones. Two models of one size train in turn in this one
process: one on padded batches, one on rows that hold as many examples on the average. Prints the
ratio for each task; one whose files are absent is named and left out. Takes about two minutes on
two cores at the default size.
"""

import time

import numpy as np
from absl import flags

import keras_fusion as kf
from benchmarks._rounds import in_turn, line, ratios
from glue import data
from glue.data import batches, packing
from trainers import programs
from trainers.data import vocabulary
from trainers.engines.tensorflow import TensorFlowEngine


def read(task, data_dir, pieces, input_length):
    """The training examples of a task as tokens."""
    pairs = data.load_examples(task, "train", data_dir)
    # With the labels, so that it can write them.
    trained = vocabulary.train([" ".join(pair) for pair in pairs], pieces)
    words = vocabulary.Vocabulary(trained, num_sentinels=0)
    return batches.tokenize(pairs, words, input_length, target_length=16)


def make_run(config, source, steps):
    """A function that trains on some batches and returns examples a second."""
    engine = TensorFlowEngine()
    engine.compile(kf.models.T5(config, seed=0), kf.optimizers.Adafactor(0.001))
    feed = source.from_step(0)
    engine.train(feed, steps)
    done = steps

    def run():
        nonlocal done
        # Counted in advance, out of the time: how many targets, and so examples, the steps have.
        examples = sum(count(source.batch(step)) for step in range(done, done + steps))
        start = time.perf_counter()
        engine.train(feed, steps)
        done += steps
        return examples / (time.perf_counter() - start)

    return run


def count(batch):
    """Examples of a batch: each has one end of its target."""
    return int(np.sum(batch["targets"] == vocabulary.EOS_ID))


def compare(config, examples, batch_size, steps, rounds):
    """Examples a second of packed and of padded batches, round by round, and the rows."""
    rows = packing.pack(examples)
    runs = [
        make_run(config, source, steps)
        for source in (
            batches.TrainingBatches(rows, rows.batch_size(batch_size)),
            batches.TrainingBatches(examples, batch_size),
        )
    ]
    return *in_turn(runs, rounds), rows


def main(argv):
    del argv
    config = kf.models.T5Config.from_size(SIZE.value, dropout=0.1)
    tasks, missing = data.available(TASKS.value, DATA_DIR.value)
    for name, reason in missing.items():
        print(f"{name} is left out. {reason}")
    for task in tasks:
        examples = read(task, DATA_DIR.value, PIECES.value, INPUT_LENGTH.value)
        packed, padded, rows = compare(
            config, examples, BATCH_SIZE.value, STEPS.value, ROUNDS.value
        )
        print(
            f"{task}, {SIZE.value}, batch of {BATCH_SIZE.value}: padded "
            f"{BATCH_SIZE.value} x ({examples.input_length} + {examples.target_length}), packed "
            f"{rows.batch_size(BATCH_SIZE.value)} x ({rows.input_length} + {rows.target_length}), "
            f"{rows.examples_per_row:.2f} examples a row, {rows.fill[0]:.1%} of its input used"
        )
        print(line("packed", packed, "examples/s"))
        print(line("padded", padded, "examples/s"))
        print(line("ratio", ratios(packed, padded)), flush=True)


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    TASKS = flags.DEFINE_list("tasks", ["cola", "rte"], "Tasks whose files are in --data_dir.")
    DATA_DIR = flags.DEFINE_string(
        "data_dir", "../shared/data/glue", "Folder of the benchmark's files: CoLA/train.tsv, …"
    )
    PIECES = flags.DEFINE_integer("pieces", 480, "Pieces of the vocabulary.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Examples a batch, on the average.")
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 512, "Longest input; longer are cut.")
    STEPS = flags.DEFINE_integer("steps", 5, "Steps a round.")
    ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds, both in turn.")
    programs.run(main)
