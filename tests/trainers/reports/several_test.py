"""Several runs on one page: curves, ends, settings that differ, and what does not compare."""

import json
import re

import pytest

from tests.trainers.reports import synthetic
from trainers.reports import differing, page, several
from trainers.reports.tables import Table
from trainers.runs import history

TOKENS = {"vocabulary.model": "aa", "train.tokens": "bb", "validation.tokens": "cc"}
TASK = {"objective": "span_corruption", "batch_size": 32, "input_length": 128, "eval_batches": 16}


def read(folder, *stages, **settings):
    return history.read_run(synthetic.write_run(folder, *stages, **TOKENS, **TASK, **settings))


def rows_of(report, key):
    """{first two cells: texts of the others} of a table."""
    (table,) = (table for table in report.blocks(Table) if table.key == key)
    texts = [[cell.text for cell in row] for row in table.rows]
    return {tuple(row[:2]): row[2:] for row in texts}


def with_settings(stage, **settings):
    return stage | {"settings": {"steps": 3000, "clip_norm": None, **settings}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run from scratch, and one that fuses and has another learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    small = with_settings(synthetic.small(), learning_rate_scale=0.5, steps_per_call=1)
    other = with_settings(synthetic.small(), learning_rate_scale=1.0, steps_per_call=20)
    scratch = read(folder / "scratch", small, synthetic.baseline(), tuning="by hand")
    fused = read(folder / "fused", other, synthetic.fused(), corpus="docs")
    return scratch, fused


@pytest.fixture(scope="module")
def report(runs):
    return several.comparison(runs)


def test_paths_have_their_shortest_different_ends():
    assert several.names(["runs/a", "runs/b/"]) == ["a", "b"]
    assert several.names(["x/w", "y/w", "y/v"]) == ["x/w", "y/w", "y/v"]


def test_final_stages_are_those_that_no_other_starts_from(runs):
    finals = [[stage.name for stage in several.final_stages(run)] for run in runs]
    assert finals == [["small_0", "baseline"], ["self_fusion"]]


def test_a_sweep_alone_is_shown_and_beside_other_stages_is_not(tmp_path):
    sweep = {"tune": {"points": {"t1": {"arm": "small_0"}, "t2": {"arm": "small_0"}}}}
    stages = synthetic.small("t1"), synthetic.small("t2"), synthetic.baseline()
    both, alone = read(tmp_path / "both", *stages), read(tmp_path / "alone", *stages[:2])
    for run in (both, alone):
        run.settings["experiments"] = sweep
    assert [stage.name for stage in several.final_stages(both)] == ["baseline"]
    assert [stage.name for stage in several.final_stages(alone)] == ["t1", "t2"]


def test_curves_begin_at_the_cost_of_all_sources(report):
    (picture,) = report.opening
    lines = {line["stage"]: line for line in picture.data["series"]}
    assert list(lines) == ["scratch: small_0", "scratch: baseline", "fused"]
    assert lines["scratch: baseline"]["x"][0] == 0
    before = 3000 * synthetic.FLOPS_PER_STEP["S"]
    assert lines["fused"]["x"][0] == before
    assert lines["fused"]["x"][-1] == before + 4000 * synthetic.FLOPS_PER_STEP["M"]
    assert picture.png().startswith(b"\x89PNG")


def test_ends_count_the_sources(report):
    ends = rows_of(report, "ends")
    assert list(ends) == [("scratch", "small_0"), ("scratch", "baseline"), ("fused", "self_fusion")]
    *_, flops, seconds = ends["fused", "self_fusion"]
    # 3000 * 1.1e9 + 4000 * 3.9e9, and 3000 * 0.03 + 4000 * 0.08
    assert (flops, seconds) == ("1.89e+13", "410\u00a0s")
    assert ends["scratch", "baseline"][-2:] == ["1.87e+13", "384\u00a0s"]
    steps, accuracy = ends["scratch", "baseline"][1:3]
    assert (steps, accuracy) == ("4,800", f"{synthetic.baseline()['accuracy']:.2f}")


def test_only_settings_that_differ_are_in_the_table(report):
    assert rows_of(report, "settings") == {
        ("tuning", ""): ["by hand", "not recorded"],
        ("learning_rate_scale", "small_0"): ["0.5", "1.0"],
    }
    text = page.to_markdown(report).replace("\\", "")
    assert "Only scratch has baseline, whose settings are not compared." in text
    assert "Only fused has self_fusion, whose settings are not compared." in text


def test_a_stage_is_compared_between_the_runs_that_have_it(tmp_path):
    def run(name, *stages):
        return read(tmp_path / name, *stages)

    fused = [with_settings(synthetic.fused(), noise=noise) for noise in (0.1, 0.5)]
    named = {"a": run("a", synthetic.baseline()), "b": run("b", fused[0]), "c": run("c", fused[1])}
    row = {"a": differing.NO_STAGE, "b": 0.1, "c": 0.5}
    assert differing.settings(named) == [("noise", "self_fusion", row)]
    assert differing.alone(named) == ("Only a has baseline, whose settings are not compared.",)


def test_a_setting_that_differs_alike_in_all_stages_is_one_row(tmp_path):
    def run(name, seed):
        stages = [synthetic.small(), synthetic.small("small_1"), synthetic.baseline()]
        settings = {"seed": seed, "dropout": 0.0}
        return read(tmp_path / name, *(with_settings(stage, **settings) for stage in stages))

    rows = differing.settings({"a": run("a", 0), "b": run("b", 7)})
    assert rows == [("seed", "all", {"a": 0, "b": 7})]


def test_equal_runs_differ_in_nothing(tmp_path):
    runs = [read(tmp_path / name, synthetic.small()) for name in "ab"]
    report = several.comparison(runs)
    assert "All settings that are compared are the same." in page.to_html(report)
    assert len(report.summary) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vocabulary.model": "zz"}, "different vocabularies, .*vocabulary.model .a: aa, b: zz"),
        ({"train.tokens": "zz"}, "different tokens .*train.tokens .a: bb, b: zz"),
        ({"objective": "prefix_lm"}, "tasks, .*objective .a: span_corruption, b: prefix_lm"),
        ({"eval_batches": 4}, "validation batches, .*eval_batches .a: 16, b: 4"),
    ],
)
def test_what_does_not_compare_is_named_in_the_summary(tmp_path, change, named):
    a, b = (read(tmp_path / name, synthetic.small()) for name in "ab")
    b.settings.update(change)
    _, warning = several.comparison([a, b]).summary
    assert re.search(named, warning)
    assert "not compare" in warning or "say nothing" in warning


