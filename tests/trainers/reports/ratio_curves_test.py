"""The ratio of compute over the accuracy reached, against values computed by hand."""

import dataclasses

import pytest

from tests.trainers.reports.comparisons_test import curve, run_of, stage
from trainers.reports import comparisons, openings, page, ratio_curves
from trainers.reports.crossings import Cost
from trainers.reports.pictures import DARK, Picture

BASELINE = curve(0, 20, 40)  # 10 FLOPs and 2 device-seconds per step, 20 % per 100 steps
FUSED = curve(30, 50)


def test_ratios_by_hand():
    # The baseline is at 30 % after 1500 FLOPs and 300 s, at 35 % after 1750 and 350, at 40 % after
    # 2000 and 400. The plan adds 0, 250 and 500 FLOPs, 0, 50 and 100 s to 600 and 200.
    ratios = ratio_curves.ratio_curve(Cost(600, 200), FUSED, BASELINE, [30, 35, 40])
    assert ratios["flops"] == pytest.approx([600 / 1500, 850 / 1750, 1100 / 2000])
    assert ratios["device_seconds"] == pytest.approx([200 / 300, 250 / 350, 300 / 400])


def test_what_an_arm_does_not_reach_or_has_for_nothing_has_no_ratio():
    ratios = ratio_curves.ratio_curve(Cost(600, 200), FUSED, BASELINE, [0, 45, 55])
    assert ratios["flops"] == [None, None, None]


def test_the_running_best_counts():
    # 30, 50, 40, 60 has the running best 30, 50, 50, 60: 55 after 250 steps.
    wobbling = curve(30, 50, 40, 60)
    ratios = ratio_curves.ratio_curve(Cost(), wobbling, curve(0, 100), [45, 50, 55])
    assert ratios["flops"] == pytest.approx([75 / 45, 100 / 50, 250 / 55])


@pytest.mark.parametrize(
    ("plan", "baseline", "ends"),
    [
        (FUSED, BASELINE, (30, 40)),
        (curve(30, 35), BASELINE, (30, 35)),
        (curve(30, 25, 38), BASELINE, (30, 38)),
        (curve(45, 50), BASELINE, None),  # it begins above all that the baseline reached
        (curve(30), BASELINE, None),
        ((), BASELINE, None),
    ],
)
def test_the_accuracies_that_both_reached(plan, baseline, ends):
    assert ratio_curves.shared_range(plan, baseline) == ends


def seeds(*ends):
    """Seeds whose fused curves end where `ends` say; sources cost 1000 FLOPs and end at 32 %."""
    stages = []
    for repeat, end in enumerate(ends, start=1):
        for name, size, points, sources in (
            ("small_0", "S", curve(0, 32), ()),
            ("baseline", "M", BASELINE, ()),
            ("self_fusion", "M", curve(30, end), ("small_0",)),
        ):
            suffix = "" if repeat == 1 else f"_r{repeat}"
            made = stage(name + suffix, points, tuple(s + suffix for s in sources), size)
            stages.append(dataclasses.replace(made, repeat=repeat, repeat_of=name))
    return run_of(*stages)


def curves_of(run):
    return ratio_curves.ratio_curves(run, comparisons.compare(run))


def test_one_seed_has_no_deviation_and_ends_at_the_headline():
    run = seeds(50)
    (curve,) = curves_of(run)
    assert (curve["stage"], curve["seeds"], curve["sources"]) == ("self_fusion", 1, 32)
    assert (curve["accuracy"][0], curve["accuracy"][-1]) == (30, 40)
    assert len(curve["accuracy"]) == len(curve["flops"]["mean"]) == ratio_curves.POINTS
    assert curve["flops"]["mean"][0] == pytest.approx(1000 / 1500)
    (compared,) = comparisons.compare(run)
    assert curve["flops"]["mean"][-1] == pytest.approx(compared.flops_ratio)
    assert set(curve["flops"]["deviation"]) == {0.0}


def test_seeds_have_a_mean_and_a_deviation_where_all_are_there():
    # 35 % costs 1000 + 250 FLOPs with the first seed and 1000 + 1000 with the second, which ends
    # there: the curve does too. The baseline needs 1750.
    (curve,) = curves_of(seeds(50, 35))
    assert curve["accuracy"][-1] == 35
    assert curve["flops"]["mean"][-1] == pytest.approx(1625 / 1750)
    assert curve["flops"]["deviation"][-1] == pytest.approx(375 / 1750)


def test_nothing_in_common_has_no_curve():
    assert curves_of(seeds(50, 29)) == []
    assert curves_of(run_of(stage("baseline", BASELINE))) == []


@pytest.fixture
def no_heat_maps(monkeypatch):
    """The runs of these tests have no folder that heat maps could be read from."""
    monkeypatch.setattr(page, "fused_kernels", lambda *_: ())


def test_a_report_begins_with_accuracy_over_compute_and_the_ratio(no_heat_maps):
    report = page.pretraining_report(seeds(50, 45))
    first, second = report.blocks(Picture)[:2]
    assert [p.key for p in (first, second)] == ["accuracy_over_compute", "ratio_over_accuracy"]
    lines = {line["stage"]: line for line in first.data["panels"][0]["series"]}
    assert lines["self_fusion"]["x"][0] == 1000
    assert lines["baseline"]["x"][0] == 0
    for text in (page.to_markdown(report), page.to_html(report)):
        headline = text.index("T5 models were trained")
        assert text.index(first.title) < text.index(second.title) < headline
        assert headline < text.index("Compute needed to reach")
    figure = second.figure()
    assert [axes.get_xlabel() for axes in figure.axes] == ["Accuracy reached, %"] * 2
    # A band, the line of the plan, the line at 1, and the end of the source.
    assert len(figure.axes[0].collections) == 1
    assert len(figure.axes[0].lines) == 3
    assert second.png(DARK).startswith(b"\x89PNG")


def test_a_run_without_a_comparison_begins_with_its_curves():
    run = run_of(stage("baseline", BASELINE))
    assert [p.key for p in openings.opening(run, ())] == ["accuracy_over_compute"]
    assert openings.opening(run_of(stage("baseline", ())), ()) == ()
