"""The tables of a run: whose figures stand where, sums, and what is not run."""

import itertools

import pytest

from tests.trainers.reports import synthetic
from trainers.reports import comparisons, dag, page, paper, paper_tables, stage_tables, tables
from trainers.runs import history


def read(workdir, *stages):
    return history.read_run(synthetic.write_run(workdir, *stages))


def row(table, name, column=0):
    rows = [r for r in table.to_dict()["rows"] if r[table.columns[column].key]["text"] == name]
    assert len(rows) == 1
    return {key: cell["text"].replace("\u00a0", " ") for key, cell in rows[0].items()}


def all_tables(run):
    """The tables of a report, and those that it leaves out as no stage of theirs was trained."""
    compared = comparisons.compare(run)
    return (
        paper_tables.table_1(run),
        paper_tables.table_2(run, compared),
        paper_tables.table_3(run),
        paper_tables.table_4(run),
        stage_tables.comparison_table(run, compared),
        stage_tables.stages_table(run),
        stage_tables.results_table(run),
    )


def test_further_validation_sets_have_a_table(tmp_path):
    """Of all stages but those of plans that show them in a section of their own."""
    stages = [synthetic.small(), synthetic.small("lengths_short_0"), synthetic.baseline()]
    for stage in stages[:2]:
        for loss, point in zip((5.5, 3.25), (stage["curve"][0], stage["curve"][-1]), strict=True):
            point["validations"] = {"short": {"loss_per_token": loss, "accuracy": 10 * loss}}
    run = read(tmp_path, *stages)
    run.settings["experiments"] = {
        "lengths": {"facts": {"stages": ["lengths_short_0"], "validation": "whole"}}
    }
    (cells,) = stage_tables.validations_table(run).to_dict()["rows"]
    shown = [cell["value"] for cell in cells.values()]
    assert shown == ["small_0", "short", 5.5, 3.25, 55.0, 32.5]
    titles = [table.title for table in page.pretraining_report(run).blocks(tables.Table)]
    assert "Stages: further validation sets, at the first evaluation and at the last." in titles
    assert stage_tables.validations_table(read(tmp_path / "w", synthetic.small())) is None


def test_table_1_has_terms_and_their_sum(tmp_path):
    run = history.read_run(synthetic.full_run(tmp_path / "w"))
    cells = row(paper_tables.table_1(run), "fusion_rule")
    # 3000 steps of S at 1.1e9 and 0.03 s, twice; 4000 steps of M at 3.9e9 and 0.08 s.
    assert cells["flops"] == "3.30e+12 + 3.30e+12 + 1.56e+13 = 2.22e+13"
    assert cells["device_seconds"] == "90.0 s + 90.0 s + 320 s = 500 s"
    assert cells["paper_cost"] == "2 · 16h + 37.4h = 53.4h"
    assert row(paper_tables.table_1(run), "baseline")["paper_loss"] == "none"


def test_table_2_stops_where_the_accuracy_is_reached(tmp_path):
    run = history.read_run(synthetic.full_run(tmp_path / "w"))
    compared = comparisons.compare(run)
    crossing = next(c for c in compared if c.plan == "self_fusion").crossing
    table = paper_tables.table_2(run, compared)
    ours, theirs = row(table, "self_fusion"), row(table, "self-fusion")
    assert ours["fusion_steps"] == "3,000 steps" and ours["fusion_time"] == "90.0 s"
    assert ours["post_steps"] == f"{crossing.step:,.0f} steps"
    assert ours["cost"] == f"{90 + crossing.cost.device_seconds:,.0f} s"
    assert ours["accuracy"] == f"{run.stages['baseline'].accuracy:.2f}"
    assert theirs["cost"] == "58.4h" and theirs["flops"] == "not given"


def test_table_2_says_what_is_not_reached(tmp_path):
    run = read(tmp_path, synthetic.small(), synthetic.baseline(), synthetic.fused(end=43.0))
    cells = row(paper_tables.table_2(run, comparisons.compare(run)), "self_fusion")
    assert cells["post_steps"] == cells["cost"] == "not reached in 4,000 steps"
    cells = row(stage_tables.comparison_table(run, comparisons.compare(run)), "self_fusion")
    assert cells["flops_ratio"] == cells["lasting_flops_ratio"] == "not reached"


def test_a_missing_source_leaves_the_cost_open(tmp_path):
    run = read(tmp_path, synthetic.baseline(), synthetic.fused())
    assert (
        row(paper_tables.table_1(run), "self_fusion")["flops"] == "a source is not in this folder"
    )
    cells = row(paper_tables.table_2(run, comparisons.compare(run)), "self_fusion")
    assert cells["cost"] == "a source is not in this folder"


