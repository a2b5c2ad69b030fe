"""The report's files: what they hold, and that nothing is lost or half written."""

import json
import re

import pytest

from tests.trainers.reports import synthetic
from tests.trainers.reports.tables_test import cells_of
from trainers import reports
from trainers.errors import UserError
from trainers.reports import page, write
from trainers.runs import history

PICTURES = {"figure1_steps.png", "figure1_flops.png", "figure1_device_seconds.png", "graph.png"}
PICTURES |= {"accuracy_over_compute.png", "ratio_over_accuracy.png"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report folder of a full run, one stage of which has a hostile name for its corpus."""
    workdir = synthetic.full_run(tmp_path_factory.mktemp("run") / "w")
    settings = json.loads((workdir / "run.json").read_text())
    settings["settings"]["corpus"] = "<script>alert(1)</script>"
    (workdir / "run.json").write_text(json.dumps(settings))
    return reports.write_report(workdir).parent


def test_all_files_are_there(written):
    assert {item.name for item in written.iterdir()} == PICTURES | {
        "report.html", "report.md", "results.json"
    }  # fmt: skip
    hidden = [item.name for item in written.parent.iterdir() if item.name.startswith(".report")]
    assert hidden == []


def test_html_is_one_file_without_scripts_or_anything_remote(written):
    html = (written / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not re.search(r"https?:|@import|url\(|<link|<iframe", html)
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', html)
    assert len(sources) == 2 * len(PICTURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert html.count("alt=") == len(PICTURES)
    assert 'name="viewport"' in html and "@media print" in html
    assert "prefers-color-scheme: dark" in html
    assert "a sweep over the warm-up length" in html
    assert "python -m trainers.pretrain --plan=baseline,self_fusion" in html


def test_markdown_names_the_pictures_beside_it(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([^)]+)\)", text)) == PICTURES
    assert "| self\\_fusion |" in text
    assert "<script" not in text.replace("\\<", "")


def test_results_have_the_promised_form(written):
    results = json.loads((written / "results.json").read_text(encoding="utf-8"))
    assert set(results) >= {"stages", "comparisons", "tables", "figures", "format"}
    wanted = {
        "name", "size", "init", "sources", "steps", "parameters", "tokens", "flops",
        "device_seconds", "loss", "loss_per_token", "accuracy", "curve", "status",
    }  # fmt: skip
    for stage in results["stages"]:
        assert wanted <= set(stage)
        assert {"step", "tokens", "flops", "device_seconds", "loss_per_token", "accuracy"} <= set(
            stage["curve"][0]
        )
    assert {c["plan"] for c in results["comparisons"]} == {
        "self_fusion", "fusion_property", "fusion_rule"
    }  # fmt: skip
    for comparison in results["comparisons"]:
        assert set(comparison) == {
            "plan", "baseline", "accuracy", "flops_ratio", "device_seconds_ratio", "withheld",
            "guards",
        }  # fmt: skip
    assert [h["plan"] for h in results["headlines"]] == [c["plan"] for c in results["comparisons"]]
    of_paper = {"table1", "table2"}
    assert set(results["tables"]) == {"comparisons", "head_starts", "stages", "results"} | of_paper
    assert {f"{key}.png" for key in results["figures"]} == PICTURES


def test_html_and_results_have_the_same_cells(written):
    """One code path: what the page shows is what the data says."""
    html = cells_of((written / "report.html").read_text(encoding="utf-8"))
    results = json.loads((written / "results.json").read_text(encoding="utf-8"))
    texts = [
        (cell["origin"], cell["text"])
        for table in results["tables"].values()
        for row in table["rows"]
        for cell in row.values()
    ]
    # The page adds a footnote's letter to some of the texts.
    shown = [(classes[1], text) for classes, text in html.cells]
    assert len(shown) == len(texts)
    for (origin, text), (shown_origin, shown_text) in zip(texts, shown, strict=True):
        assert origin == shown_origin
        assert shown_text == text or re.fullmatch(re.escape(text) + "[a-z]", shown_text)


def test_one_stage_alone_says_what_was_not_run(tmp_path):
    run = history.read_run(synthetic.write_run(tmp_path / "w", synthetic.small()))
    report = page.pretraining_report(run)
    text = page.to_markdown(report).replace("\\", "")
    assert "Not run: baseline, fusion_rule, fusion_property, self_fusion, Table 1," in text
    assert json.loads(page.to_json(report))["comparisons"] == []


def test_a_diverged_stage_gives_strict_json(tmp_path):
    points = [synthetic.point(0, 1.0), {**synthetic.point(200, 2.0), "accuracy": float("nan")}]
    workdir = synthetic.write_run(tmp_path / "w", synthetic.record("baseline", "M", points))

    def refuse(name):
        raise AssertionError(name)

    text = page.to_json(page.pretraining_report(history.read_run(workdir)))
    json.loads(text, parse_constant=refuse)


def report_without_pictures(title):
    return page.Report(title, (), (), {}, ())


def test_rewriting_replaces_the_report_and_keeps_what_others_put_there(tmp_path):
    folder = write.write_files(report_without_pictures("before"), tmp_path).parent
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "old.png").write_bytes(b"")
    write.write_files(report_without_pictures("after"), tmp_path)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "more").is_dir()
    assert not (folder / "old.png").exists()
    assert (folder / "report.md").read_text().startswith("# after")


def test_a_failure_leaves_the_old_report(tmp_path):
    html = write.write_files(report_without_pictures("before"), tmp_path)
    before = html.read_bytes()

    def full(report):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"Received: .*report \(No space left on device\)"):
        write.write_files(report_without_pictures("after"), tmp_path, {"more.txt": full})
    assert html.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == [".locks", "report"]


@pytest.mark.parametrize("text", ['{"format": 2}', "{}", "[]", "nonsense"])
def test_results_of_another_version_are_not_replaced(tmp_path, text):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    results = workdir / "report" / "results.json"
    results.parent.mkdir()
    results.write_text(text)
    with pytest.raises(UserError, match="results.json"):
        reports.write_report(workdir)
    assert results.read_text() == text
    assert list(results.parent.iterdir()) == [results]


def test_a_file_in_the_way_is_named(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    (workdir / "report").write_text("mine")
    with pytest.raises(UserError, match="Received: a file"):
        reports.write_report(workdir)
    assert (workdir / "report").read_text() == "mine"


def test_facts_name_versions_and_command(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    facts = dict(page.pretraining_report(history.read_run(workdir)).facts)
    assert "keras 3" in facts["Versions where this report was written"]
    assert facts["Command"] == "not recorded in run.json"
    content = {"command": "python -m x", "versions": {"keras": "9.9"}}
    (workdir / "run.json").write_text(json.dumps(content))
    facts = dict(page.pretraining_report(history.read_run(workdir)).facts)
    assert (facts["Command"], facts["Versions"]) == ("python -m x", "keras 9.9")
