"""Guards on made-up curves, each of which strikes one of them, by hand."""

import dataclasses
import math

import pytest

from tests.trainers.reports.comparisons_test import curve, run_of, stage
from trainers.reports import comparisons, guards, headlines, page
from trainers.runs import history
from trainers.runs.history import Evaluation

FREE = stage("small_0", curve(0, 30), size="S")


def losses(*values, step=100):
    """Evaluations whose losses are given; their accuracies rise by 15 points each."""
    return tuple(
        Evaluation(i * step, i * step, i * step * 10.0, i * step * 2.0, value, 15.0 * i)
        for i, value in enumerate(values)
    )


def compared(baseline, fused, small=FREE, **changes):
    stages = small, stage("baseline", baseline), stage("self_fusion", fused, (small.name,))
    stages = (*stages[:2], dataclasses.replace(stages[2], **changes))
    return run_of(*stages), comparisons.compare(run_of(*stages))


def told(baseline, fused, small=FREE, **changes):
    """The short words of the guards that strike, and the page in Markdown without escapes."""
    run, comparisons = compared(baseline, fused, small, **changes)
    text = page.to_markdown(page.pretraining_report(run)).replace("\\", "")
    return [guard.short for guard in comparisons[0].struck], text


def test_no_guard_strikes_curves_that_learn():
    words, text = told(curve(0, 20, 30, 40), curve(30, 45))
    assert words == []
    # 1000 FLOPs of the source, 2/3 of 1000 of its own, over 3000 of the baseline.
    assert "with 0.56 of the baseline's FLOPs" in text


@pytest.fixture(autouse=True)
def no_pictures_and_no_checkpoints(monkeypatch):
    """The runs of these tests have no folder that heat maps could be read from."""
    monkeypatch.setattr(page, "fused_kernels", lambda *_: ())


def test_a_source_that_reaches_the_goal_alone():
    small = stage("small_0", curve(0, 41, 38), size="S")
    words, text = told(curve(0, 20, 30, 40), curve(35, 45), small)
    assert words == ["a source gets there alone"]
    said = "No ratio is given: small_0, which it comes from, reaches the goal alone (41.00 % "
    assert said + "against 40.00 %)." in text
    assert "of the baseline's FLOPs and" not in text


def test_a_fused_model_that_is_there_before_it_is_trained():
    words, text = told(curve(0, 20, 30, 40), curve(40, 45))
    assert words == ["a source gets there alone"]
    assert "No ratio is given: it, before any training, reaches the goal alone (40.00 % aga" in text
    later = [dataclasses.replace(point, step=point.step + 1) for point in curve(41, 45)]
    assert guards.small_model([FREE], 40, later) is None


def test_a_source_of_a_source_counts_as_well():
    first = stage("small_0", curve(0, 45), size="S")
    middle = stage("middle", curve(20, 30), ("small_0",), "M")
    assert guards.small_model([middle], 40) is None
    struck = guards.small_model([first, middle], 40)
    assert struck.clause.startswith("small_0, which it comes from")
    run = run_of(
        first,
        dataclasses.replace(middle, size="N"),
        stage("baseline", curve(0, 20, 30, 40)),
        stage("self_fusion", curve(30, 45), ("middle",)),
    )
    assert [guard.short for guard in comparisons.compare(run)[0].struck] == [struck.short]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        # Whole falls of 4; the last third falls by 0.02, which is 0.5 %, or by less.
        ((6.0, 3.0, 2.02, 2.0), None),
        ((6.0, 3.0, 2.019, 2.0), "the baseline stands still"),
        ((6.0, 3.0, 2.0, 2.0), "the baseline stands still"),
        ((6.0, 3.0, 2.0, 2.5), "the baseline stands still"),  # the lowest loss counts
        # The unigrams' plateau: the loss falls on it by a few hundredths.
        ((6.7, 3.4, 3.35, 3.33, 3.31, 3.30, 3.295), "the baseline stands still"),
        # It leaves the plateau: a fall of 0.6 after one of 0.1.
        ((6.7, 3.3, 3.2, 2.6), "the baseline leaves a plateau"),
        ((6.7, 3.3, 2.7, 2.3), None),  # it left it a third before
        ((6.0, 5.0, 4.0, 3.0), None),  # as much as before
        ((6.0, 3.0), None),  # two evaluations are one straight line
        ((6.0,), None),
        ((), None),
        ((6.0, None, 3.0, None, 2.0), None),
        ((3.0, 3.5, 4.0, 4.5), "the baseline stands still"),  # it never fell
    ],
)
def test_a_baseline_that_is_not_trained(values, words):
    struck = guards.standing(losses(*values))
    assert (struck and struck.short) == words


