"""Batches of fine-tuning: what is in them, and that a step alone decides which."""

import itertools

import numpy as np
import pytest

from glue.data import batches
from trainers.data import vocabulary
from trainers.errors import UserError

WORDS = ("yes", "no", "cat", "sat", "mat", "the", "on", "a")


@pytest.fixture(scope="module")
def words():
    texts = [" ".join(order) for order in itertools.islice(itertools.permutations(WORDS), 200)]
    return vocabulary.Vocabulary(vocabulary.train(texts, 20), num_sentinels=4)


@pytest.fixture(scope="module")
def examples(words):
    pairs = [(f"the cat {word}", "yes" if word < "n" else "no") for word in WORDS]
    return batches.tokenize(pairs, words, 8, 6)


def test_a_batch_is_padded_masked_and_shifted(words, examples):
    batch = examples.batch([2, 0], size=3)
    ids = words.encode(["the cat cat"])[0]
    assert batch["encoder_token_ids"][0].tolist() == [*ids, 1] + [0] * (7 - len(ids))
    assert batch["encoder_padding_mask"][0].tolist() == [1] * (len(ids) + 1) + [0] * (7 - len(ids))
    yes = words.encode(["yes"])[0]
    assert batch["targets"][0].tolist() == [*yes, 1] + [0] * (5 - len(yes))
    assert batch["decoder_token_ids"][0].tolist() == [0, *yes, 1] + [0] * (4 - len(yes))
    # The row that fills up: nothing to predict, but a position to attend to.
    assert batch["targets"][2].sum() == 0 and batch["encoder_padding_mask"][2].sum() == 1
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_long_inputs_are_cut_and_still_end(words):
    examples = batches.tokenize([("the cat sat on the mat", "yes"), ("a", "no")], words, 5, 6)
    whole = words.encode(["the cat sat on the mat"])[0]
    assert examples.inputs[0].tolist() == [*whole[:4], 1]
    assert examples.cut == 1


@pytest.mark.parametrize(
    ("label", "length", "message"),
    [("yes", 1, "target_length=1"), ("queue", 9, "label='queue', which comes back as")],
)
def test_labels_that_could_never_be_generated_are_refused(words, label, length, message):
    with pytest.raises(UserError, match=message):
        batches.tokenize([("a", label)], words, 8, length)


def test_a_step_alone_decides_its_batch(examples):
    def same(left, right):
        return all(np.array_equal(left[name], right[name]) for name in left)

    first = batches.TrainingBatches(examples, 3, seed=1)
    again = batches.TrainingBatches(examples, 3, seed=1)
    for step, batch in zip(range(5, 9), again.from_step(5), strict=False):
        assert same(batch, first.batch(step))
    other = batches.TrainingBatches(examples, 3, seed=2)
    assert not all(same(other.batch(step), first.batch(step)) for step in range(4))


def test_every_epoch_has_every_example_in_another_order(examples):
    source = batches.TrainingBatches(examples, 3, seed=0)
    rows = [tuple(row) for step in range(16) for row in source.batch(step)["encoder_token_ids"]]
    epochs = [rows[start : start + len(examples)] for start in range(0, len(rows), len(examples))]
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1


def test_a_mixture_has_all_examples_of_its_tasks(examples):
    both = examples + examples
    assert len(both) == 2 * len(examples)
    assert both.fingerprint != examples.fingerprint
    assert batches.TrainingBatches(both, 3).tokens_per_batch == 3 * (8 + 6)


def test_evaluation_visits_every_example_once(examples):
    source = batches.EvaluationBatches(examples, 3, most=5)
    assert len(source) == 3
    all_rows = np.concatenate([source.batch(index)["encoder_token_ids"] for index in range(3)])
    assert all_rows.shape == (9, 8)
    np.testing.assert_array_equal(all_rows[:8], examples.batch(range(8))["encoder_token_ids"])


def test_a_short_evaluation_takes_examples_from_all_over(examples):
    source = batches.EvaluationBatches(examples, 2, most=2)
    assert len(source) == 2
    for index, rows in enumerate(([0, 2], [4, 6])):
        expected = examples.batch(rows)
        for name, array in source.batch(index).items():
            np.testing.assert_array_equal(array, expected[name])