def test_a_source_that_still_runs_or_has_not_begun_is_no_obstacle(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    synthetic.write_running(workdir, synthetic.baseline())
    (workdir / "baseline" / "metrics.jsonl").unlink()
    cells = row(paper_tables.table_1(history.read_run(workdir)), "baseline")
    assert cells["accuracy"] == "not recorded"


STAGES = {
    "small_0": synthetic.small(),
    "baseline": synthetic.baseline(),
    "self_fusion": synthetic.fused(),
    "fusion_rule": synthetic.fused("fusion_rule", ("small_0", "small_1")),
}


@pytest.mark.parametrize(
    "names",
    [names for count in (1, 2) for names in itertools.combinations(STAGES, count)],
    ids="+".join,
)
def test_no_figure_of_the_paper_stands_for_one_of_ours(tmp_path, names):
    run = read(tmp_path, *(STAGES[name] for name in names))
    printed = {r.loss for r in paper.TABLE_1} | {r.accuracy for r in paper.TABLE_1}
    printed |= {r.cost for r in (*paper.TABLE_1, *paper.TABLE_2)}
    printed |= {text for r in paper.TABLE_2 for text in (*r.post_fusion, r.accuracy)}
    printed |= {text for r in paper.TABLE_3 for text in (r.loss, r.accuracy)}
    printed |= {"0.82"} if "self_fusion" in names else set()
    texts = set()
    for table in all_tables(run):
        for cells in table.rows:
            for cell in cells:
                if cell.origin == tables.PAPER:
                    texts.add(cell.text)
                    assert cell.missing == (cell.value is None)
                else:
                    assert cell.text not in printed, (table.key, cell)
    assert printed <= texts
    for plan in {"baseline", "fusion_rule", "fusion_property", "self_fusion"} - set(names):
        cells = row(paper_tables.table_1(run), plan)
        ours = {text for key, text in cells.items() if key != "model" and "paper" not in key}
        assert ours == {"not run"}


def test_a_report_has_the_tables_of_what_was_trained(tmp_path):
    def keys(*stages):
        run = read(tmp_path / "+".join(stage["name"] for stage in stages), *stages)
        report = page.pretraining_report(run)
        (line,) = [part.paragraphs for part in report.sections if part.title == "Not run"]
        return [table.key for table in report.blocks(tables.Table)], line

    small, baseline, fused = synthetic.small(), synthetic.baseline(), synthetic.fused()
    varied = "offsets, zero_blocks, when_to_fuse"
    assert keys(baseline) == (
        ["stages", "results"],
        (
            "Not run: fusion_rule, fusion_property, self_fusion, Table 1, Table 2, Table 3, "
            f"Table 4, {varied}, heat maps of fused kernels.",
        ),
    )
    assert keys(small, baseline, fused) == (
        ["comparisons", "head_starts", "table1", "table2", "stages", "results"],
        (f"Not run: fusion_rule, fusion_property, Table 3, Table 4, {varied}.",),
    )
    larger = synthetic.record("figure2_5", "M", baseline["curve"], "self_fusion", ("baseline",))
    assert keys(baseline, larger | {"size": "L"})[0] == ["table3", "table4", "stages", "results"]


def test_stage_tables_and_graph(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    synthetic.write_running(workdir, synthetic.fused("fusion_rule", ("small_0", "small_1"), 600))
    run = history.read_run(workdir)
    table = stage_tables.stages_table(run)
    assert row(table, "fusion_rule")["sources"] == "small_0, small_1"
    assert row(table, "fusion_rule")["state"] == "running"
    assert row(table, "small_0")["learning_rate"] == "1/√max(n, 300)"
    results = stage_tables.results_table(run)
    *_, note = results.footnotes
    assert "still running: its last evaluation is at step 600 of 4,000" in note
    assert row(results, "small_0")["device_seconds"] == "90.0 s"
    data = dag.graph(run)
    nodes = {node["stage"]: node for node in data["nodes"]}
    assert {name: (n["column"], n["state"]) for name, n in nodes.items()} == {
        "small_0": (0, "finished"),
        "small_1": (0, "not in this folder"),
        "fusion_rule": (1, "running"),
    }
    assert [(link["source"], link["target"]) for link in data["links"]] == [
        ("small_0", "fusion_rule"), ("small_1", "fusion_rule")
    ]  # fmt: skip
