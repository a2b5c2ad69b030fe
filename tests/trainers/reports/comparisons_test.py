"""Crossings and ratios against values computed by hand."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.reports import synthetic
from trainers.reports import comparisons, crossings
from trainers.reports.crossings import Cost
from trainers.runs import history
from trainers.runs.history import Evaluation, RunHistory, StageHistory


def curve(*accuracies, step=100, flops=10.0, seconds=2.0):
    """Evaluations every `step` steps; FLOPs and device-seconds are `flops` and `seconds` a step.

    The loss falls ever more slowly, as of a model that learns: 6, 4.5, 4, 3.75 …
    """
    return tuple(
        Evaluation(i * step, i * step, i * step * flops, i * step * seconds, 3 + 3 / (i + 1), value)
        for i, value in enumerate(accuracies)
    )


def stage(name, points, sources=(), size="M", status=history.FINISHED):
    last = points[-1] if points else Evaluation(0, 0, 0.0, 0.0, None, None)
    return StageHistory(
        name, size, "self_fusion" if sources else "scratch", sources, last.step, 1, last.tokens,
        last.flops, last.device_seconds, last.loss, last.loss_per_token, last.accuracy, points,
        status=status, learning_rate={"warmup_steps": 1, "offset": 0, "scale": 1.0},
    )  # fmt: skip


def run_of(*stages):
    return RunHistory(None, {record.name: record for record in stages}, {})


@pytest.mark.parametrize(
    ("accuracies", "goal", "first", "lasting"),
    [
        ((30, 50, 40, 60), 55, 250, 275),  # best 30 50 50 60; the last rise is 40 → 60
        ((30, 50, 40, 60), 45, 75, 225),
        ((30, 40), 40, 100, 100),
        ((50, 60), 40, 0, 0),  # there from the first evaluation on
        ((30, 50, 40), 45, 75, None),  # reached, but not kept
        ((30, 40), 41, None, None),
        ((30, None, 50), 40, 100, 100),  # an evaluation that was not finite is left out
        ((), 40, None, None),
    ],
)
def test_crossings_by_hand(accuracies, goal, first, lasting):
    points = curve(*accuracies)
    for find, step in ((crossings.first_crossing, first), (crossings.lasting_crossing, lasting)):
        crossing = find(points, goal)
        if step is None:
            assert crossing is None
        else:
            assert crossing.step == pytest.approx(step)
            assert crossing.cost.flops == pytest.approx(step * 10.0)
            assert crossing.cost.device_seconds == pytest.approx(step * 2.0)


@pytest.mark.parametrize(
    ("accuracies", "step"),
    [
        ((30, 50, 41), 100 * 10 / 11),  # as 30, 41, 41
        ((30, 50, 35, 41), 200 + 100 * 5 / 6),  # as 30, 35, 35, 41
        ((30, 50, 60), 50),  # no peak
        ((30, 50, 50), 50),
        ((30, 50), 50),  # the last is none
        ((50, 40, 60), 0),  # the first is none
        ((30, 50, 35), None),
        ((30,), None),
    ],
)
def test_crossings_without_a_peak(accuracies, step):
    crossing = crossings.crossing_without_peak(curve(*accuracies), 40)
    assert (crossing and crossing.step) == (step and pytest.approx(step))


def test_ratio_by_hand_counts_every_source_once():
    small = stage("small_0", curve(0, 20, 30, flops=1.0, seconds=0.5), size="S")  # 200, 100
    middle = stage("middle", curve(30, 35, flops=4.0, seconds=1.0), ("small_0", "small_0"), "L")
    big = stage("big", curve(30, 50, flops=10.0, seconds=2.0), ("small_0", "middle"))
    baseline = stage("baseline", curve(0, 20, 40, flops=10.0, seconds=2.0))
    run = run_of(small, baseline, middle, big)
    assert comparisons.ancestors(run, "big") == ("small_0", "middle")
    assert comparisons.cost_before(run, "big") == Cost(200 + 400, 100 + 100)
    (comparison,) = comparisons.compare(run)
    # 40 % is reached half way to step 100: 500 FLOPs, 100 s of its own; the baseline needs 200.
    assert comparison.accuracy == 40
    assert comparison.flops_ratio == pytest.approx((600 + 500) / 2000)
    assert comparison.device_seconds_ratio == pytest.approx((200 + 100) / 400)
    assert comparison.to_dict() == {
        "plan": "big",
        "baseline": "baseline",
        "accuracy": 40,
        "flops_ratio": pytest.approx(0.55),
        "device_seconds_ratio": pytest.approx(0.75),
        "withheld": {},
        "guards": [],
    }


def test_a_source_counts_up_to_the_step_that_was_fused():
    small = stage("small_0", curve(0, 20, 30, flops=1.0, seconds=0.5), size="S")  # 200 steps
    big = dataclasses.replace(
        stage("big", curve(30, 50), ("small_0",)), source_steps={"small_0": 50}
    )
    assert comparisons.cost_before(run_of(small, big), "big") == Cost(50, 25)
    # What another source was fused from later counts too, once.
    middle = stage("middle", curve(30, 35, flops=4.0, seconds=1.0), ("small_0",))
    both = dataclasses.replace(big, sources=("small_0", "middle"))
    run = run_of(small, middle, both)
    assert comparisons.cost_before(run, "big") == Cost(200 + 400, 100 + 100)


def test_repeats_compare_with_the_baseline_of_their_own():
    def repeat(name, number, points, sources=()):
        first = stage(name if number == 1 else f"{name}_r{number}", points, sources)
        return dataclasses.replace(first, repeat=number, repeat_of=name)

    stages = [
        repeat("baseline", 1, curve(0, 40)),
        repeat("baseline", 2, curve(0, 20)),
        repeat("self_fusion", 1, curve(0, 50), ("baseline",)),
        repeat("self_fusion", 2, curve(0, 50), ("baseline_r2",)),
        repeat("self_fusion", 3, curve(0, 50), ("baseline",)),
    ]
    compared = comparisons.compare(run_of(*stages))
    assert [
        (comparison.plan, comparison.baseline, comparison.accuracy) for comparison in compared
    ] == [
        ("self_fusion", "baseline", 40),
        ("self_fusion_r2", "baseline_r2", 20),
    ]


def test_a_baseline_that_stands_still_is_charged_only_up_to_its_goal():
    baseline = stage("baseline", curve(0, 40, 40, 40))
    fused = stage("self_fusion", curve(0, 40), ("free",))
    (comparison,) = comparisons.compare(run_of(stage("free", curve(0), size="S"), baseline, fused))
    assert comparison.flops_ratio == pytest.approx(1.0)


def test_the_goal_is_the_last_evaluation_not_a_lucky_one():
    baseline = stage("baseline", curve(0, 40, 60, 50))
    fused = stage("self_fusion", curve(0, 50), ("free",))
    (comparison,) = comparisons.compare(run_of(stage("free", curve(0), size="S"), baseline, fused))
    assert comparison.accuracy == 50
    # The baseline is there half way to its lucky evaluation; if that were 50, at step 200.
    assert comparison.withheld["flops_ratio"] == pytest.approx(100 / 150)
    assert comparison.withheld["lasting_flops_ratio"] == pytest.approx(100 / 150)
    assert (comparison.flops_ratio, comparison.reason) == (None, "rests on one evaluation")
    assert "it is 0.50 without a peak above both neighbours" in comparison.struck[0].clause


# Down to what an evaluation can count: the cost of a crossing at 5e-324 % is zero.
@given(
    st.lists(st.integers(0, 10**6).map(lambda n: n / 1e4), min_size=2, max_size=30).filter(
        lambda a: a[0] < a[-1]
    ),
    st.floats(1e-3, 1e12),
)
def test_identical_curves_have_ratio_one(accuracies, flops):
    points = curve(*accuracies, flops=flops)
    free = stage("free", curve(0), size="S")
    run = run_of(free, stage("baseline", points), stage("self_fusion", points, ("free",)))
    (comparison,) = comparisons.compare(run)
    assert comparison.struck == ()
    ratios = dataclasses.astuple(comparison)[3:7]
    assert ratios == pytest.approx((1.0,) * 4)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(0, 100))
def test_first_is_never_after_lasting_and_both_lie_on_the_curve(accuracies, goal):
    points = curve(*accuracies)
    first = crossings.first_crossing(points, goal)
    lasting = crossings.lasting_crossing(points, goal)
    assert (first is None) == (max(accuracies) < goal)
    assert (lasting is None) == (accuracies[-1] < goal)
    if lasting is not None:
        assert 0 <= first.step <= lasting.step + 1e-6 <= points[-1].step + 1e-6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"baseline": {"status": history.RUNNING}}, "the baseline is not finished"),
        ({"baseline": {"curve": ()}}, "the baseline has no evaluation"),
        ({"self_fusion": {"sources": ("elsewhere",)}}, "the cost of one of its sources"),
        ({"self_fusion": {"curve": curve(0, 39)}}, "not reached"),
        ({"self_fusion": {"curve": curve(0, 39), "status": history.RUNNING}}, "not reached yet"),
        ({"baseline": {"curve": curve(40)}}, "the baseline's compute is zero"),
    ],
)
def test_no_ratio_without_its_reason(change, reason):
    stages = {
        "small_0": stage("small_0", curve(0, 30), size="S"),
        "baseline": stage("baseline", curve(0, 40)),
        "self_fusion": stage("self_fusion", curve(0, 40), ("small_0",)),
    }
    for name, fields in change.items():
        stages[name] = dataclasses.replace(stages[name], **fields)
    (comparison,) = comparisons.compare(run_of(*stages.values()))
    assert comparison.reason.startswith(reason)
    assert comparison.flops_ratio is None
    assert comparison.device_seconds_ratio is None


def test_nothing_to_compare(tmp_path):
    assert comparisons.compare(run_of(stage("small_0", curve(1), size="S"))) == ()
    run = history.read_run(synthetic.write_run(tmp_path / "w", synthetic.baseline()))
    assert comparisons.compare(run) == ()


def test_a_running_plan_that_is_there_already_has_its_ratio():
    fused = stage("self_fusion", curve(0, 45), ("small_0",), status=history.RUNNING)
    run = run_of(stage("small_0", curve(0), size="S"), stage("baseline", curve(0, 40)), fused)
    (comparison,) = comparisons.compare(run)
    assert comparison.flops_ratio == pytest.approx(40 / 45)
