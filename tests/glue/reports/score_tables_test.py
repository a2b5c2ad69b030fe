"""Tables 7 and 5 and the others: what stands where, from which runs, labelled as what."""

import dataclasses
import math

import pytest

from glue import results, tasks
from glue.reports import averages, published, score_tables
from tests.glue import recorded
from tests.glue.recorded import rows

ALL = {key: 50.0 for key in recorded.COLUMNS}


@pytest.fixture
def papers_runs(tmp_path):
    """The paper's nine runs as if they were ours."""
    recorded.write_paper(tmp_path)
    return results.read_runs(tmp_path)


def test_given_the_papers_runs_our_columns_are_the_papers(papers_runs):
    table = score_tables.table_7(papers_runs)
    assert len(table.rows) == 18
    for ours, theirs in zip(table.rows[:9], table.rows[9:], strict=True):
        assert [cell.text for cell in ours[1:]] == [
            f"{float(cell.text):.2f}" for cell in theirs[1:]
        ]
        assert {cell.origin for cell in ours[1:]} == {"run"}
        assert {cell.origin for cell in theirs[1:]} == {"paper"}
        assert not any(cell.note for cell in ours)


def test_given_the_papers_runs_means_and_deviations_are_the_papers(papers_runs):
    cells = rows(score_tables.table_5(papers_runs))
    assert cells["fusion_property (fusion-prop)"]["steps_500000"].text == "84.86 ± 0.13"
    # The paper writes 84.94 ± 0.2.
    assert cells["self_fusion (self-fusion)"]["steps_500000"].text == "84.94 ± 0.20"
    # The paper writes 84.74 ± 0.13, of which 84.74 is the first run alone.
    baseline = cells["baseline"]["steps_1000000"]
    assert baseline.text == "84.62 ± 0.13" and round(baseline.value, 2) == 84.63
    assert cells["baseline"]["paper_1000000"].note == published.TABLE_5_BASELINE


def test_deviation_is_that_of_the_population(tmp_path):
    for repeat, value in enumerate((70.0, 74.0)):
        recorded.write_scores(tmp_path, "baseline", 10, repeat, dict.fromkeys(ALL, value))
    ((key, average),) = averages.averages(results.read_runs(tmp_path)).items()
    assert key == ("baseline", 10)
    assert (average.mean, average.deviation) == (72.0, 2.0)
    assert average.groups == tasks.MIXTURE and average.note == ""


def test_what_was_not_run_is_empty_and_says_so(tmp_path):
    recorded.write_scores(tmp_path, "self_fusion", 250, 0, {"cola": 12.378, "rte": 60.0})
    runs = results.read_runs(tmp_path)
    row = rows(score_tables.table_7(runs))["self_fusion, 250 steps, run 1"]
    assert (row["cola"].text, row["rte"].text) == ("12.38", "60.00")
    for key in set(recorded.COLUMNS) - {"cola", "rte"}:
        assert row[key].text == "not run" and row[key].missing and row[key].value is None
    assert row["average"].text == "36.18" and row["average"].value == pytest.approx(36.189)
    assert "Average over CoLA, RTE only: 2 of the paper's 8 groups" in row["average"].note
    table = rows(score_tables.table_5(runs))
    assert table["baseline"]["steps_250"].text == "not run"
    cell = table["self_fusion (self-fusion)"]["steps_250"]
    assert cell.text == "36.18" and "CoLA, RTE only" in cell.note


def test_half_a_group_is_not_averaged(tmp_path):
    pairs = recorded.predictions("rte")
    results.write_model(tmp_path, "r", model="baseline", pretrain_steps=0)
    results.write_result(tmp_path, "r", "rte", pairs)
    (run,) = results.read_runs(tmp_path)
    half = {"mnli": results.TaskResult("mnli", {"mnli_m": 1.0}, tmp_path, {})}
    half = dataclasses.replace(run, results=half)
    assert averages.glue_runs([run, half]) == (run,)