def test_a_stage_whose_sources_are_elsewhere_is_named_and_has_no_curve(tmp_path):
    whole = read(tmp_path / "whole", synthetic.small())
    part = read(tmp_path / "part", synthetic.fused())
    report = several.comparison([whole, part])
    assert [line["run"] for line in report.opening[0].data["series"]] == ["whole"]
    assert rows_of(report, "ends")["part", "self_fusion"][-2:] == ["not known", "not known"]
    assert "self_fusion of part has no curve: the cost of what it comes from" in page.to_html(
        report
    )


def test_repeats_are_the_same_line_pale(tmp_path):
    again = synthetic.record("small_0_r2", "S", synthetic.learning_curve(3000, "S"))
    again |= {"repeat": 2, "repeat_of": "small_0"}
    runs = read(tmp_path / "a", synthetic.small(), again), read(tmp_path / "b", synthetic.small())
    series = several.comparison(runs).opening[0].data["series"]
    names = [(line["stage"], line["repeat_of"]) for line in series]
    assert names == [("a", "a"), ("a: small_0_r2", "a"), ("b", "b")]


def test_results_have_the_runs(report):
    results = json.loads(page.to_json(report))
    assert results["kind"] == "comparison"
    assert [run["name"] for run in results["runs"]] == ["scratch", "fused"]
    assert results["runs"][1]["finals"][0]["total"]["flops"] == 3000 * 1.1e9 + 4000 * 3.9e9
