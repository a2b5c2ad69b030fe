"""Table 6: costs read off the pretraining's records, by hand."""

import pytest

from glue import results
from glue.reports import table6
from tests.glue import recorded
from tests.glue.recorded import rows
from tests.trainers.reports import synthetic
from trainers.runs import history

# tests/trainers/reports/synthetic.py: a step of S takes 0.03 s, of M 0.08 s; small stages have
# 3,000 steps, the baseline 4,800, fused ones 4,000.


@pytest.fixture
def pretraining(tmp_path):
    """All four plans, finished."""
    return history.read_run(synthetic.full_run(tmp_path / "w"))


def fine_tuned(folder, *pairs):
    """Runs of some models after some steps."""
    for model, steps in pairs:
        recorded.write_scores(folder, model, steps, 0, {"rte": 60.0})
    return results.read_runs(folder)


def test_costs_by_hand(pretraining):
    cost = table6.pretraining_cost(pretraining, "fusion_property", 3000)
    assert cost.sources == (3000, 3000)
    assert (cost.before, cost.after) == pytest.approx((2 * 3000 * 0.03, 3000 * 0.08))
    assert cost.total == pytest.approx(420)
    # Between the evaluations at 1,000 and 1,200.
    cost = table6.pretraining_cost(pretraining, "self_fusion", 1100)
    assert (cost.before, cost.after) == pytest.approx((90, 88))
    assert table6.pretraining_cost(pretraining, "self_fusion", 0).total == pytest.approx(90)
    assert table6.pretraining_cost(pretraining, "baseline", 4800).total == pytest.approx(384)


def test_the_end_of_a_stage_counts_where_its_curve_ends_before(tmp_path):
    curve = synthetic.learning_curve(4000)
    stage = synthetic.record("baseline", "M", curve, steps=4100, device_seconds=330.0)
    pretraining = history.read_run(synthetic.write_run(tmp_path / "w", stage))
    assert table6.pretraining_cost(pretraining, "baseline", 4100).after == 330
    # Half way between 4,000 steps in 320 s and 4,100 in 330 s.
    assert table6.pretraining_cost(pretraining, "baseline", 4050).after == pytest.approx(325)


def test_what_is_not_recorded_is_not_made_up(pretraining):
    assert table6.pretraining_cost(pretraining, "baseline", 6000).total is None
    assert table6.pretraining_cost(pretraining, "other", 0) is None


def test_rows_of_the_paper_are_matched_by_multiples_of_the_steps_before_fusion(
    pretraining, tmp_path
):
    runs = fine_tuned(tmp_path / "g", ("baseline", 4800), ("self_fusion", 3000))
    table = rows(table6.table_6(runs, pretraining))
    # K = 3,000: the paper's baseline has 2 K steps, its fused models K.
    assert list(table) == [
        "baseline, 6,000 steps", "fusion_property, 3,000 steps", "self_fusion, 3,000 steps",
        "baseline, 4,800 steps",
    ]  # fmt: skip
    row = table["self_fusion, 3,000 steps"]
    assert row["fusion_steps"].text == "3,000" and row["fusion_steps"].value == 3000
    assert row["total"].value == pytest.approx(330)
    assert (row["glue"].text, row["paper_time"].text) == ("60.00", "29.9h")
    assert row["paper_time"].origin == "paper" and row["paper_time"].value == 29.9
    assert table["fusion_property, 3,000 steps"]["fusion_steps"].text == "2 × 3,000"
    assert table["fusion_property, 3,000 steps"]["glue"].text == "not run"
    assert table["baseline, 6,000 steps"]["total"].text == "not recorded"
    assert table["baseline, 4,800 steps"]["paper_time"].text == "not given"
    assert row["ratio"].text == "not known"


def test_the_ratio_is_over_the_baseline_of_twice_the_steps(tmp_path):
    stages = [synthetic.small(), synthetic.baseline(6000), synthetic.fused(steps=3000)]
    pretraining = history.read_run(synthetic.write_run(tmp_path / "w", *stages))
    runs = fine_tuned(tmp_path / "g", ("baseline", 6000), ("self_fusion", 3000))
    table = rows(table6.table_6(runs, pretraining))
    assert table["baseline, 6,000 steps"]["ratio"].text == "1.00"
    assert table["self_fusion, 3,000 steps"]["ratio"].value == pytest.approx(330 / 480)


def test_the_stage_may_have_another_name_than_the_model(pretraining, tmp_path):
    results.write_model(tmp_path, "s", model="small", stage="small_1", pretrain_steps=3000)
    results.write_result(tmp_path, "s", "rte", recorded.predictions("rte"))
    table = rows(table6.table_6(results.read_runs(tmp_path), pretraining))
    assert table["small, 3,000 steps"]["total"].value == pytest.approx(90)


def test_a_stage_that_continues_another_counts_its_own_steps(pretraining, tmp_path):
    facts = {"stage": "small_1", "pretrain_steps": 5000, "stage_steps": 1100}
    results.write_model(tmp_path, "s", model="small", **facts)
    results.write_result(tmp_path, "s", "rte", recorded.predictions("rte"))
    table = rows(table6.table_6(results.read_runs(tmp_path), pretraining))
    row = table["small, 5,000 steps"]
    assert (row["steps"].text, row["total"].value) == ("1,100", pytest.approx(33))


def test_without_the_pretraining_run_only_the_scores_are_known(tmp_path):
    table = table6.table_6(fine_tuned(tmp_path / "g", ("baseline", 0)), None)
    assert "not known" in table.caption
    cells = rows(table)
    assert cells["baseline"]["time"].text == "not run"
    assert cells["baseline, 0 steps"]["time"].text == "not recorded"
    assert cells["baseline, 0 steps"]["glue"].text == "60.00"


def test_without_a_fused_stage_nothing_is_matched(tmp_path):
    pretraining = history.read_run(synthetic.write_run(tmp_path / "w", synthetic.baseline()))
    table = table6.table_6(fine_tuned(tmp_path / "g", ("baseline", 4800)), pretraining)
    assert "no row is matched" in table.caption
    assert rows(table)["baseline, 4,800 steps"]["total"].value == pytest.approx(384)
    assert rows(table)["baseline, 4,800 steps"]["paper_time"].text == "not given"
