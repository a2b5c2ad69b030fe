"""The sections of experiments that vary one stage, with figures that can be worked out by hand."""

import dataclasses
import json
import math

import pytest

from tests.trainers.reports import synthetic
from tests.trainers.reports.repeats_test import stage
from tests.trainers.reports.stage_tables_test import row
from trainers.reports import experiments, page, pictures
from trainers.reports.experiments import advice, budgets, noise_levels, offsets, theory_terms
from trainers.runs import history

SMALL = stage("small_0", "S", 1000, 0, 30)
UP = {"init": "self_fusion", "sources": ("small_0",)}


def write(folder, plan, stages, points, facts=None, logs=None):
    """A run with one experiment; `logs` are lines of metrics.jsonl by stage."""
    synthetic.write_run(folder, SMALL, *stages)
    content = json.loads((folder / "run.json").read_text())
    content["experiments"] = {plan: {"points": points, "facts": facts or {}}}
    (folder / "run.json").write_text(json.dumps(content))
    for name, lines in (logs or {}).items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / "metrics.jsonl").write_text(text)
    return history.read_run(folder)


def fused(name, end, steps=500, start=30.0, repeat=1, **changes):
    return stage(name, "M", steps, start, end, UP["init"], UP["sources"], repeat, **changes)


def rate(offset):
    return {"warmup_steps": 100, "offset": offset, "scale": 1.0}


THEORY = dict.fromkeys(
    ("bracket", "bracket_theta", "bracket_eta", "first_loss", "second_loss"), 1.0
) | dict.fromkeys(("first_flatness", "second_flatness", "seconds"), 0.5)


@pytest.fixture
def with_offsets(tmp_path):
    ends = {-50: 46.0, 0: 45.0, 50: 44.0}
    names = {offset: f"offset_{offset}" for offset in ends}
    logs = {
        names[offset]: [
            {
                "kind": "theory",
                "step": step,
                "bracket_drift": (100 - offset) / 1000,
                "eta_share": 0.1 + step / 1000,
                "total_seconds": 3.0 + step / 250,
                **THEORY,
            }
            for step in (0, 250, 500)
        ]
        for offset in ends
    }
    stages = [fused(names[offset], end, learning_rate=rate(offset)) for offset, end in ends.items()]
    points = {names[offset]: {"offset": offset} for offset in reversed(ends)}
    return write(tmp_path / "w", "offsets", stages, points, logs=logs)


def test_offsets_stand_in_their_order(with_offsets):
    section = offsets.section(with_offsets)
    picture, table = section.blocks
    names = [line["name"] for line in picture.data["panels"][0]["series"]]
    assert names == ["offset -50", "offset 0", "offset +50"]
    assert [r[0].value for r in table.rows] == [-50, 0, 50]
    assert row(table, "-50")["end"] == "46.00"
    assert row(table, "-50")["eta_share"] == "0.60"
    assert "-50 (46.00 %), +0 (45.00 %), +50 (44.00 %); 2.00 points apart" in section.paragraphs[1]


def test_offsets_of_several_seeds_are_compared_within_each(tmp_path):
    ends = {-50: (46.0, 42.0), 0: (45.0, 40.0), 50: (50.0,)}
    stages = [
        fused(f"offset_{offset}", end, repeat=repeat, learning_rate=rate(offset))
        for offset, accuracies in ends.items()
        for repeat, end in enumerate(accuracies, start=1)
    ]
    points = {f"offset_{offset}": {"offset": offset} for offset in ends}
    section = offsets.section(write(tmp_path / "w", "offsets", stages, points))
    cells = row(section.blocks[1], "-50")
    assert (cells["end"], cells["above_0"], cells["seeds"]) == ("44.00 ± 2.00", "1.50 ± 0.50", "2")
    # +50 has one seed: its mean does not compare with those of two.
    assert (
        "over 2 seeds, from the best to the worst end: -50 (44.00 %), +0" in (section.paragraphs[1])
    )


