"""Repeats: means and spreads by hand, the baseline past its end, the largest model, the sweep."""

import json

import pytest

from tests.trainers.reports import synthetic
from tests.trainers.reports.stage_tables_test import row
from trainers.reports import (
    comparisons,
    figures,
    numbers,
    page,
    paper_tables,
    stage_tables,
    summary,
    sweep_table,
    tables,
)
from trainers.runs import history

SMALL_END, PLAIN = 30.0, 40.0


def straight(steps, size, start, end):
    """A curve that rises in a straight line, an evaluation every 100 steps."""
    return [
        synthetic.point(step, start + (end - start) * step / steps, size)
        for step in range(0, steps + 1, 100)
    ]


def stage(name, size, steps, start, end, init="scratch", sources=(), repeat=1, **changes):
    return synthetic.record(
        name if repeat == 1 else f"{name}_r{repeat}",
        size,
        straight(steps, size, start, end),
        init,
        tuple(source if repeat == 1 else f"{source}_r{repeat}" for source in sources),
        repeat=repeat,
        repeat_of=name,
        **changes,
    )


def arms(repeat, end, longer_end):
    """Baseline from 0 to 40 % in 1000 steps; self-fusion from 30 to `end` in 500."""
    return (
        stage("small_0", "S", 1000, 0, SMALL_END, repeat=repeat),
        stage("baseline", "M", 1000, 0, PLAIN, repeat=repeat),
        stage("self_fusion", "M", 500, SMALL_END, end, "self_fusion", ("small_0",), repeat),
        stage("baseline_longer", "M", 500, PLAIN, longer_end, "continued", ("baseline",), repeat),
    )


@pytest.fixture
def run(tmp_path):
    """Two seeds; the baseline meets the first self-fusion only."""
    folder = synthetic.write_run(tmp_path / "w", *arms(1, 44.0, 48.0), *arms(2, 46.0, 44.0))
    return history.read_run(folder)


def test_spread_is_the_population_standard_deviation():
    assert numbers.spread([44.0, 46.0], numbers.percent) == "45.00 ± 1.00"
    assert numbers.spread([44.0], numbers.percent) == "44.00"
    assert numbers.spread([44.0, 44.0], numbers.percent) == "44.00"


def test_a_spread_has_the_decimals_of_its_mean():
    assert numbers.spread([2200.0, 2230.0], numbers.loss) == "2,215 ± 15"
    assert numbers.spread([90.0, 130.0], numbers.seconds).replace("\u00a0", " ") == "110 ± 20 s"
    assert numbers.spread([1e13, 3e13], numbers.scientific) == "2.00e+13 ± 1.00e+13"
    assert numbers.spread([0.1 + 0.2, 0.3], numbers.ratio) == "0.30"


def test_a_mean_says_whose_it_is_not():
    cell = tables.mean([1.0, None], numbers.ratio, "not reached")
    assert (cell.text, cell.note) == ("1.00", "1 of 2 seeds; the others: not reached.")
    assert tables.mean([None, None], numbers.ratio, "not reached").missing


def test_table_1_has_means_over_seeds(run):
    table = paper_tables.table_1(run)
    assert row(table, "self_fusion")["accuracy"] == "45.00 ± 1.00"
    assert row(table, "baseline")["accuracy"] == "40.00"
    # 1000 steps of S and 500 of M, alike in both seeds.
    assert row(table, "self_fusion")["device_seconds"] == "30.0 s + 40.0 s = 70.0 s"
    assert "over 2 seeds" in table.caption


def test_costs_that_differ_have_a_spread(tmp_path):
    slow = stage("baseline", "M", 1000, 0, PLAIN, repeat=2) | {"device_seconds": 120.0}
    first = stage("baseline", "M", 1000, 0, PLAIN)
    run = history.read_run(synthetic.write_run(tmp_path / "w", first, slow))
    assert row(paper_tables.table_1(run), "baseline")["device_seconds"] == "100 ± 20 s"


