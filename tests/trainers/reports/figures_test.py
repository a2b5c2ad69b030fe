"""Figures: their data, and that they differ by more than colour."""

import pytest

from tests.trainers.reports import synthetic
from trainers.reports import comparisons, dag, figures
from trainers.reports.pictures import DARK, LIGHT
from trainers.runs import history


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return history.read_run(synthetic.full_run(tmp_path_factory.mktemp("run") / "w"))


def series(data):
    return {line["stage"]: line for line in data["series"]}


def test_a_fused_curve_starts_at_the_cost_of_its_sources(run):
    flops = series(figures.curves(run, "flops"))
    seconds = series(figures.curves(run, "device_seconds"))
    steps = series(figures.curves(run, "steps"))
    assert flops["self_fusion"]["x"][0] == pytest.approx(3000 * 1.1e9)
    assert flops["fusion_rule"]["x"][0] == pytest.approx(2 * 3000 * 1.1e9)
    assert seconds["fusion_rule"]["x"][0] == pytest.approx(180.0)
    assert seconds["fusion_rule"]["x"][-1] == pytest.approx(180.0 + 320.0)
    assert flops["baseline"]["x"][0] == 0
    assert steps["self_fusion"]["x"][0] == 0


def test_crossings_lie_on_their_curves(run):
    compared = comparisons.compare(run)
    data = figures.curves(run, "flops", compared)
    assert data["target"] == run.stages["baseline"].accuracy
    places = {crossing["stage"]: crossing["x"] for crossing in data["crossings"]}
    for comparison in compared:
        share = places[comparison.plan] / places["baseline"]
        assert share == pytest.approx(comparison.flops_ratio)


def test_a_stage_with_an_unknown_start_is_on_the_axis_of_steps_only(tmp_path):
    run = history.read_run(synthetic.write_run(tmp_path, synthetic.baseline(), synthetic.fused()))
    assert set(series(figures.curves(run, "steps"))) == {"baseline", "self_fusion"}
    assert set(series(figures.curves(run, "flops"))) == {"baseline"}


def test_lines_differ_by_colour_dash_and_marker(run):
    figure = figures.draw_curves(figures.curves(run, "steps"), LIGHT)
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    plans = [line for line in lines if not line.get_label().startswith("small")]
    assert len({line.get_marker() for line in lines}) == len(lines) == 6
    assert len({line.get_color() for line in plans}) == len(plans)
    assert len({str(line._unscaled_dash_pattern) for line in plans}) == len(plans)


def test_pictures_are_png_on_either_ground_and_the_same_each_time(run):
    picture, again = (figures.figure_1(run, ())[0] for _ in range(2))
    light = picture.png()
    assert light.startswith(b"\x89PNG")
    assert light == again.png(LIGHT)
    assert light != picture.png(DARK)
    assert dag.fusion_graph(run).png(DARK).startswith(b"\x89PNG")


def test_nothing_to_draw_is_drawn_all_the_same(tmp_path):
    synthetic.write_running(tmp_path, synthetic.baseline())
    (tmp_path / "baseline" / "metrics.jsonl").unlink()
    run = history.read_run(tmp_path)
    assert figures.curves(run, "flops")["series"] == []
    assert figures.figure_1(run, ())[1].png().startswith(b"\x89PNG")
    assert dag.fusion_graph(run).png().startswith(b"\x89PNG")
