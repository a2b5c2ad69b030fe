"""Losses on every text of the stages of a plan beyond the paper, from curves made by hand."""

import json

import pytest

from tests.trainers.reports import synthetic
from trainers.errors import UserError
from trainers.reports import head_starts, page
from trainers.reports.experiments import beyond
from trainers.runs import history

ARMS = {
    "domains_first": None,
    "domains_second": None,
    "domains_fused": "fused",
    "domains_alike": "alike",
    "domains_baseline": "baseline",
}
FACTS = {"stages": [*ARMS], "validation": "first text"}


def curve(size, *losses, steps=100):
    """A point of (loss on the first text, on the second) at each multiple of some steps."""
    points = []
    for index, (first, second) in enumerate(losses):
        point = synthetic.point(index * steps, 30.0, size, first)
        numbers = {"loss": 1.0, "loss_per_token": second, "accuracy": 20.0}
        points.append(point | {"validations": {"second text": numbers}})
    return points


def seed(repeat, fused, baseline):
    """The stages of a seed, with the losses that two arms end with."""
    again = f"_r{repeat}" if repeat > 1 else ""
    sources = f"domains_first{again}", f"domains_second{again}"
    fields = {"repeat": repeat}
    yield "domains_first", synthetic.record(sources[0], "S", curve("S", (6, 6), (3, 5)), **fields)
    yield "domains_second", synthetic.record(sources[1], "S", curve("S", (6, 6), (5, 3)), **fields)
    yield (
        "domains_fused",
        synthetic.record(
            f"domains_fused{again}",
            "M",
            curve("M", (4, 4), fused),
            "fusion_property",
            sources,
            **fields,
        ),
    )
    yield (
        "domains_baseline",
        synthetic.record(f"domains_baseline{again}", "M", curve("M", (6, 6), baseline), **fields),
    )


def read(folder, *seeds):
    stages = [record | {"repeat_of": base} for stages in seeds for base, record in stages]
    synthetic.write_run(folder, *stages)
    path = folder / "run.json"
    points = {name: {"arm": arm} for name, arm in ARMS.items()}
    content = json.loads(path.read_text())
    content["experiments"] = {"domains": {"points": points, "facts": FACTS}}
    path.write_text(json.dumps(content))
    return history.read_run(folder)


def test_the_table_has_start_and_end_on_every_text(tmp_path):
    run = read(tmp_path / "w", seed(1, (2.5, 2.75), (2.0, 2.5)), seed(2, (2.0, 2.25), (2.0, 2.0)))
    section = beyond.section(run, "domains")
    chart, table, starts = section.blocks
    keys = [column.key for column in table.columns]
    assert keys[4:] == ["start_0", "end_0", "start_1", "end_1"]
    rows = {row[0].text: [cell.value for cell in row[3:]] for row in table.rows}
    assert [*rows] == ["domains_first", "domains_second", "domains_fused", "domains_baseline"]
    flops = 100 * synthetic.FLOPS_PER_STEP["S"], 100 * synthetic.FLOPS_PER_STEP["M"]
    assert rows["domains_second"] == [flops[0], 6, 5, 6, 3]
    assert rows["domains_fused"] == [2 * flops[0] + flops[1], 4, 2.25, 4, 2.5]
    assert section.paragraphs[0].endswith(
        "not equal here: from 3.90e+11 (domains_baseline) to 6.10e+11 (domains_fused) FLOPs."
    )
    # Fused minus baseline of both seeds, by text: 0.5 and 0, 0.25 and 0.25.
    assert "first text, fused minus baseline at the end, 2 seeds: +0.250 (" in section.paragraphs[1]
    assert (
        "second text, fused minus baseline at the end, 2 seeds: +0.250 (+0.250 to +0.250) of "
        in (section.paragraphs[2])
    )
    # A baseline comes from 6 to 2 in 100 steps; fused models start at 4.
    ((name, *cells),) = starts.rows
    head_start = pytest.approx(flops[1] / 2 - 2 * flops[0])
    assert (name.text, cells[3].value) == ("domains_fused", head_start)
    assert section.paragraphs[-1] == head_starts.DEFINITION
    panels = chart.data["panels"]
    assert [panel["title"] for panel in panels] == ["first text", "second text"]
    (fused,) = [line for line in panels[1]["series"] if line["name"] == "domains_fused"]
    assert (fused["x"], fused["y"]) == ([2 * flops[0], 2 * flops[0] + flops[1]], [4, 2.75])


def test_a_baseline_without_a_validation_set_is_said_to_have_none(tmp_path):
    *others, (base, baseline) = seed(1, (2.5, 2.75), (2.0, 2.5))
    baseline["curve"] = [point | {"validations": {}} for point in baseline["curve"]]
    section = beyond.section(read(tmp_path / "w", [*others, (base, baseline)]), "domains")
    expected = "On second text no fused model can be compared with the baseline, which was not "
    assert section.paragraphs[2].startswith(expected)


def test_a_plan_that_has_only_begun_is_shown(tmp_path):
    (_, first), *_ = seed(1, (1, 1), (1, 1))
    run = read(tmp_path / "w", [("domains_first", first)])
    section = beyond.section(run, "domains")
    assert "no fused model can be compared with the baseline yet" in section.paragraphs[1]
    assert beyond.section(run, "shapes") is None
    report = page.pretraining_report(run)
    assert "Sources of two texts" in [section.title for section in report.sections]
    assert "Arms of plan domains are compared in a section of their own" in " ".join(report.summary)


def test_a_second_text_is_told_in_the_summary(tmp_path):
    run = read(tmp_path / "w", seed(1, (1, 1), (1, 1)))
    second = {"corpus": "text", "corpus_path": "wiki.txt", "corpus_unknown": 0.0}
    run.settings["second_text"] = second
    opening = page.pretraining_report(run).summary[0]
    assert "A second text is the text of wiki.txt (corpus “text”). The vocabulary knows" in opening


def test_numbers_of_a_validation_set_that_are_none_are_refused(tmp_path):
    (_, first), *_ = seed(1, (1, 1), (1, 1))
    first["curve"][0]["validations"]["second text"]["accuracy"] = "high"
    with pytest.raises(UserError, match="numbers of validation sets by name for 'validations'"):
        read(tmp_path / "w", [("domains_first", first)])