def test_the_baseline_meets_self_fusion(run):
    first, second = comparisons.meetings(run, "self_fusion")
    # From 40 to 48 in 500 steps: 44 after 250 of them.
    assert first.crossing.step == pytest.approx(1250)
    assert first.crossing.cost.device_seconds == pytest.approx(100)
    assert first.fused.device_seconds == pytest.approx(70)
    assert (second.accuracy, second.crossing, second.steps) == (46.0, None, 1500)


def test_table_2_runs_on_as_in_the_paper(run):
    table = paper_tables.table_2(run, comparisons.compare(run))
    baseline = next(r for r in table.rows if r[0].text == "baseline")
    texts = dict(zip((c.key for c in table.columns), baseline, strict=True))
    assert texts["post_steps"].text == "1,250 steps"
    assert texts["post_steps"].note == "1 of 2 seeds; the others: not reached in 1,500 steps."
    assert row(table, "self_fusion")["cost"].replace("\u00a0", " ") == "70.0 s"
    assert row(table, "self_fusion")["accuracy"] == "45.00 ± 1.00"
    assert "ran on until" in table.caption
    # 1000 steps of S and 500 of M, over 1250 of M, with the seed that met.
    flops = (1000 * 1.1e9 + 500 * 3.9e9) / (1250 * 3.9e9)
    assert f"took {numbers.ratio(flops)} of the baseline's FLOPs and 0.70 of" in table.caption


def test_guards_withhold_the_ratio_of_a_baseline_that_ran_on(tmp_path):
    def caption(*stages):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        run = history.read_run(synthetic.write_run(folder, *stages))
        return paper_tables.table_2(run, comparisons.compare(run)).caption

    small, *others = arms(1, 44.0, 48.0)
    assert "took 0.63 of the baseline's FLOPs" in caption(small, *others)
    good = stage("small_0", "S", 1000, 0, 45.0)
    assert "No ratio of the costs is given: small_0, which it comes from" in caption(good, *others)
    # The baseline is at 44 % once, on the way to 48, and then not before its end.
    curve = [synthetic.point(step, 40.0) for step in (0, 100, 200, 400)]
    curve += [synthetic.point(300, 48.0), synthetic.point(500, 48.0)]
    curve = sorted(curve, key=lambda point: point["step"])
    longer = synthetic.record("baseline_longer", "M", curve, "continued", ("baseline",))
    words = "No ratio of the costs is given: its ratio rests on one evaluation: it is 0.54 where"
    assert words in caption(small, others[0], others[1], longer)


def test_a_stage_that_continues_is_no_arm(run):
    assert [c.plan for c in comparisons.compare(run)] == ["self_fusion", "self_fusion_r2"]


def test_ratios_are_means_over_seeds(run):
    table = stage_tables.comparison_table(run, comparisons.compare(run))
    cells = row(table, "self_fusion")
    # 40 % after 500 * 10/14 and 500 * 10/16 steps of M at 0.08 s, and 30 s of S, over 80 s.
    ratios = [(30 + 0.08 * 500 * 10 / up) / 80 for up in (14, 16)]
    assert cells["device_seconds_ratio"] == numbers.spread(ratios, numbers.ratio)
    assert "2 seeds" in table.caption
    assert "self_fusion_r2" not in {r[0].text for r in table.rows}


def test_the_summary_speaks_of_seeds(run):
    text = " ".join(summary.summarize(run, comparisons.compare(run)))
    assert "With 2 of 2 seeds it reached" in text
    assert "over 2 seeds, which is few" in text
    assert text.count("was trained on for 500 steps") == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"table1": {"points": {"self_fusion": {"row": "self_fusion"}}}},
        {"self_fusion": {"points": {}, "final": "self_fusion"}},
    ],
)
def test_what_varies_a_stage_is_no_arm(tmp_path, asked):
    offset = stage("offset_5", "M", 500, 30, 47, "self_fusion", ("small_0",))
    points = {"offset_5": {"offset": 5}, "self_fusion": {"offset": 0}}
    experiments = {"offsets": {"points": points}, **asked}
    folder = synthetic.write_run(tmp_path / "w", *arms(1, 44.0, 48.0), offset)
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(settings | {"experiments": experiments}))
    run = history.read_run(folder)
    assert comparisons.variations(run) == {"offset_5"}
    assert [c.plan for c in comparisons.compare(run)] == ["self_fusion"]
    shown = {
        line["stage"] for line in figures.curves(run, "steps", comparisons.compare(run))["series"]
    }
    assert shown == {"small_0", "baseline", "self_fusion", "baseline_longer"}


