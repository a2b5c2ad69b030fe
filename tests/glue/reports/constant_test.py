"""Scores of a constant answer, by hand."""

import pytest

from glue import results
from glue.reports import constant, glue_page, score_tables
from tests.glue import recorded

# Of four pairs three are paraphrases.
MRPC = ["equivalent", "equivalent", "not_equivalent", "equivalent"]
COLA = ["acceptable", "unacceptable", "acceptable", "acceptable"]


@pytest.fixture
def runs(tmp_path):
    results.write_model(tmp_path, "r", model="baseline", pretrain_steps=0)
    for task, targets in (("mrpc", MRPC), ("cola", COLA)):
        predictions = {"validation": (targets, targets)}
        results.write_result(tmp_path, "r", task, predictions)
    return results.read_runs(tmp_path)


def test_scores_by_hand(runs):
    values = constant.scores(runs)
    assert values["cola"] == 0
    assert values["mrpc_accuracy"] == 75
    # Precision 3/4, recall 1.
    assert values["mrpc_f1"] == pytest.approx(100 * 6 / 7)


def test_tables_say_it(runs):
    names = [row[0].text for row in score_tables.table_7(runs).rows]
    assert names[:2] == ["baseline, 0 steps, run 1", constant.NAME]
    # (0 + (75 + 85.714) / 2) / 2, cut to two decimals.
    caption = score_tables.table_5(runs).caption
    assert caption.endswith("Always the commonest label, over CoLA, MRPC: 40.17.")
    summary = glue_page.glue_report(runs).summary[0]
    assert "after 0 steps; always the commonest label has 40.17. A table" in summary


def test_a_correlation_is_not_defined(tmp_path):
    recorded.write_run(tmp_path, "baseline", 0, ["stsb"])
    assert constant.scores(results.read_runs(tmp_path)) == {}


def test_without_predictions_there_is_no_row(tmp_path):
    recorded.write_scores(tmp_path, "baseline", 0, 0, {"cola": 50.0})
    runs = results.read_runs(tmp_path)
    assert constant.scores(runs) == {}
    assert constant.NAME not in [row[0].text for row in score_tables.table_7(runs).rows]
    assert "commonest" not in score_tables.table_5(runs).caption
