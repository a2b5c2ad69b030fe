"""Batches: a pure function of (seed, step), every example once an epoch, and what is refused."""

import itertools
import threading

import numpy as np
import pytest

from tests.trainers.data.spans_support import restore
from trainers.data import manifest
from trainers.data.batches import PretrainingBatches
from trainers.data.objectives import Objective
from trainers.errors import UserError

NAMES = ["encoder_token_ids", "decoder_token_ids", "targets"]


@pytest.fixture
def batches(prepared_dir) -> PretrainingBatches:
    return PretrainingBatches(prepared_dir, "train", 4, 64, seed=3)


def same(left, right) -> bool:
    return list(left) == list(right) and all((left[k] == right[k]).all() for k in left)


def raw_examples(batch, first_sentinel=127):
    rows = zip(batch["encoder_token_ids"].tolist(), batch["targets"].tolist(), strict=True)
    return [restore(*row, first_sentinel, first_sentinel - 31) for row in rows]


def test_shapes_and_shift(batches):
    batch = batches.batch(0)
    assert list(batch) == NAMES
    assert batch["encoder_token_ids"].shape == (4, 64) == (4, batches.input_length)
    assert batch["targets"].shape == (4, batches.target_length)
    assert all(array.dtype == np.int32 for array in batch.values())
    assert (batch["decoder_token_ids"][:, 0] == 0).all()
    np.testing.assert_array_equal(batch["decoder_token_ids"][:, 1:], batch["targets"][:, :-1])
    assert (batch["encoder_token_ids"] != 0).all() and (batch["targets"] != 0).all()
    assert batch["encoder_token_ids"].max() == 127 < batches.vocabulary_size
    assert batches.tokens_per_batch == 4 * (64 + batches.target_length)


def test_lengths_of_the_recipe(prepared_dir):
    batches = PretrainingBatches(prepared_dir, "train", 1, 512)
    assert (batches.raw_length, batches.input_length, batches.target_length) == (568, 512, 114)


def test_from_step_gives_the_batches_of_those_steps(batches):
    for step, batch in zip(range(5, 25), batches.from_step(5), strict=False):
        assert same(batch, batches.batch(step))


def test_a_resumed_run_sees_what_would_have_come(batches, prepared_dir):
    through = [batch for _, batch in zip(range(12), batches.from_step(0), strict=False)]
    resumed = PretrainingBatches(prepared_dir, "train", 4, 64, seed=3).from_step(7)
    assert all(same(a, b) for a, b in zip(through[7:], resumed, strict=False))


def test_the_order_of_asking_does_not_matter(batches):
    forward = {step: batches.batch(step) for step in range(6)}
    results = {}
    threads = [
        threading.Thread(target=lambda s=step: results.update({s: batches.batch(s)}))
        for step in reversed(range(6))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(forward[step], results[step]) for step in range(6))


@pytest.mark.parametrize("task", [Objective(), Objective("prefix_lm")], ids=lambda t: t.objective)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_some_rows_are_those_of_the_whole_batch(prepared_dir, task, split):
    whole, first, last = (
        PretrainingBatches(prepared_dir, split, 6, 64, seed=3, objective=task, rows=rows)
        for rows in (None, slice(0, 2), slice(2, 6))
    )
    assert whole.tokens_per_batch == last.tokens_per_batch
    for step in (0, 11):
        parts = first.batch(step), last.batch(step)
        joined = {name: np.concatenate([part[name] for part in parts]) for name in NAMES}
        assert same(joined, whole.batch(step))


def test_seeds_and_steps_differ(batches, prepared_dir):
    reseeded = PretrainingBatches(prepared_dir, "train", 4, 64, seed=4)
    assert not same(batches.batch(0), reseeded.batch(0))
    assert not same(batches.batch(0), batches.batch(1))