def test_the_learning_rate_is_that_of_section_5_4(with_offsets):
    shift = with_offsets.stages["offset_-50"]
    assert offsets.rate(shift, 0) == pytest.approx(1 / math.sqrt(100))
    assert offsets.rate(shift, 500) == pytest.approx(1 / math.sqrt(450))
    assert offsets.rate(with_offsets.stages["offset_50"], 100) == pytest.approx(1 / math.sqrt(150))


def test_what_is_lost_at_first():
    def curve(*accuracies):
        return [history.Evaluation(i, 0, 0, 0, 1.0, value) for i, value in enumerate(accuracies)]

    assert offsets.dip(curve(40.0, 38.0, 39.0, 41.0)) == (40.0, 38.0, 3)
    assert offsets.dip(curve(40.0, 38.0, 39.0)) == (40.0, 38.0, None)
    assert offsets.dip(curve(40.0, 42.0, 43.0)) == (40.0, 42.0, 1)
    assert offsets.dip(curve(40.0)) == (40.0, None, None)


def test_the_theory_beside_the_offsets(with_offsets):
    section = theory_terms.section(with_offsets)
    _, table = section.blocks
    assert row(table, "-50")["drift"] == "0.15"
    assert row(table, "+50")["seconds"] == "5.0"
    # The drift falls with the offset, and so does the accuracy.
    assert "+1.00 over 3 offsets" in section.paragraphs[1]
    assert "the order is as the bracket would predict" in section.paragraphs[1]


@pytest.mark.parametrize(
    ("drifts", "accuracies", "words"),
    [
        # Two of the 120 orders are as far from none.
        ([1, 2, 3, 4, 5], [2, 3, 5, 7, 9], "+1.00 over 5 offsets (p = 0.02)"),
        ([1, 2, 3, 4], [4, 3, 2, 1], "the order is against what it would predict"),
        ([1, 2, 3, 4], [2, 4, 1, 3], "does not explain"),
        ([1, 2, 3, 4], [1, 4, 2, 3], "leans as the bracket would predict, not clearly"),
        ([1, 2], [1, 2], "Too few"),
        ([1, 2, 3], [5, 5, 5], "Too few"),
        ([1, 2, 3], [1, None, 2], "Too few"),
    ],
)
def test_what_the_bracket_explains(drifts, accuracies, words):
    assert words in theory_terms.explains(drifts, accuracies)


def test_noise(tmp_path):
    ends = {"noise_0": (2.5, 2.7), "noise_balanced_5e-1": (2.3, 2.6), "noise_gaussian_2e-2": (2.4,)}
    stages = [
        fused(
            name,
            40.0 + repeat,
            start=27.0 + repeat,
            repeat=repeat,
            loss_per_token=loss,
        )
        for name, losses in ends.items()
        for repeat, loss in enumerate(losses, start=1)
    ]
    points = {
        "noise_0": {"noise": 0.0, "noise_kind": None},
        "noise_balanced_5e-1": {"noise": 0.5, "noise_kind": "balanced"},
        "noise_gaussian_2e-2": {"noise": 0.02, "noise_kind": "gaussian"},
    }
    logs = {
        "noise_0": [{"kind": "eval", "symmetry": 0.0, **synthetic.point(0, 30.0)}],
        "noise_balanced_5e-1": [
            {"kind": "eval", "symmetry": value, **synthetic.point(step, 30.0)}
            for step, value in ((0, 0.2), (500, 0.9))
        ],
    }
    run = write(tmp_path / "w", "zero_blocks", stages, points, logs=logs)
    section = noise_levels.section(run)
    picture, table = section.blocks
    lines = [line["y"] for line in picture.data["panels"][1]["series"]]
    assert lines == [[0.0], [0.2, 0.9], []]
    cells = row(table, "balanced")
    assert (cells["sigma"], cells["start"], cells["end"]) == ("0.5", "28.50 ± 0.50", "41.50 ± 0.50")
    # Seed by seed 0.2 and 0.1 below no noise.
    assert (cells["gain"], cells["seeds"]) == ("0.1500 ± 0.0500", "2")
    assert (cells["distance_start"], cells["distance_end"]) == ("0.2000", "0.9000")
    assert row(table, "gaussian")["gain"] == "0.1000"
    assert "Fewer than two noises" in section.paragraphs[1]


