"""Gains at equal compute: ratios, intervals and pictures of curves that are straight lines."""

import json

import pytest

from tests.trainers.reports import synthetic
from tests.trainers.reports.repeats_test import stage
from trainers.reports import comparisons, headlines, page
from trainers.reports.experiments import gains
from trainers.runs import history


def point(arm, budget=1, scale=1.0):
    return {"arm": arm, "budget": budget, "warmup_steps": 100, "learning_rate_scale": scale}


def seed(repeat, *ends, budget=1):
    """Reference from 0 to 40 %, small model to 30 %, fused arms from there to their ends."""
    name = f"_b{budget}"
    steps = 1000 * budget
    yield stage(f"base{name}", "M", steps, 0, 40.0, repeat=repeat)
    yield stage("small", "S", 1000, 0, 30.0, repeat=repeat)
    for number, end in enumerate(ends):
        arm = f"arm{number}{name}"
        yield stage(arm, "M", steps, 30, end, "self_fusion", ("small",), repeat)


def read(folder, stages, points):
    synthetic.write_run(folder, *stages)
    path = folder / "run.json"
    content = json.loads(path.read_text())
    content["experiments"] = {"gains": {"points": points, "facts": {}}}
    path.write_text(json.dumps(content))
    return history.read_run(folder)


@pytest.fixture
def run(tmp_path):
    """Two seeds at one budget, of which the second arm has one."""
    points = {
        "base_b1": point("baseline"),
        "base_worse": point("baseline", scale=2.0),
        "arm0_b1": point("mlp"),
        "arm1_b1": point("net2net"),
        "small": {"on_the_way": True},
    }
    worse = stage("base_worse", "M", 1000, 0, 20.0)
    stages = [*seed(1, 50.0, 35.0), *seed(2, 60.0), worse]
    return read(tmp_path / "w", stages, points)


def cells(table, arm, budget="1 ×"):
    """The cells of an arm at a budget, by column."""
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for row in table.rows]
    (only,) = [row for row in rows if (row["arm"].text, row["budget"].text) == (arm, budget)]
    return only


# FLOPs: a step of S costs 1.1, one of M 3.9; the reference spends 3900 for 40 %.
FIRST = (1100 + 3.9 * 500) / 3900  # 40 % after half of the way from 30 to 50
SECOND = (1100 + 3.9 * 1000 / 3) / 3900  # and after a third of that to 60


def test_compute_that_is_not_equal_is_told(run, tmp_path):
    """Here arms have a small model beside as many steps as the reference."""
    told = " It is not equal here: from 3.90e+12 (base_b1) to 5.00e+12 (arm1_b1) FLOPs."
    assert gains.section(run).paragraphs[0].endswith(told)
    points = {"base_b1": point("baseline"), "base_2": point("baseline_adamw")}
    stages = [
        stage(name, "M", steps, 0, 40.0) for name, steps in (("base_b1", 1000), ("base_2", 1000))
    ]
    alike = gains.section(read(tmp_path / "alike", stages, points))
    assert "not equal" not in " ".join(alike.paragraphs)


def test_decays_that_are_not_equal_are_told(tmp_path):
    """As after two commands, the second one with another --gains_decay."""
    points = {"base_b1": point("baseline"), "base_2": point("baseline_adamw")}

    def told(folder, decay_steps):
        rate = {"warmup_steps": 300, "offset": 0, "scale": 1.0}
        stages = [
            stage(name, "M", 1000, 0, 40.0, learning_rate=rate | {"decay_steps": steps})
            for name, steps in (("base_b1", 200), ("base_2", decay_steps))
        ]
        return gains.section(read(tmp_path / folder, stages, points)).paragraphs[0]

    assert " is not equal: from 20 % (base_b1) to 50 % (base_2). " in told("w", 500)
    assert "not equal" not in told("alike", 210)


def test_ratios_by_hand(run):
    table = gains.section(run).blocks[0]
    better = cells(table, "mlp")
    assert better["flops_ratio"].value == pytest.approx((FIRST + SECOND) / 2)
    low, high = headlines.paired_interval([FIRST, SECOND])
    assert better["interval"].text == f"{low:.2f} to {high:.2f}"
    assert better["seeds"].value == 2
    assert better["flops"].value == pytest.approx(5e12)
    # It ends at 35 %, which the reference has after 875 steps.
    worse = cells(table, "net2net")
    assert worse["flops_ratio"].value == pytest.approx(5000 / (3.9 * 875))
    assert worse["interval"].text == "one seed"
    assert cells(table, "baseline")["flops_ratio"].value == pytest.approx(1.0)
    assert [row[1].text for row in table.rows] == ["mlp", "baseline", "net2net"]


