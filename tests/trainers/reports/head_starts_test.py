"""Head starts, by hand: curves are straight lines, and a loss is 6.2 − accuracy / 15."""

import dataclasses

import pytest

from tests.trainers.reports import synthetic
from trainers.reports import head_starts, page
from trainers.reports.comparisons import compare
from trainers.runs import history


def line(*ends, size="M"):
    """Evaluations on straight lines between (step, accuracy) pairs."""
    return [synthetic.point(step, accuracy, size) for step, accuracy in ends]


def read(folder, start, small_steps, decay_steps=0):
    """A baseline that gains 4 points every 100 of 1,000 steps, and a self-fusion at some start."""
    rate = {"warmup_steps": 300, "offset": 0, "scale": 1.0, "decay_steps": decay_steps}
    curve = line((0, 0.0), (500, 20.0), (750, 30.0), (1000, 40.0))
    small = line((0, 0.0), (small_steps, start), size="S")
    fused = line((0, start), (500, 45.0))
    return history.read_run(
        synthetic.write_run(
            folder,
            synthetic.record("baseline", "M", curve, learning_rate=rate),
            synthetic.record("small_0", "S", small),
            synthetic.record("self_fusion", "M", fused, "self_fusion", ["small_0"]),
        )
    )


def told(run):
    ((start,),) = head_starts.of_comparisons(run, compare(run)).values()
    return start


def test_a_head_start_is_the_baselines_compute_less_that_of_the_sources(tmp_path):
    start = told(read(tmp_path / "w", 25.0, 1000))
    step, small = (synthetic.FLOPS_PER_STEP[size] for size in "MS")
    assert start.loss == pytest.approx(6.2 - 25 / 15)
    assert start.flops == pytest.approx(625 * step - 1000 * small)
    assert start.share == pytest.approx(100 * start.flops / (1000 * step))
    assert not start.is_bound


def test_the_share_is_of_the_whole_run_of_a_baseline_that_is_still_running(tmp_path):
    run = read(tmp_path / "w", 25.0, 1000)
    whole = told(run)
    baseline = run.stages["baseline"]
    run.stages["baseline"] = dataclasses.replace(
        baseline,
        steps=750,
        flops=750 * synthetic.FLOPS_PER_STEP["M"],
        planned_steps=1000,
        curve=baseline.curve[:-1],
    )
    assert told(run).share == pytest.approx(whole.share)


def test_sources_that_were_trained_for_too_long_give_a_negative_one(tmp_path):
    start = told(read(tmp_path / "w", 5.0, 3000))
    assert start.flops == pytest.approx(125 * 3.9e9 - 3000 * 1.1e9) and start.flops < 0


def test_steps_with_a_falling_rate_do_not_count(tmp_path):
    run = read(tmp_path / "w", 35.0, 1000, decay_steps=250)
    assert told(run).is_bound
    assert told(run).reached == pytest.approx(750 * 3.9e9)
    html = page.to_html(page.pretraining_report(run))
    assert "Head starts" in html and "At least: the baseline" in html
    assert not told(read(tmp_path / "w2", 35.0, 1000)).is_bound


def test_where_a_cost_or_an_evaluation_is_missing_there_is_a_reason(tmp_path):
    run = read(tmp_path / "w", 25.0, 1000)
    del run.stages["small_0"]
    start = told(run)
    assert (start.flops, start.share) == (None, None)
    assert start.reason == "the cost of one of its sources is not known"
    assert "cost of one of its sources" in page.to_markdown(page.pretraining_report(run))

    later = synthetic.record("self_fusion", "M", line((100, 25.0), (500, 45.0)), "self_fusion")
    synthetic.write_record(tmp_path / "w", later | {"sources": ["small_0"]})
    run = history.read_run(tmp_path / "w")
    assert told(run).reason == "no evaluation before its first step"
    assert not head_starts.tables_of(head_starts.of_comparisons(run, compare(run)))