def test_a_stage_that_continues_is_drawn_behind_its_start(run):
    lines = figures.curves(run, "steps", comparisons.compare(run))["series"]
    longer = next(line for line in lines if line["stage"] == "baseline_longer")
    assert longer["x"][:2] == [1000, 1100]


LARGE = (
    stage("figure2_1", "M", 1000, 0, 40),
    stage("baseline", "S", 500, 0, 30),
    stage("figure2_5", "M", 400, 30, 50, "self_fusion", ("baseline",)),
)


def test_tables_3_and_4(tmp_path):
    run = history.read_run(synthetic.write_run(tmp_path / "w", *LARGE))
    table = paper_tables.table_3(run)
    assert row(table, "(5)")["accuracy"] == "50.00"
    assert row(table, "(5)")["paper_accuracy"] == "70.57"
    assert row(table, "(2)")["accuracy"] == "not described"
    assert row(table, "(3)")["accuracy"] == "not run"
    assert any("described nowhere" in note for note in table.footnotes)
    cells = row(paper_tables.table_4(run), "figure2_5")
    assert (cells["fusion_steps"], cells["post_steps"]) == ("500 steps", "200 steps")
    assert cells["accuracy"] == "40.00"
    assert {r["model"]["text"] for r in paper_tables.table_4(run).to_dict()["rows"]} == {
        "figure2_1",
        "(1)",
        "figure2_5",
        "(5)",
    }


def test_the_sweep(tmp_path):
    points, stages = {}, []
    for warmup, end in ((100, 31.0), (200, 33.0), (300, 32.0), (400, 30.0)):
        name = f"tune_small_0_k{warmup}_s1"
        at = {"arm": "small_0", "warmup_steps": warmup, "learning_rate_scale": 1.0}
        points[f"{name}_r1"], points[f"{name}_r2"] = at | {"rung": 1}, at | {"rung": 2}
        stages.append(stage(f"{name}_r1", "S", 100, 0, end))
    for warmup, end in ((200, 34.0), (300, 35.0)):
        name = f"tune_small_0_k{warmup}_s1"
        stages.append(stage(f"{name}_r2", "S", 200, 33, end, "continued", (f"{name}_r1",)))
    folder = synthetic.write_run(tmp_path / "w", *stages)
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps(settings | {"experiments": {"tune": {"points": points}}})
    )
    table = sweep_table.tuning_table(history.read_run(folder))
    rows = [(r[2].text, r[1].text, r[4].text, r[7].text) for r in table.rows]
    assert len(rows) == 6
    assert ("200", "1", "100", "continues") in rows
    assert ("100", "1", "100", "ends here") in rows
    assert ("300", "2", "300", sweep_table.CHOSEN) in rows
    assert ("200", "2", "300", "ends here") in rows
    # Four times 100 and twice 200 steps of S.
    assert numbers.scientific(800 * synthetic.FLOPS_PER_STEP["S"]) in table.caption


def test_a_run_without_a_sweep_has_no_such_table(run):
    assert sweep_table.tuning_table(run) is None


def test_the_report_of_repeats_has_every_table_once(run):
    report = page.pretraining_report(run)
    written = json.loads(page.to_json(report))["tables"]
    assert {"table1", "table2"} <= set(written)
    assert len(report.blocks(tables.Table)) == len(written)