def test_an_epoch_visits_every_example_once(prepared_dir):
    batches = PretrainingBatches(prepared_dir, "train", 1, 64, seed=3)
    tokens = np.fromfile(prepared_dir / "train.tokens", "<u2")
    length = batches.raw_length
    count = len(tokens) // length
    assert batches.num_examples == batches.num_batches == count
    assert batches.passes(2 * count) == pytest.approx((2,))
    expected = sorted(tokens[: count * length].reshape(count, length).tolist())
    epochs = [
        [raw_examples(batches.batch(step))[0] for step in range(e * count, (e + 1) * count)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


def test_spans_change_from_epoch_to_epoch(prepared_dir):
    batches = PretrainingBatches(prepared_dir, "train", 1, 64, seed=3)
    seen = {}
    for step in range(2 * batches.num_examples):
        batch = batches.batch(step)
        key = tuple(raw_examples(batch)[0])
        seen.setdefault(key, []).append(tuple(batch["targets"][0]))
    assert sum(a != b for a, b in seen.values()) > 0.9 * len(seen)


def test_validation_is_the_same_for_every_run(prepared_dir, batches):
    first, second = (PretrainingBatches(prepared_dir, "validation", 2, 64, seed) for seed in (0, 9))
    assert first.num_batches >= 3
    assert all(same(first.batch(i), second.batch(i)) for i in range(first.num_batches))
    rows = [row for i in range(first.num_batches) for row in raw_examples(first.batch(i))]
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_decoded_batches_are_the_text(prepared_dir, words_file):
    batches = PretrainingBatches(prepared_dir, "train", 1, 64)
    raw = np.array(raw_examples(batches.batch(0))[0])
    document = max(np.split(raw, np.flatnonzero(raw == 1)), key=len)
    words = batches.vocabulary.decode(document).split()[1:-1]  # cut words at the ends
    assert " ".join(words) in words_file.read_text()


def test_the_fingerprint_is_of_the_contents(prepared_dir, batches):
    second = PretrainingBatches(prepared_dir, "validation", 1, 32, seed=8)
    assert batches.fingerprint == second.fingerprint
    assert len(batches.fingerprint) == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "test"}, "Received: split=.test"),
        ({"input_length": 2}, "Received: input_length=2"),
        ({"input_length": 2048}, "Received: input_length=2048 with 32 sentinels"),
        ({"batch_size": 10_000}, "one train batch of 10000 × .* tokens. Take a smaller"),
        (
            {"input_length": 20_000, "split": "validation", "objective": Objective("prefix_lm")},
            "text for validation of 40000 tokens",
        ),
        ({"data_dir": "/nowhere"}, "Received: data_dir=/nowhere"),
    ],
)
def test_what_is_refused(prepared_dir, change, words):
    settings = {"data_dir": prepared_dir, "split": "train", "batch_size": 4, "input_length": 64}
    with pytest.raises(UserError, match=words) as caught:
        PretrainingBatches(**settings | {"seed": 0} | change)
    assert "\n" not in str(caught.value)


def test_big_vocabularies(tmp_path, prepared_dir):
    """Tokens above 16 bits: the file is read as uint32."""
    (tmp_path / "vocabulary.model").write_bytes((prepared_dir / "vocabulary.model").read_bytes())
    tokens = np.arange(3, 70_003, dtype="<u4")
    for split in ("train", "validation"):
        tokens.tofile(tmp_path / f"{split}.tokens")
    files = manifest.describe_files(tmp_path)
    words = {"sha256": files["vocabulary.model"]["sha256"], "pieces": 99_900, "sentinels": 100}
    manifest.write(
        tmp_path,
        {
            "config": {"corpus": "text"},
            "corpus": {},
            "files": files,
            "splits": {split: {"tokens": 70_000} for split in ("train", "validation")},
            "vocabulary": words | {"size": 100_000, "padded_size": 100_096},
        },
    )
    batches = PretrainingBatches(tmp_path, "train", 70_000 // 141, 128)
    rows = raw_examples(batches.batch(0), 99_999)
    assert batches.vocabulary_size == 100_096
    assert sorted(itertools.chain.from_iterable(rows)) == list(range(3, 3 + 141 * (70_000 // 141)))