def test_the_thirds_of_a_run_lie_between_evaluations():
    # L is 6, 5, 4, 3, 2 at 0, 100 … 400 steps: falls of 4/3 in each third.
    assert guards.standing(losses(6, 5, 4, 3, 2)) is None
    assert guards.standing(losses(6, 5, 4, 3, 1.99)) is None
    assert guards.standing(losses(6, 5, 4, 3, 1.9)).short == "the baseline leaves a plateau"


def test_a_decay_of_the_learning_rate_is_left_out():
    # It learned evenly for 300 steps; any loss falls when the learning rate does.
    decayed = losses(6, 5.3, 4.6, 3.9, 2.0)
    assert guards.standing(decayed).short == "the baseline leaves a plateau"
    assert guards.standing(decayed, decay_steps=100) is None
    stood = losses(6, 3, 3, 3, 2)
    assert guards.standing(stood, decay_steps=100).short == "the baseline stands still"
    baseline = stage("baseline", decayed)
    rate = baseline.learning_rate | {"decay_steps": 100}
    baseline = dataclasses.replace(baseline, learning_rate=rate)
    run = run_of(FREE, baseline, stage("self_fusion", decayed, (FREE.name,)))
    (comparison,) = comparisons.compare(run)
    assert "plateau" not in " ".join(guard.short for guard in comparison.struck)


def test_the_page_says_that_the_baseline_is_not_trained():
    words, text = told(losses(6.7, 3.3, 3.2, 2.6), curve(30, 60))
    assert words == ["the baseline leaves a plateau"]
    said = "No ratio is given: the baseline had only begun to learn: in its last third its loss "
    assert said + "fell by 0.60 nats, in the third before by 0.10." in text
    words, text = told(losses(6.0, 3.0, 2.0, 2.0), curve(30, 60))
    assert words == ["the baseline stands still"]
    assert "its loss fell by 0.000 nats, less than 0.5 % of its whole fall of 4.00." in text


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({}, "not reached", "it did not reach the goal of 40.00 %: its best is 39.00 %."),
        ({"status": history.RUNNING}, "not reached yet", "it has not yet reached the goal of 40"),
        ({"curve": ()}, "not reached", "it did not reach the goal of 40.00 %: it has no evalu"),
    ],
)
def test_a_plan_that_never_gets_there(changes, words, said):
    struck, text = told(curve(0, 20, 30, 40), curve(30, 39, 38), **changes)
    assert struck == [words]
    assert f"No ratio is given: {said}" in text


@pytest.mark.parametrize(
    ("baseline", "fused", "where"),
    [
        # Reached at 50 steps and lost to the end.
        (curve(0, 20, 30, 40), curve(30, 50, 39), "there is none where the goal is kept"),
        # Reached at 50 steps and for good at 250: (1000 + 500) / 3000 and (1000 + 2500) / 3000.
        (curve(0, 20, 30, 40), curve(30, 50, 30, 50), "it is 1.17 where the goal is kept"),
        # Reached at 50 steps by a peak; if that were 41, at 91 steps: (1000 + 909) / 3000.
        (curve(0, 20, 30, 40), curve(30, 50, 41), "it is 0.64 without a peak above both neigh"),
        # The same of the baseline, at 2000 FLOPs and for good at 4000: (1000 + 667) / 4000.
        (curve(0, 20, 40.1, 39, 40), curve(30, 45), "it is 0.42 where the goal is kept"),
    ],
)
def test_a_ratio_that_rests_on_one_evaluation(baseline, fused, where):
    struck, text = told(baseline, fused)
    assert struck == ["rests on one evaluation"]
    assert f"No ratio is given: its ratio rests on one evaluation: {where}" in text


def test_a_peak_that_hardly_matters_is_none_to_speak_of():
    # Reached at 96.2 steps; if the peak were as high as the next evaluation, at 97.1.
    (comparison,) = compared(curve(0, 20, 30, 40), curve(30, 40.4, 40.3, 41))[1]
    assert comparison.struck == ()
    assert guards.wobble(1.0, 1.049, 0.951) is None
    assert guards.wobble(1.0, 1.051, 1.0).short == "rests on one evaluation"
    assert guards.wobble(1.0, 1.0, 0.949).short == "rests on one evaluation"


def test_all_guards_that_strike_are_told():
    small = stage("small_0", curve(0, 46), size="S")
    words, text = told(losses(6.0, 3.0, 2.0, 2.0), curve(30, 39), small)
    assert words == ["not reached", "a source gets there alone", "the baseline stands still"]
    assert "its best is 39.00 %; small_0, which it comes from, reaches" in text


