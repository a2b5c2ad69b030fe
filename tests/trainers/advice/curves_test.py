"""Curves read from the folders of runs."""

import numpy as np
import pytest

from tests.trainers.reports import synthetic
from trainers.advice.curves import by_size, read_curves, self_fusions
from trainers.errors import UserError
from trainers.runs import history


def read(*folders, unit="flops"):
    return read_curves([history.read_run(folder) for folder in folders], unit)


def by_name(curves):
    return {curve.name: curve for curve in curves}


def test_points_before_the_first_step_stand_apart(tmp_path):
    small = synthetic.small(steps=1000)
    curve = read(synthetic.write_run(tmp_path / "w", small))[0]
    assert curve.losses[0] == small["curve"][1]["loss_per_token"]
    np.testing.assert_array_equal(curve.steps, [200, 400, 600, 800, 1000])
    np.testing.assert_array_equal(curve.costs, curve.steps * synthetic.FLOPS_PER_STEP["S"])
    assert len(curve.part(slice(3)).losses) == 3


def test_device_seconds(tmp_path):
    curve = read(synthetic.write_run(tmp_path / "w", synthetic.small()), unit="device_seconds")[0]
    np.testing.assert_allclose(curve.costs, curve.steps * synthetic.SECONDS_PER_STEP["S"])


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
    last = small["curve"][-1]
    curve = by_name(read(folder))["w/self_fusion"]
    assert curve.source == (last["loss_per_token"], last["flops"])
    fused_earlier = synthetic.fused(source_steps={"small_0": 2000})
    folder = synthetic.write_run(tmp_path / "earlier", small, fused_earlier)
    point = next(point for point in small["curve"] if point["step"] == 2000)
    curve = by_name(read(folder))["earlier/self_fusion"]
    assert curve.source == (point["loss_per_token"], point["flops"])


def test_a_source_that_is_not_there_is_unknown(tmp_path):
    folder = synthetic.write_run(tmp_path / "w", synthetic.fused())
    curve = read(folder)[0]
    assert curve.sources == ("small_0",)
    assert curve.source is None


def test_several_sources_are_no_self_fusion(tmp_path):
    both = ("small_0", "small_1")
    stages = synthetic.small(), synthetic.small("small_1"), synthetic.fused("fusion_rule", both)
    curves = by_name(read(synthetic.write_run(tmp_path / "w", *stages)))
    assert curves["w/fusion_rule"].sources == both
    assert curves["w/fusion_rule"].source is None


def test_a_stage_that_continues_another_gives_one_curve(tmp_path):
    first = synthetic.baseline(steps=1000)
    more = synthetic.learning_curve(400, "M", start=31.0, leaves=0)
    longer = synthetic.record("baseline_longer", "M", more, "continued", ("baseline",))
    (curve,) = read(synthetic.write_run(tmp_path / "w", first, longer))
    assert (curve.name, curve.sources) == ("w/baseline_longer", ())
    np.testing.assert_array_equal(curve.steps, [200, 400, 600, 800, 1000, 1200, 1400])
    np.testing.assert_allclose(curve.costs, curve.steps * synthetic.FLOPS_PER_STEP["M"])


def test_stages_of_plans_that_vary_something_are_left_out(tmp_path):
    varied = ("tune_1", "offset_-50", "offset_-50_r2", "noise_0", "arm")
    stages = [synthetic.small(), synthetic.fused()]
    for i, name in enumerate(varied):
        stages.append({**synthetic.fused(end=44.0 + i), "name": name})
    stages[4] |= {"repeat": 2, "repeat_of": "offset_-50"}
    plans = {
        "tune": {"points": {"tune_1": {}}},
        "offsets": {"points": {"offset_-50": {}}},
        "zero_blocks": {"points": {"noise_0": {}, "self_fusion": {}}},
        "gains": {"points": {"arm": {"budget": 1}}},
        "table1": {"points": {"small_0": {}}},
    }
    folder = synthetic.write_run(tmp_path / "w", *stages, experiments=plans)
    assert [curve.name for curve in read(folder)] == ["w/small_0", "w/self_fusion"]


def test_a_decay_of_the_learning_rate_is_left_out(tmp_path):
    rate = {"warmup_steps": 300, "offset": 0, "scale": 1.0, "decay_steps": 400}
    decayed = synthetic.record("baseline", "M", synthetic.learning_curve(1000), learning_rate=rate)
    running = {**decayed, "name": "baseline_r2", "repeat": 2, "repeat_of": "baseline"}
    running["curve"] = synthetic.learning_curve(1000, wobble=0.2)
    folder = synthetic.write_run(tmp_path / "w", decayed)
    synthetic.write_running(folder, running)  # for 4000 steps
    whole, so_far = (by_name(read(folder))[f"w/{name}"] for name in ("baseline", "baseline_r2"))
    np.testing.assert_array_equal(whole.steps, [200, 400, 600])
    np.testing.assert_array_equal(so_far.steps, [200, 400, 600, 800, 1000])


def test_a_stack_of_layers_is_no_self_fusion(tmp_path):
    stack = synthetic.fused() | {"name": "stack", "init": "stacked"}
    folder = synthetic.write_run(tmp_path / "w", synthetic.small(), stack)
    assert by_name(read(folder))["w/stack"].source is None


def test_copies_and_beginnings_of_a_stage_count_once(tmp_path):
    short, long = synthetic.small(steps=2000), synthetic.small(steps=3000)
    folders = [
        synthetic.write_run(tmp_path / name, stage)
        for name, stage in (("a", short), ("b", long), ("c", long))
    ]
    curves = read(*folders)
    assert [curve.name for curve in curves] == ["b/small_0"]


def test_runs_that_do_not_compare(tmp_path):
    first = synthetic.write_run(tmp_path / "a", synthetic.small())
    second = synthetic.write_run(tmp_path / "b", synthetic.small(), size="table8")
    with pytest.raises(UserError, match="size='tiny'.*size='table8'"):
        read(first, second)


def test_other_texts_lengths_and_models_are_not_put_together(tmp_path):
    def small(name, end, **settings):
        curve = synthetic.learning_curve(3000, "S", end=end, wobble=0.01 * end)
        return synthetic.record(name, "S", curve, settings=settings)

    def fused(name, **settings):
        return synthetic.fused(start=40 + len(name), settings=settings) | {"name": name}

    stages = (
        small("short", 43.0, training_length=32, text="first"),
        small("usual", 44.0, training_length=None, text="first", depth="whole", shape="even"),
        small("second", 42.0, text="second"),
        small("half", 46.0, depth="half"),
        small("mlp", 47.0, shape="mlp"),
        *(synthetic.baseline(), synthetic.small()),
        *(fused("on_first", text="first"), fused("on_both", text="both")),
    )
    curves = read(synthetic.write_run(tmp_path / "w", *stages))
    groups = by_size(curves)
    assert [curve.name for curve in groups["S"]] == ["w/small_0", "w/usual"]
    assert [curve.name for curve in self_fusions(curves, groups)] == ["w/on_first"]


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
    folder = synthetic.write_run(tmp_path / "w", *stages, synthetic.baseline())
    groups = by_size(read(folder))
    assert [curve.name for curve in groups["S"]] == ["w/small_1", "w/small_2"]
    assert [curve.name for curve in groups["M"]] == ["w/baseline"]
