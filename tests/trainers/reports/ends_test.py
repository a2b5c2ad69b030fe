"""Differences of ends at equal compute: by hand, and which seeds have one."""

import json

import pytest

from tests.trainers.reports import synthetic
from trainers import report
from trainers.reports import ends, pictures, summary
from trainers.reports.comparisons import compare
from trainers.reports.headlines import headlines
from trainers.runs import history


def arms(repeat, plain, fused, small_steps=1950):
    """A baseline of 1,100 steps; half of its FLOPs are 1,950 small steps, or 550 big ones."""

    def stage(name, size, steps, end, *sources):
        suffix = "" if repeat == 1 else f"_r{repeat}"
        curve = [synthetic.point(0, 10.0, size), synthetic.point(steps, end, size)]
        sources = tuple(source + suffix for source in sources)
        init = "self_fusion" if sources else "scratch"
        facts = {"repeat": repeat, "repeat_of": name}
        return synthetic.record(name + suffix, size, curve, init, sources, **facts)

    return (
        stage("baseline", "M", 1100, plain),
        stage("small_0", "S", small_steps, 20.0),
        stage("self_fusion", "M", 550, fused, "small_0"),
    )


def headline(folder, *stages):
    run = history.read_run(synthetic.write_run(folder, *stages))
    (told,) = headlines(run, compare(run))
    return told


def test_differences_are_of_the_same_seed(tmp_path):
    told = headline(tmp_path / "w", *arms(1, 40.0, 43.0), *arms(2, 50.0, 47.0)).ends
    # A point is 1/15 nats in `synthetic.point`.
    assert told.accuracies == pytest.approx((3.0, -3.0))
    assert told.losses == pytest.approx((-0.2, 0.2))


def test_the_interval_is_students():
    # t of one degree of freedom: tan(π · 0.95/2) = 12.706; the standard error is 1.
    assert ends.mean_interval([1.0, 3.0]) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)
    assert ends.mean_interval([1.0]) is None
    assert ends.mean_interval([2.0, 2.0, 2.0]) == pytest.approx((2.0, 2.0))


def test_arms_of_unequal_compute_have_none(tmp_path):
    assert headline(tmp_path / "w", *arms(1, 40.0, 43.0, small_steps=2100)).ends is None
    both = headline(tmp_path / "v", *arms(1, 40.0, 43.0, small_steps=2100), *arms(2, 50.0, 51.0))
    assert both.ends.accuracies == pytest.approx((1.0,))
    assert str(both.ends).endswith("accuracy +1.00 points; 1 of 2 seeds.")


def test_the_seeds_that_have_none_are_told(tmp_path):
    diverged = arms(3, 50.0, 51.0)
    diverged[2].update(loss_per_token=None, accuracy=None)
    told = headline(tmp_path, *arms(1, 40.0, 43.0), *arms(2, 50.0, 51.0), *diverged).ends
    assert "; means of 2 of 3 seeds, 95 % intervals." in str(told)
    assert (told.to_dict()["repeats"], told.to_dict()["seeds"]) == ((1, 2), 3)


@pytest.mark.parametrize("decayed", [0, 2])
def test_an_arm_that_alone_has_a_decay_has_no_ends_and_no_ratio(tmp_path, decayed):
    stages = arms(1, 40.0, 43.0)
    stages[decayed]["learning_rate"]["decay_steps"] = 200
    told = headline(tmp_path / "one", *stages)
    assert told.ends is None and not told.stands
    assert "one arm has a decay" in [guard.short for _, guard in told.struck]
    stages[2 - decayed]["learning_rate"]["decay_steps"] = 100
    both = headline(tmp_path / "both", *stages)
    assert both.ends is not None
    assert "one arm has a decay" not in [guard.short for _, guard in both.struck]


def test_the_page_says_it_also_where_there_is_no_ratio(tmp_path):
    folder = synthetic.write_run(tmp_path / "w", *arms(1, 40.0, 37.0), *arms(2, 50.0, 48.5))
    run = history.read_run(folder)
    text = " ".join(summary.summarize(run, compare(run)))
    assert "there is no headline" in text
    # Means of 0.2 and 0.1 nats, of −3 and −1.5 points.
    assert "its end minus the baseline's: loss +0.150 nats per token (−0.485 to +0.785)" in text
    assert "accuracy −2.25 points (−11.78 to +7.28); means of 2 seeds, 95 % intervals" in text


def test_results_json_has_the_differences(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.Picture, "png", lambda picture, theme=None: b"")
    folder = synthetic.write_run(tmp_path / "w", *arms(1, 40.0, 37.0))
    report.main(report.ReportConfig(workdir=(str(folder),)))
    results = json.loads((folder / "report" / "results.json").read_text())
    (told,) = results["headlines"]
    assert told["at_equal_compute"]["accuracies"] == pytest.approx([-3.0])
    page = (folder / "report" / "report.md").read_text()
    assert "where the FLOPs of both arms differ by at most 2 %" in page
    assert told["at_equal_compute"]["accuracies_interval"] is None