def test_repeats_with_other_tasks_are_averaged_over_what_they_share(tmp_path):
    recorded.write_scores(tmp_path, "baseline", 0, 0, {"cola": 10.0, "rte": 50.0})
    recorded.write_scores(tmp_path, "baseline", 0, 1, {"rte": 60.0, "qnli": 70.0})
    recorded.write_scores(tmp_path, "small", 0, 0, {"cola": 10.0})
    recorded.write_scores(tmp_path, "small", 0, 1, {"rte": 60.0})
    reached = averages.averages(results.read_runs(tmp_path))
    assert list(reached) == [("baseline", 0)]
    assert (reached["baseline", 0].mean, reached["baseline", 0].groups) == (55.0, ("rte",))


def test_synthetic_scores_stand_in_no_glue_column(tmp_path):
    recorded.write_run(tmp_path, "baseline", 0, tasks.SYNTHETIC)
    recorded.write_run(tmp_path, "self_fusion", 0, ["rte", "synthetic_grammar", "wnli"])
    runs = results.read_runs(tmp_path)
    for table in (score_tables.table_7(runs), score_tables.table_5(runs)):
        assert "synthetic" not in str(table.to_dict())
    assert "baseline, 0 steps, run 1" not in rows(score_tables.table_7(runs))
    assert rows(score_tables.table_5(runs))["baseline"]["steps_0"].text == "not run"
    synthetic = score_tables.synthetic_table(runs)
    assert "not GLUE" in synthetic.title
    assert all(c.group.startswith("synthetic ") for c in synthetic.columns[1:])
    assert rows(synthetic)["self_fusion, 0 steps, run 1"]["synthetic_sentiment"].text == "not run"
    assert list(rows(score_tables.wnli_table(runs))) == ["self_fusion, 0 steps, run 1"]


def test_without_glue_runs_the_papers_figures_stand_alone(tmp_path):
    recorded.write_run(tmp_path, "baseline", 0, ["synthetic_grammar"])
    runs = results.read_runs(tmp_path)
    assert len(score_tables.table_7(runs).rows) == 9
    assert score_tables.NOTHING in score_tables.table_7(runs).caption
    assert score_tables.NOTHING in score_tables.table_5(runs).caption
    assert score_tables.wnli_table(runs) is None
    assert score_tables.synthetic_table(()) is None


def test_an_undefined_score_says_so(tmp_path):
    recorded.write_scores(
        tmp_path, "baseline", 0, 0, {"stsb_pearson": None, "stsb_spearman": None, "rte": 50.0}
    )
    row = rows(score_tables.table_7(results.read_runs(tmp_path)))["baseline, 0 steps, run 1"]
    for key in ("stsb_pearson", "average"):
        assert row[key].text == "undefined" and row[key].value is None and row[key].note


def test_a_model_of_another_name_has_a_row_of_its_own(tmp_path):
    recorded.write_scores(tmp_path, "net2net", 5, 0, ALL)
    table = rows(score_tables.table_5(results.read_runs(tmp_path)))
    assert list(table) == [
        "baseline", "fusion_property (fusion-prop)", "self_fusion (self-fusion)",
        "small (T5-SMALL)", "net2net",
    ]  # fmt: skip
    assert table["net2net"]["steps_5"].text == "50.00"
    assert table["net2net"]["paper_0"].text == "not given"


@pytest.mark.parametrize(
    ("value", "text"),
    [(84.987, "84.98"), (84.99999, "84.99"), (85.0, "85.00"), (0.29, "0.29"), (-3.456, "-3.46")],
)
def test_averages_are_cut_not_rounded(value, text):
    assert averages.truncated(value) == text


def test_titles_of_paper_rows_sum_up():
    assert [row.model for row in published.TABLE_7] == [
        model for model in ("baseline", "fusion_property", "self_fusion") for _ in range(3)
    ]
    assert all(len(row.scores) == 12 for row in published.TABLE_7)
    assert math.isclose(sum(float(row.average) for row in published.TABLE_7), 763.29, abs_tol=0.005)
