"""The table of tasks: text formats, labels, rounding, and names that are refused."""

import math

import pytest

from glue import data, tasks
from trainers.errors import UserError

# Written out by hand from the benchmark's and T5's descriptions, not from the table.
LABELS = {
    "cola": ["unacceptable", "acceptable"],
    "sst2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"],
    "stsb": [],
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
    "wnli": ["not_entailment", "entailment"],
}
COLUMNS = [
    "cola", "sst2", "mrpc_f1", "mrpc_accuracy", "stsb_pearson", "stsb_spearman", "qqp_accuracy",
    "qqp_f1", "mnli_m", "mnli_mm", "qnli", "rte",
]  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_by_class_and_hidden_ones(name):
    task = tasks.find(name)
    assert [task.target(index) for index in range(len(task.labels))] == LABELS[name]
    assert task.target(-1) == task.target(-1.0) == "<unk>"


def test_mixture_and_columns_are_the_papers():
    assert [name for name in LABELS if name != "wnli"] == list(tasks.MIXTURE)
    assert list(tasks.scores(tasks.MIXTURE)) == COLUMNS


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "0.0"), (0.09, "0.0"), (0.1, "0.0"), (0.11, "0.2"), (0.3, "0.4"), (0.5, "0.4"),
        (1.25, "1.2"), (2.5, "2.4"), (3.3, "3.2"), (3.31, "3.4"), (4.6, "4.6"), (4.75, "4.8"),
        (5.0, "5.0"),
    ],
)  # fmt: skip
def test_similarity_is_rounded_to_fifths_half_to_even(score, text):
    assert tasks.find("stsb").target(score) == text


def test_similarity_has_26_values():
    values = {tasks.find("stsb").target(value / 100) for value in range(501)}
    assert values == {f"{fifth / 5:.1f}" for fifth in range(26)}


def test_a_target_out_of_the_set_is_refused():
    with pytest.raises(ValueError, match="a class of 0 to 1"):
        tasks.find("rte").target(2)
    for value in (5.1, math.nan):
        with pytest.raises(ValueError, match="a number of 0 to 5"):
            tasks.find("stsb").target(value)


@pytest.mark.parametrize("text", ["entailment", "2", "", "-1", " 1", "1.0"])
def test_codes_are_taken_to_the_letter(text):
    with pytest.raises(ValueError, match="a label of 0, 1"):
        tasks.find("wnli").parse_label(text)


def test_fields_are_sorted_by_name_whatever_their_order():
    texts = {"premise": "It rains.", "hypothesis": "It is wet."}
    assert tasks.find("mnli").text(texts) == "mnli hypothesis: It is wet. premise: It rains."


def test_an_unknown_task_or_split_lists_the_known_ones():
    with pytest.raises(UserError, match="Expected task to be one of cola, sst2.*task='coal'"):
        tasks.find("coal")
    with pytest.raises(UserError, match="train, validation_matched.*split='validation'"):
        data.load_examples("mnli", "validation")


def test_synthetic_tasks_share_no_name_and_no_score_with_glue():
    for name in tasks.SYNTHETIC:
        task = tasks.find(name)
        assert task.synthetic and task.title.startswith("synthetic")
        assert all(score.key.startswith("synthetic_") for score in task.scores)
    assert not any(tasks.find(name).synthetic for name in LABELS)