def test_a_reference_that_restarted_has_spent_what_it_comes_from(tmp_path):
    """The big model to 20 % in 500 of 1,000 steps, then from there to 45 % in 500 of its own."""
    again = stage("again", "M", 500, 20, 45.0, "restarted", ("whole",), source_steps={"whole": 500})
    points = {
        "base_b1": point("baseline"),
        "again": point("restarted_50"),
        "arm0_b1": point("mlp"),
        "whole": {"on_the_way": True},
    }
    run = read(tmp_path / "w", [*seed(1, 50.0), stage("whole", "M", 1000, 0, 40.0), again], points)
    section = gains.section(run)
    table, starts = section.blocks
    assert any("against restarted_50" in text for text in section.paragraphs)
    assert cells(table, "restarted_50")["flops_ratio"].value == pytest.approx(1.0)
    # 45 % after three quarters of the way from 30 to 50.
    ratio = cells(table, "mlp")["flops_ratio"].value
    assert ratio == pytest.approx((1100 + 3.9 * 750) / 3900)
    # It has the 30 % of the small model after 200 steps of its own.
    (row,) = [row for row in starts.rows if row[0].text == "mlp, 1 ×"]
    assert row[3].value == pytest.approx(700 * 3.9e9)
    assert row[5].value == pytest.approx(100 * (700 * 3.9 - 1100) / 3900)
    # Without what it restarted from its cost is not known, and no ratio is told.
    del run.stages["whole"]
    (table,) = gains.section(run).blocks
    assert cells(table, "mlp")["flops_ratio"].value is None


def test_what_was_lost_again_does_not_count(tmp_path):
    """An arm that starts above the reference's end and falls below it has spent its budget."""
    falls = stage("arm0_b1", "M", 1000, 45.0, 35.0, "self_fusion", ("small",))
    points = {"base_b1": point("baseline"), "arm0_b1": point("mlp")}
    run = read(tmp_path / "w", [*seed(1), falls], points)
    cell = cells(gains.section(run).blocks[0], "mlp")["flops_ratio"]
    assert cell.value == pytest.approx(5000 / (3.9 * 875))
    assert "there already" in cell.note


def test_the_candidate_with_all_seeds_and_the_lowest_loss_counts(run):
    results = {result.arm: result for result in gains.results(run)}
    assert results["baseline"].point["learning_rate_scale"] == 1.0
    assert sorted(results["baseline"].seeds) == [1, 2]
    assert results["baseline"].is_edge and not results["mlp"].is_edge


def test_conclusions_follow_the_intervals(run):
    *_, text = gains.section(run).paragraphs
    assert text.startswith("Budget 1 ×, against baseline: ")
    low, high = headlines.paired_interval([FIRST, SECOND])
    words = "saved compute" if high < 1 else "within noise"
    assert low < 1 and f"{words}: mlp" in text
    assert "one seed, so unknown: net2net" in text


def test_arms_without_a_reference_are_told(tmp_path):
    points = {"base_b3": point("baseline", 3), "arm0_b1": point("mlp"), "arm1_b1": point("heads")}
    told = "Budget 1 ×: mlp, heads, with nothing from random weights to compare with yet."
    stages = list(seed(1, 50.0, 35.0))
    assert gains.section(read(tmp_path / "v", stages, points)).paragraphs == (told,)
    run = read(tmp_path / "w", [*stages, stage("base_b3", "M", 3000, 0, 40.0)], points)
    assert gains.section(run).paragraphs[-1] == told


def test_models_that_stay_smaller_are_no_ways_to_the_big_one(tmp_path):
    points = {"base_b1": point("baseline"), "half": point("half_alone"), "arm0_b1": point("mlp")}
    halves = [stage("half", "M", 500, 0, 45.0, repeat=repeat) for repeat in (1, 2)]
    run = read(tmp_path / "w", [*seed(1, 50.0), *seed(2, 60.0), *halves], points)
    *_, text = gains.section(run).paragraphs
    ways, _, alone = text.partition(" Models that stay smaller: ")
    assert "mlp" in ways and "half_alone" not in ways
    assert alone.startswith("saved compute: half_alone. Where one of them saves compute,")


def test_the_picture_has_a_band_over_seeds_for_each_arm(tmp_path):
    points = {
        f"{name}_b{budget}": point(arm, budget)
        for name, arm in (("base", "baseline"), ("arm0", "mlp"))
        for budget in (1, 3)
    }
    stages = [
        made
        for budget in (1, 3)
        for repeat, end in ((1, 50.0), (2, 60.0))
        for made in seed(repeat, end, budget=budget)
    ]
    run = read(tmp_path / "w", stages, points)
    picture, table, starts = gains.section(run).blocks
    (curve,) = picture.data["curves"]
    assert (curve["stage"], curve["x"]) == ("mlp", (1, 3))
    assert (curve["low"][0], curve["high"][0]) == pytest.approx((SECOND, FIRST))
    assert curve["y"][1] == pytest.approx(
        sum((1100 + 3.9 * 3000 * part) / (3 * 3900) for part in (1 / 2, 1 / 3)) / 2
    )
    assert picture.png().startswith(b"\x89PNG")
    assert cells(table, "mlp", "3 ×")["seeds"].value == 2
    # Over the larger baseline, which needs 2,250 steps for the 30 % of 1,000 small ones.
    assert [row[0].text for row in starts.rows] == ["mlp, 1 ×", "mlp, 3 ×"]
    assert starts.rows[0][4].value == pytest.approx((2250 * 3.9 - 1000 * 1.1) * 1e9)


def test_arms_are_no_plans_of_the_comparison(run):
    assert comparisons.variations(run) >= {"arm0_b1", "base_b1", "small"}
    report = page.pretraining_report(run)
    assert report.sections[0].title == "Gains at equal compute"
    assert "Learning curves" not in [section.title for section in report.sections]
    assert "compared in a section of their own" in " ".join(report.summary)


def test_without_the_plan_there_is_no_section(tmp_path):
    assert gains.section(read(tmp_path / "w", seed(1), {})) is None
