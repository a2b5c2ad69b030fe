"""Predictions files, line by line as the benchmark takes them."""

import os

import pytest

from glue import tasks
from glue.finetuning import submission
from trainers.errors import UserError

HEADER = "index\tprediction\n"
CASES = {
    ("cola", "test"): ("CoLA.tsv", ["acceptable", "unacceptable"], "0\t1\n1\t0\n"),
    ("sst2", "test"): ("SST-2.tsv", ["negative", "positive"], "0\t0\n1\t1\n"),
    ("mrpc", "test"): ("MRPC.tsv", ["equivalent", "not_equivalent"], "0\t1\n1\t0\n"),
    ("stsb", "test"): ("STS-B.tsv", ["3.8", "5.4", "0.2"], "0\t3.800\n1\t5.000\n2\t0.200\n"),
    ("qqp", "test"): ("QQP.tsv", ["duplicate", "not_duplicate"], "0\t1\n1\t0\n"),
    ("mnli", "test_matched"): ("MNLI-m.tsv", ["neutral"], "0\tneutral\n"),
    ("mnli", "test_mismatched"): ("MNLI-mm.tsv", ["contradiction"], "0\tcontradiction\n"),
    ("mnli", "test_diagnostic"): ("AX.tsv", ["entailment"], "0\tentailment\n"),
    ("qnli", "test"): ("QNLI.tsv", ["not_entailment"], "0\tnot_entailment\n"),
    ("rte", "test"): ("RTE.tsv", ["entailment"], "0\tentailment\n"),
    ("wnli", "test"): ("WNLI.tsv", ["entailment", "not_entailment"], "0\t1\n1\t0\n"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "split"), CASES)
def test_name_labels_and_numbers_are_the_benchmarks(tmp_path, task, split):
    name, predictions, lines = CASES[task, split]
    path, wrong = submission.write(tmp_path / "new", task, split, predictions)
    assert path == tmp_path / "new" / name and wrong == 0
    assert path.read_bytes().decode() == HEADER + lines
    assert os.listdir(tmp_path / "new") == [name]


def test_every_test_set_has_a_case():
    splits = {(task.name, split) for task in tasks.TASKS.values() for split in task.submissions}
    assert splits == set(CASES)
    for task in tasks.TASKS.values():
        if not task.synthetic:
            assert {s for s, facts in task.splits.items() if not facts.labelled} == set(
                task.submissions
            )


def test_what_is_no_label_is_counted_and_still_a_valid_line(tmp_path):
    path, wrong = submission.write(tmp_path, "rte", "test", ["not_entailment", "?", ""])
    assert wrong == 2
    assert path.read_text() == HEADER + "0\tnot_entailment\n1\tentailment\n2\tentailment\n"
    path, wrong = submission.write(tmp_path, "stsb", "test", ["much", "-1.5", "nan"])
    assert wrong == 2
    assert path.read_text() == HEADER + "0\t0.000\n1\t0.000\n2\t0.000\n"


def test_nothing_is_overwritten(tmp_path):
    path, _ = submission.write(tmp_path, "rte", "test", ["entailment"])
    assert submission.write(tmp_path, "rte", "test", ["entailment"]) == (path, 0)
    with pytest.raises(UserError, match="Received: file=.*RTE.tsv.*other predictions"):
        submission.write(tmp_path, "rte", "test", ["not_entailment"])
    assert path.read_text() == HEADER + "0\tentailment\n"


def test_a_failure_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="RTE.tsv .No space left on device"):
        submission.write(tmp_path, "rte", "test", ["entailment"])
    assert os.listdir(tmp_path) == []


def test_what_has_no_predictions_file_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="test_matched, test_mismatched, test_diagnostic of mnli.*split='test'"
    ):
        submission.write(tmp_path, "mnli", "test", ["neutral"])
    with pytest.raises(UserError, match="none of synthetic_grammar"):
        submission.write(tmp_path, "synthetic_grammar", "test", ["acceptable"])
    with pytest.raises(UserError, match="Received: none for test of rte"):
        submission.write(tmp_path, "rte", "test", [])
