"""Curves read from the folders of runs."""

import json

import numpy as np
import pytest

from tests.trainers.reports import synthetic
from trainers.advice.curves import best_rate, read_curves
from trainers.errors import UserError
from trainers.runs import history


def read(*folders, unit="flops"):
    return read_curves([history.read_run(folder) for folder in folders], unit)


def by_name(curves):
    return {curve.name: curve for curve in curves}


def test_points_before_the_first_step_stand_apart(tmp_path):
    small = synthetic.small(steps=1000)
    found = read(synthetic.write_run(tmp_path / "w", small))[0]
    assert found.start == small["curve"][0]["loss_per_token"]
    np.testing.assert_array_equal(found.steps, [200, 400, 600, 800, 1000])
    np.testing.assert_array_equal(found.costs, found.steps * synthetic.FLOPS_PER_STEP["S"])
    assert found.cost_per_step == synthetic.FLOPS_PER_STEP["S"]
    assert found.parameters == synthetic.PARAMETERS["S"]
    assert len(found.until(found.costs[2]).losses) == 3


def test_device_seconds(tmp_path):
    found = read(synthetic.write_run(tmp_path / "w", synthetic.small()), unit="device_seconds")[0]
    assert found.cost_per_step == pytest.approx(synthetic.SECONDS_PER_STEP["S"])


def test_losses_that_were_not_finite_are_left_out(tmp_path):
    small = synthetic.small(steps=1000)
    small["curve"][2]["loss_per_token"] = float("nan")
    assert 400 not in read(synthetic.write_run(tmp_path / "w", small))[0].steps


def test_a_running_stage_counts(tmp_path):
    folder = synthetic.write_run(tmp_path / "w")
    synthetic.write_running(folder, synthetic.small(steps=1000))
    assert len(read(folder)[0].steps) == 5


def test_a_source_is_taken_where_it_was_fused(tmp_path):
    small = synthetic.small()
    folder = synthetic.write_run(tmp_path / "w", small, synthetic.fused())
    last = by_name(read(folder))["w/self_fusion"].sources[0]
    assert last.loss == small["curve"][-1]["loss_per_token"]
    assert last.cost == small["curve"][-1]["flops"]
    (folder / "self_fusion" / "stage.json").write_text(
        json.dumps({"source_steps": {"small_0": 2000}})
    )
    earlier = by_name(read(folder))["w/self_fusion"].sources[0]
    point = next(point for point in small["curve"] if point["step"] == 2000)
    assert (earlier.loss, earlier.cost) == (point["loss_per_token"], point["flops"])


def test_a_source_that_is_not_there_is_unknown(tmp_path):
    folder = synthetic.write_run(tmp_path / "w", synthetic.fused())
    assert read(folder)[0].sources[0].loss is None


def test_stages_of_plans_that_vary_something_are_left_out(tmp_path):
    varied = ("tune_1", "offset_-50", "offset_-50_r2", "noise_0")
    stages = [synthetic.small(), synthetic.fused()]
    for i, name in enumerate(varied):
        stages.append({**synthetic.fused(end=44.0 + i), "name": name})
    stages[4] |= {"repeat": 2, "repeat_of": "offset_-50"}
    plans = {
        "tune": {"points": {"tune_1": {}}},
        "offsets": {"points": {"offset_-50": {}}},
        "zero_blocks": {"points": {"noise_0": {}, "self_fusion": {}}},
        "table1": {"points": {"small_0": {}}},
    }
    folder = synthetic.write_run(tmp_path / "w", *stages, experiments=plans)
    assert [curve.name for curve in read(folder)] == ["w/small_0", "w/self_fusion"]


def test_copies_and_beginnings_of_a_stage_count_once(tmp_path):
    short, long = synthetic.small(steps=2000), synthetic.small(steps=3000)
    folders = [
        synthetic.write_run(tmp_path / name, stage)
        for name, stage in (("a", short), ("b", long), ("c", long))
    ]
    found = read(*folders)
    assert [curve.name for curve in found] == ["b/small_0"]


def test_runs_that_do_not_compare(tmp_path):
    one = synthetic.write_run(tmp_path / "a", synthetic.small())
    other = synthetic.write_run(tmp_path / "b", synthetic.small(), size="table8")
    with pytest.raises(UserError, match="size='table8', not 'tiny'"):
        read(one, other)


def test_of_several_learning_rates_the_best_is_taken(tmp_path):
    rates = [{"warmup_steps": k, "offset": 0, "scale": 1.0} for k in (100, 300)]
    stages = [
        synthetic.record(
            f"small_{i}",
            "S",
            synthetic.learning_curve(steps, "S", end=end, wobble=0.1 + 0.01 * i),
            learning_rate=rate,
        )
        for i, (rate, end, steps) in enumerate(
            ((rates[0], 36.0, 4000), (rates[1], 44.0, 3000), (rates[1], 43.0, 3000))
        )
    ]
    found = best_rate(read(synthetic.write_run(tmp_path / "w", *stages)))
    assert [curve.name for curve in found] == ["w/small_1", "w/small_2"]
    assert best_rate([]) == ()
