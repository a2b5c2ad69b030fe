"""The report of fine-tunings as files, Figure 3, and the program."""

import json
import re

import pytest

from glue import report, results
from glue.reports import figure3, glue_page, score_tables
from tests.glue import recorded
from tests.trainers import nano
from tests.trainers.reports import synthetic
from tests.trainers.reports.tables_test import cells_of
from trainers.errors import UserError
from trainers.reports.pictures import DARK


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fine-tunings of three models, on GLUE and on synthetic tasks, and the run that made them."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    synthetic.full_run(folder / "w")
    for repeat in range(2):
        for model, steps in (("baseline", 0), ("baseline", 4800), ("self_fusion", 0)):
            recorded.write_run(folder / "g", model, steps, ["cola", "rte"], repeat)
    recorded.write_run(
        folder / "g", "self_fusion", 3000, ["rte", "synthetic_similarity"], command="<b>&</b>"
    )
    return folder


@pytest.fixture(scope="module")
def written(folder):
    """Folder of the report."""
    path, _ = glue_page.write_report(folder / "g", folder / "w")
    return path.parent


def test_all_files_are_there(written):
    assert {path.name for path in written.iterdir()} == {
        "report.html", "report.md", "results.json", "tables.tex", "figure3.png"
    }  # fmt: skip


def test_html_and_results_have_the_same_cells(written):
    html = (written / "report.html").read_text(encoding="utf-8")
    assert "<b>&</b>" not in html and "&lt;b&gt;" in html and "<script" not in html
    tables = json.loads((written / "results.json").read_text(encoding="utf-8"))["tables"]
    assert list(tables) == ["table5", "table6", "table7", "differences", "synthetic"]
    texts = [c["text"] for t in tables.values() for row in t["rows"] for c in row.values()]
    shown = [text for _, text in cells_of(html).cells]
    assert len(texts) == len(shown)
    for text, seen in zip(texts, shown, strict=True):
        assert seen == text or re.fullmatch(re.escape(text) + "[a-z]", seen)


def test_results_have_the_runs(written):
    content = json.loads((written / "results.json").read_text(encoding="utf-8"))
    assert content["format"] == 1 and len(content["runs"]) == 7
    run = content["runs"][-1]
    assert (run["model"], run["pretrain_steps"], run["groups"]) == ("self_fusion", 3000, ["rte"])
    assert set(run["tasks"]["rte"]["scores"]) == {"rte"}


def test_markdown_has_the_tables_and_names_the_picture(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "](figure3.png)" in text
    assert "| self\\_fusion, 3,000 steps, run 1 |" in text
    assert glue_page.SYNTHETIC_SUMMARY in text
    assert "Average over CoLA, RTE only: 2 of the paper's 8 groups" in text


def test_latex_is_balanced_and_escaped(written):
    text = (written / "tables.tex").read_text(encoding="utf-8")
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 5
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    assert "self\\_fusion" in text and not re.search(r"(?<!\\)[_#%]", text)
    assert "\\textit{84.74 $\\pm$ 0.13}" in text
    for body in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", text, re.S):
        lines = [line for line in body[1].replace("\n&", " &").split("\\\\") if "&" in line]
        rows = [line for line in lines if "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(body[0]) - 1}


def test_figure_3_draws_averages_over_the_same_tasks_only(folder):
    data = figure3.figure_3_data(results.read_runs(folder / "g"))
    assert data["groups"] == ["cola", "rte"] and data["left_out"] == [["self_fusion", 3000]]
    assert [(line["stage"], line["x"]) for line in data["run"]] == [
        ("baseline", [0, 4800]), ("self_fusion", [0])
    ]  # fmt: skip
    (baseline, *_, small) = data["paper"]
    assert baseline["mean"] == [64.07, 83.33, 84.35, 84.74]
    assert baseline["deviation"] == [None, None, None, 0.13]
    assert (small["x"], small["mean"]) == ([1_000_000], [80.28])
    picture = figure3.figure_3(results.read_runs(folder / "g"))
    assert "Left out" in picture.caption and "self_fusion after 3,000 steps" in picture.caption
    assert picture.png(DARK).startswith(b"\x89PNG")


def test_figure_3_without_runs_is_the_papers_alone():
    picture = figure3.figure_3(())
    assert picture.data["run"] == [] and score_tables.NOTHING in picture.caption
    assert picture.png().startswith(b"\x89PNG")


def test_a_report_of_synthetic_tasks_alone_says_so(tmp_path):
    recorded.write_run(tmp_path, "baseline", 0, ["synthetic_grammar"])
    path, report = glue_page.write_report(tmp_path)
    assert report.summary == (score_tables.NOTHING, glue_page.SYNTHETIC_SUMMARY)
    assert "No two models that the paper compares" in path.read_text(encoding="utf-8")


def test_the_summary_names_the_best_average_and_what_it_is_over(folder):
    summary = glue_page.glue_report(results.read_runs(folder / "g")).summary[0]
    assert summary.startswith("7 fine-tunings of 4 models")
    assert "average over CoLA, RTE (2 of the paper's 8 groups) is" in summary


def test_the_program_prints_the_tables(folder, capsys):
    report.main(nano.config_of(report, f"--workdir={folder / 'g'}"))
    output = capsys.readouterr().out
    assert "**Table 7" in output and output.count("| paper: Self fusion 500K |") == 3
    assert output.rstrip().endswith("report.html")


def test_a_workdir_that_cannot_be_reported_is_named(tmp_path):
    with pytest.raises(UserError, match="Add --workdir"):
        nano.config_of(report)
    with pytest.raises(UserError, match="Expected a folder with at least one run"):
        report.main(nano.config_of(report, f"--workdir={tmp_path}"))
