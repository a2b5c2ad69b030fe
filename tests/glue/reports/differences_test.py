"""Pairs that are compared, and the text of their cells."""

import pytest

from glue import results
from glue.reports import differences
from tests.glue import recorded
from trainers.errors import UserError


def write(folder, model, steps, predicted, repeat=0):
    """A run on RTE with given predictions: "y" is right."""
    run = f"{model}-{steps}-{repeat}"
    results.write_model(folder, run, model=model, pretrain_steps=steps, repeat=repeat)
    texts = {"y": "entailment", "n": "not_entailment"}
    pairs = {"validation": (["entailment"] * len(predicted), [texts[p] for p in predicted])}
    results.write_result(folder, run, "rte", pairs)


def only_row(folder):
    """Texts of the only row."""
    table = differences.differences_table(results.read_runs(folder), samples=199)
    (row,) = table.rows
    return [cell.text for cell in row], table


def test_pairs():
    keys = [
        ("self_fusion", 500), ("baseline", 0), ("baseline", 250), ("small", 500), ("small", 1000),
        ("self_fusion", 0), ("fusion_property", 250),
    ]  # fmt: skip
    assert differences.pairs(keys) == (
        (("fusion_property", 250), ("baseline", 250)),
        (("self_fusion", 0), ("baseline", 0)),
        (("self_fusion", 0), ("small", 1000)),
    )


def test_a_clear_difference_has_a_star(tmp_path):
    write(tmp_path, "baseline", 0, "nnnnnnnnnn")
    write(tmp_path, "self_fusion", 0, "yyyyyyyyyy")
    texts, table = only_row(tmp_path)
    assert texts == [
        "self_fusion, 0 steps", "baseline, 0 steps", "+100.00 [+100.00, +100.00], p 0.010 *"
    ]  # fmt: skip
    assert [column.key for column in table.columns] == ["first", "second", "rte"]
    assert table.rows[0][2].value == 100


def test_no_difference_has_none(tmp_path):
    write(tmp_path, "baseline", 0, "ynynynynyn")
    write(tmp_path, "self_fusion", 0, "ynynynynyn")
    assert only_row(tmp_path)[0][2] == "+0.00 [+0.00, +0.00], p 1.000"


def test_repeats_are_averaged(tmp_path):
    write(tmp_path, "baseline", 0, "yyyyyyyyyy")
    write(tmp_path, "self_fusion", 0, "yyyyyyyyyy")
    write(tmp_path, "self_fusion", 0, "nnnnnnnnnn", repeat=1)
    assert only_row(tmp_path)[0][2] == "−50.00 [−50.00, −50.00], p 0.010 *"


def test_other_examples_are_refused(tmp_path):
    write(tmp_path, "baseline", 0, "yy")
    write(tmp_path, "self_fusion", 0, "yyy")
    with pytest.raises(UserError, match="same examples of rte. Received: 3 and 2 examples"):
        only_row(tmp_path)


def test_a_task_that_one_of_them_lacks_is_not_run(tmp_path):
    write(tmp_path, "baseline", 0, "yy")
    recorded.write_run(tmp_path, "self_fusion", 0, ["mnli"])
    texts, table = only_row(tmp_path)
    assert [column.key for column in table.columns][2:] == ["mnli_m", "mnli_mm", "rte"]
    assert texts[2:] == ["not run"] * 3


def test_without_predictions_there_is_no_figure(tmp_path):
    write(tmp_path, "baseline", 0, "yy")
    recorded.write_scores(tmp_path, "self_fusion", 0, 0, {"rte": 60.0})
    assert only_row(tmp_path)[0][2] == "not run"


def test_without_a_pair_there_is_no_table(tmp_path):
    write(tmp_path, "baseline", 0, "yy")
    assert differences.differences_table(results.read_runs(tmp_path)) is None
