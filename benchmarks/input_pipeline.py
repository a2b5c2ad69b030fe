"""Share of a training step that is spent waiting for its batch.

    python -m benchmarks.input_pipeline [--batch_size=32] [--input_length=128] [--step_ms=50]
    python -m benchmarks.input_pipeline --batch_size=128 --input_length=512 --step_ms=1000

Times our batches beside two peers on the same tokens in the same run: the span corruption of T5
written in tf.data, as SeqIO does it, and our own function called example by example. Then a loop
stands in for training: it keeps the cores busy for `--step_ms` per step, takes the next batch from
the prefetching iterator, and measures how long it waits. Some seconds on two cores.

`--step_ms` is the step time to compare with: what `benchmarks.train_step` prints for a model.
"""

import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from absl import flags

from benchmarks import _programs
from trainers.data import manifest, spans
from trainers.data.batches import PretrainingBatches

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Examples per batch.", lower_bound=1)
_INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Encoder tokens.", lower_bound=3)
_STEP_MS = flags.DEFINE_float("step_ms", 50.0, "Time of a training step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "Batches to time.", lower_bound=10)

SIZE, SENTINELS = 512, 100
FIRST_SENTINEL = SIZE - 1


def random_folder(folder: pathlib.Path, examples: int, raw_length: int) -> None:
    """Writes a prepared folder of random tokens, enough for `examples` in each split."""
    tokens = np.random.default_rng(0).integers(3, SIZE - SENTINELS, examples * raw_length)
    (folder / manifest.VOCABULARY).write_bytes(b"random")
    for split in ("train", "validation"):
        tokens.astype(manifest.token_dtype(SIZE)).tofile(folder / manifest.token_file(split))
    files = manifest.describe_files(folder)
    sizes = {"pieces": SIZE - SENTINELS, "sentinels": SENTINELS, "size": SIZE, "padded_size": SIZE}
    manifest.write(
        folder,
        {
            "config": {"corpus": "random"},
            "corpus": {},
            "files": files,
            "splits": {split: {"tokens": len(tokens)} for split in ("train", "validation")},
            "vocabulary": sizes | {"sha256": files[manifest.VOCABULARY]["sha256"]},
        },
    )


def tf_data_batches(batches: PretrainingBatches, examples: np.ndarray) -> Iterator[dict]:
    """The same task as a tf.data pipeline, example by example, on all cores."""
    import tensorflow as tf

    length = batches.raw_length
    noise, count = spans.span_counts(length)

    def segments(items):
        cuts = tf.random.shuffle(tf.cast(tf.range(items - 1) < count - 1, tf.int32))
        ids = tf.cumsum(tf.pad(cuts, [[1, 0]]))
        return tf.math.segment_sum(tf.ones_like(ids), ids)

    def replace(tokens, is_noise):
        first = tf.logical_and(is_noise, ~tf.pad(is_noise[:-1], [[1, 0]]))
        sentinels = FIRST_SENTINEL + 1 - tf.cumsum(tf.cast(first, tf.int32))
        kept = tf.boolean_mask(tf.where(first, sentinels, tokens), ~is_noise | first)
        return tf.concat([kept, [spans.EOS_ID]], 0)

    def corrupt(tokens):
        tokens = tf.cast(tokens, tf.int32)
        runs = tf.reshape(tf.stack([segments(length - noise), segments(noise)], 1), [-1])
        is_noise = tf.repeat(tf.range(2 * count) % 2 == 1, runs)
        inputs, targets = replace(tokens, is_noise), replace(tokens, ~is_noise)
        inputs = tf.ensure_shape(inputs, [batches.input_length])
        targets = tf.ensure_shape(targets, [batches.target_length])
        shifted = tf.concat([[0], targets[:-1]], 0)
        return {"encoder_token_ids": inputs, "decoder_token_ids": shifted, "targets": targets}

    dataset = tf.data.Dataset.from_tensor_slices(examples).shuffle(len(examples)).repeat()
    dataset = dataset.map(corrupt, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batches.batch_size).prefetch(8).as_numpy_iterator()


def loop_batches(batches: PretrainingBatches, examples: np.ndarray) -> Iterator[dict]:
    """The same task as a plain Python loop over the examples of a batch."""
    rng = np.random.default_rng(0)
    while True:
        chosen = examples[rng.integers(0, len(examples), batches.batch_size)]
        pairs = [spans.corrupt_batch(tokens[None], rng, FIRST_SENTINEL) for tokens in chosen]
        inputs, targets = (np.concatenate(column) for column in zip(*pairs, strict=True))
        shifted = np.pad(targets[:, :-1], [(0, 0), (1, 0)])
        yield {"encoder_token_ids": inputs, "decoder_token_ids": shifted, "targets": targets}


def seconds_per_batch(batches: Iterator[dict], steps: int) -> float:
    """Returns the mean wall time per batch when nothing else runs, after a start."""
    for _ in range(10):
        next(batches)
    started = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return (time.perf_counter() - started) / steps


def waiting_share(batches: Iterator[dict], steps: int, step_seconds: float) -> float:
    """Returns the share of time that a busy loop of `step_seconds` per step spends in `next`."""
    work = np.ones((512, 512), np.float32)
    next(batches)
    waited, started = 0.0, time.perf_counter()
    for _ in range(steps):
        end = time.perf_counter() + step_seconds
        while time.perf_counter() < end:
            work @ work
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    return waited / (time.perf_counter() - started)


def measure(batch_size: int, input_length: int, step_seconds: float, steps: int) -> list[tuple]:
    """Returns (name, seconds per batch, share of a step waited) for ours and the peers."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        random_folder(folder, 32 * batch_size, spans.raw_length(input_length))
        batches = PretrainingBatches(folder, "train", batch_size, input_length)
        tokens = np.fromfile(folder / manifest.token_file("train"), manifest.token_dtype(SIZE))
        examples = tokens.reshape(-1, batches.raw_length)
        waits = min(steps, max(10, round(3 / step_seconds)))  # three seconds are enough
        for label, made in {
            "ours (numpy, Grain)": batches.from_step(0),
            "peer: tf.data, per example": tf_data_batches(batches, examples),
            "peer: Python loop": loop_batches(batches, examples),
        }.items():
            seconds = seconds_per_batch(made, steps)
            rows.append((label, seconds, waiting_share(made, waits, step_seconds)))
    return rows


def main() -> None:
    """Prints one table."""
    step = _STEP_MS.value / 1000
    rows = measure(_BATCH_SIZE.value, _INPUT_LENGTH.value, step, _STEPS.value)
    print(f"Batches of {_BATCH_SIZE.value} × {_INPUT_LENGTH.value}, steps of {_STEP_MS.value} ms")
    print(f"{'':28}{'ms/batch':>10}{'of a step':>11}{'waited':>9}{'ours is':>12}")
    ours = rows[0][1]
    for label, seconds, waited in rows:
        faster = f"{seconds / ours:.1f} × fast" if seconds is not ours else ""
        print(f"{label:28}{seconds * 1e3:10.2f}{seconds / step:11.1%}{waited:9.2%}{faster:>12}")
    verdict = "holds" if rows[0][2] <= 0.02 else "is MISSED"
    print(f"Waiting {rows[0][2]:.2%} of the time: the aim of at most 2 % {verdict}.")


if __name__ == "__main__":
    _programs.run(main)