def test_withheld_ratios_are_data_and_no_cells():
    small = stage("small_0", curve(0, 41), size="S")
    run, (comparison,) = compared(curve(0, 20, 30, 40), curve(30, 50), small)
    assert (comparison.flops_ratio, comparison.lasting_flops_ratio) == (None, None)
    assert comparison.to_dict()["withheld"]["flops_ratio"] == pytest.approx((1000 + 500) / 3000)
    assert comparison.to_dict()["guards"] == [comparison.struck[0].clause]
    report = page.pretraining_report(run)
    table = report.blocks(page.tables.Table)[0]
    cells = dict(zip((c.key for c in table.columns), table.rows[0], strict=True))
    for key in ("flops_ratio", "lasting_flops_ratio", "device_seconds_ratio"):
        assert (cells[key].text, cells[key].value) == ("a source gets there alone", None)


def seeds(*ends, goal=40.0):
    """A run with a seed for each end of the fused curve, which starts at 30 with no cost before."""
    stages = []
    for repeat, end in enumerate(ends, start=1):
        for name, points, sources in (
            ("small_0", curve(0), ()),
            ("baseline", curve(0, 20, 30, goal), ()),
            ("self_fusion", curve(30, end), ("small_0",)),
        ):
            suffix = "" if repeat == 1 else f"_r{repeat}"
            sources = tuple(source + suffix for source in sources)
            size = "S" if name == "small_0" else "M"
            made = stage(name + suffix, points, sources, size)
            stages.append(dataclasses.replace(made, repeat=repeat, repeat_of=name))
    return run_of(*stages)


def test_the_interval_is_paired_and_of_the_logarithms():
    # ln 1/2 and ln 1/8 are -ln 2 and -3 ln 2: a mean of -2 ln 2, and a deviation of the mean of
    # ln 2; Student's t with one degree of freedom is tan(0.475 π) = 12.706 at 97.5 %.
    low, high = headlines.paired_interval([1 / 2, 1 / 8])
    t = math.tan(0.475 * math.pi)
    assert (low, high) == pytest.approx((0.25 / 2**t, 0.25 * 2**t))
    assert headlines.paired_interval([0.5]) is None
    assert headlines.paired_interval([0.0, 0.5]) is None
    assert headlines.paired_interval([0.7, 0.7, 0.7]) == pytest.approx((0.7, 0.7))


def test_the_headline_has_mean_deviation_and_interval():
    # 40 % after 1000 · 10/(end - 30) FLOPs, over 3000: ratios of 1/4, 1/5 and 1/6.
    run = seeds(30 + 40 / 3, 30 + 50 / 3, 50)
    (headline,) = headlines.headlines(run, comparisons.compare(run))
    assert headline.ratios("flops") == pytest.approx([0.25, 0.2, 1 / 6])
    result = headline.to_dict()
    assert (result["plan"], result["seeds"], result["guards"]) == ("self_fusion", 3, [])
    mean = (1 / 4 + 1 / 5 + 1 / 6) / 3
    assert result["flops"]["mean"] == pytest.approx(mean)
    # Logarithms of -1.3863, -1.6094, -1.7918: -1.5958 ± 4.3027 · 0.2031 / √3.
    assert result["flops"]["interval"] == pytest.approx((0.1224, 0.3358), abs=1e-4)
    text = page.to_markdown(page.pretraining_report(run))
    assert "With 3 of 3 seeds it reached" in text
    assert "with 0.21 ± 0.03 (95 % interval 0.12 to 0.34) of the baseline's FLOPs" in text
    assert "On average it saved 79 % of the FLOPs and 79 % of the device time." in text
    assert "contains 1" not in text


def test_an_interval_that_contains_1_is_said():
    run = seeds(30 + 40 / 3, 90)
    text = page.to_markdown(page.pretraining_report(run))
    assert "The interval of the FLOPs and of the device time contains 1: these seeds do not" in text


def test_no_headline_where_a_guard_strikes_one_of_the_seeds():
    run = seeds(50, 39, 50)
    (headline,) = headlines.headlines(run, comparisons.compare(run))
    assert not headline.stands
    result = headline.to_dict()
    assert (result["flops"], result["device_seconds"]) == (None, None)
    assert [guard["stage"] for guard in result["guards"]] == ["self_fusion_r2"]
    text = page.to_markdown(page.pretraining_report(run)).replace("\\", "")
    assert "It has a ratio with 2 of 3 seeds (0.17 of the baseline's FLOPs), so there is no" in text
    assert "no headline. self_fusion_r2: it did not reach the goal of 40.00 %: its best" in text
    assert "On average" not in text