def test_the_best_noise_is_that_of_most_seeds(tmp_path):
    losses = {"noise_0": 2.5, "noise_gaussian_2e-2": 2.4, "noise_gaussian_5e-1": 2.45}
    stages = [fused(name, 40.0, loss_per_token=loss) for name, loss in losses.items()]
    points = {
        name: {"noise": sigma, "noise_kind": "gaussian" if sigma else None}
        for name, sigma in zip(losses, (0.0, 0.02, 0.5), strict=True)
    }
    section = noise_levels.section(write(tmp_path / "w", "zero_blocks", stages, points))
    assert (
        "Over 1 seed, most below a run without noise at the end: gaussian 0.02 (loss +0.1000"
        in (section.paragraphs[1])
    )


BUDGETS = {"budgets": [1e12, 2e12], "unit": "flops", "step_cost": {"S": 1.0, "M": 4.0}}


def budget_run(folder, *more):
    stages = [fused("fuse_at_500", 50.0), fused("fuse_at_900", 44.0), *more]
    points = {
        "fuse_at_500": {"fusion_step": 500, "steps": [250, 500]},
        "fuse_at_900": {"fusion_step": 900, "steps": [None, 450]},
    }
    return write(folder, "when_to_fuse", stages, points, BUDGETS)


def test_accuracy_when_the_budget_is_spent(tmp_path):
    section = budgets.section(budget_run(tmp_path / "w"))
    picture, table = section.blocks
    first, second = picture.data["panels"][0]["series"]
    # From 30 to 50 and from 30 to 44 in 500 steps.
    assert (first["x"], first["y"]) == ([500, 900], [pytest.approx(40.0), None])
    assert second["y"] == [pytest.approx(50.0), pytest.approx(42.6)]
    assert row(table, "1.00e+12 FLOPs")["step_900"] == "over budget"
    assert "2.00e+12 FLOPs: best when fused at step 500 (50.00 %); its" in section.paragraphs[2]
    assert "fewer than two" in section.paragraphs[1]


def test_budgets_of_runs_of_their_own_stand_beside_one_another(tmp_path):
    stages = [fused("fuse_at_500_for_250", 41.0), fused("fuse_at_500_for_500", 50.0)]
    points = {
        "fuse_at_500_for_250": {"fusion_step": 500, "steps": [250, None]},
        "fuse_at_500_for_500": {"fusion_step": 500, "steps": [None, 500]},
    }
    run = write(tmp_path / "w", "when_to_fuse", stages, points, BUDGETS)
    section = budgets.section(run)
    first, second = section.blocks[0].data["panels"][0]["series"]
    # The first run is on its way from 30 to 41 in 500 steps.
    assert (first["x"], first["y"], second["y"]) == ([500], [pytest.approx(35.5)], [50.0])
    assert "a run of its own" in section.paragraphs[0]


def test_the_noise_of_evaluations_is_what_is_not_smooth():
    def bumpy(bump):
        points = [
            history.Evaluation(step, 0, 0, 0, 1.0, 30 + step**2 / 1e4 + bump * (-1) ** index)
            for index, step in enumerate(range(0, 2001, 100))
        ]
        return history.StageHistory("a", "M", "scratch", (), 2000, *[None] * 7, tuple(points))

    assert budgets.evaluation_noise([bumpy(0.0)]) == pytest.approx(0, abs=1e-9)
    # A wobble of ±0.5 around the parabola.
    assert budgets.evaluation_noise([bumpy(0.5)]) == pytest.approx(0.5, rel=0.25)
    assert budgets.evaluation_noise([]) is None


def test_a_decay_is_no_noise():
    """A straight line that bends where the learning rate begins to fall."""
    points = [
        history.Evaluation(step, 0, 0, 0, 1.0, 30 + step / 100 + max(0, step - 1600) / 20)
        for step in range(0, 2001, 100)
    ]
    bent = history.StageHistory("a", "M", "scratch", (), 2000, *[None] * 7, tuple(points))
    assert budgets.evaluation_noise([bent]) > 0.5
    decayed = dataclasses.replace(bent, learning_rate={"decay_steps": 400})
    assert budgets.evaluation_noise([decayed]) == pytest.approx(0, abs=1e-9)


