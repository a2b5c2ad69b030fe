"""The benchmark runs, and its tf.data peer does the task that it is compared on."""

import numpy as np

from benchmarks import input_pipeline
from tests.trainers.data.spans_support import restore
from trainers.data import spans
from trainers.data.batches import PretrainingBatches


def test_measure_at_the_smallest_size():
    rows = input_pipeline.measure(batch_size=2, input_length=32, step_seconds=0.002, steps=10)
    assert len(rows) == 3
    assert all(seconds > 0 and 0 <= waited < 1 for _, seconds, waited in rows)


def test_the_peers_do_the_same_task(tmp_path):
    length = spans.raw_length(64)
    input_pipeline.random_folder(tmp_path, 8, length)
    batches = PretrainingBatches(tmp_path, "train", 8, 64)
    examples = np.fromfile(tmp_path / "train.tokens", "<u2").reshape(-1, length)
    rows = {tuple(row) for row in examples.tolist()}
    for peer in (input_pipeline.tf_data_batches, input_pipeline.loop_batches):
        batch = next(peer(batches, examples))
        ours = batches.batch(0)
        assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
            k: (v.shape, v.dtype) for k, v in ours.items()
        }
        for inputs, targets in zip(batch["encoder_token_ids"], batch["targets"], strict=True):
            first = input_pipeline.FIRST_SENTINEL
            raw = restore(inputs.tolist(), targets.tolist(), first, first - 99)
            assert tuple(raw) in rows