def test_seeds_give_the_spread_where_there_are_any(tmp_path):
    again = fused("fuse_at_500", 46.0, repeat=2)
    run = budget_run(tmp_path / "w", stage("small_0", "S", 1000, 0, 30, repeat=2), again)
    picture, table = budgets.section(run).blocks
    second = picture.data["panels"][0]["series"][1]
    assert second["y"][0] == pytest.approx(48.0)
    assert second["error"][0] == pytest.approx(2.0)
    assert row(table, "2.00e+12 FLOPs")["step_500"] == "48.00 ± 2.00"
    assert "over seeds" in picture.caption


def test_steps_that_are_as_good_within_the_noise(tmp_path):
    def ended(at_900):
        ends = {500: (50.0, 46.0), 900: (at_900, at_900)}
        stages = [
            fused(f"fuse_at_{step}", end, repeat=repeat)
            for step, pair in ends.items()
            for repeat, end in enumerate(pair, start=1)
        ]
        points = {f"fuse_at_{step}": {"fusion_step": step, "steps": [500]} for step in ends}
        again = stage("small_0", "S", 1000, 0, 30, repeat=2)
        folder = tmp_path / str(at_900)
        facts = BUDGETS | {"budgets": [1e12]}
        run = write(folder, "when_to_fuse", [again, *stages], points, facts)
        return budgets.section(run).paragraphs[1]

    # Two standard errors of a difference: 2 √2 · 2 points.
    assert "as good within two standard errors: 900" in ended(43.0)
    assert "no other is as good" in ended(42.0)


def test_no_advice_from_curves_that_say_nothing(tmp_path):
    section = advice.section(budget_run(tmp_path / "w"))
    assert "There is no advice from this run yet: Expected curves from" in section.paragraphs[0]


def test_the_advice_is_put_to_the_test(tmp_path):
    stages = synthetic.small(steps=4000), synthetic.baseline(), synthetic.fused()
    plans = {"when_to_fuse": {"points": {}, "facts": BUDGETS}}
    run = history.read_run(synthetic.write_run(tmp_path / "w", *stages, experiments=plans))
    (table,) = advice.section(run).blocks
    assert [cells[2].text for cells in table.rows] == ["1", "2", "2", "2", "0", "1"]
    assert table.rows[-1][-2].text == "100.00"


def test_runs_without_experiments_have_no_sections(tmp_path):
    run = history.read_run(synthetic.full_run(tmp_path / "w"))
    assert experiments.sections(run) == ()


def test_the_report_has_the_sections_as_data(with_offsets):
    report = page.pretraining_report(with_offsets)
    results = json.loads(page.to_json(report))
    assert {"offsets", "theory"} <= set(results["tables"])
    assert {"figure7_offsets", "theory"} <= set(results["figures"])
    shown = {picture.key: picture for picture in report.blocks(pictures.Picture)}
    assert len(shown["figure7_offsets"].png()) > 1_000


@pytest.mark.parametrize("theme", [pictures.LIGHT, pictures.DARK], ids=lambda theme: theme.name)
def test_a_chart_draws_what_is_missing_as_gaps(theme):
    lines = [
        {"name": "a", "x": [0, 1, 2], "y": [1.0, None, 3.0], "error": [0.1, None, 0.1]},
        {"name": "b", "x": [], "y": []},
    ]
    panels = [pictures.panel("one", "x", "y", lines, "log"), pictures.panel("two", "x", "y", lines)]
    figure = pictures.chart("k", "t", "c", "a", panels).figure(theme)
    first = figure.axes[0]
    assert first.get_yscale() == "log"
    assert math.isnan(first.lines[0].get_ydata()[1])
    assert len({line.get_color() for line in first.lines[:2]}) == 2


def test_page_sections_have_titles_of_their_own(with_offsets):
    titles = [section.title for section in page.pretraining_report(with_offsets).sections]
    assert len(set(titles)) == len(titles)
