"""The binary trainers.report: the file it writes, and how it refuses."""

import sys
from pathlib import Path

import pytest

from tests import forks
from tests.trainers.reports import synthetic
from trainers import errors, programs, report
from trainers.reports import pictures

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments):
    command = [sys.executable, "-m", "trainers.report", *arguments]
    return forks.run(command, cwd=ROOT)


def test_report_is_written_and_its_place_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures.Picture, "png", lambda picture, theme=None: b"")
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small(), synthetic.baseline())
    report.main(programs.parse(report.ReportConfig, [f"--workdir={workdir}"]))
    assert capsys.readouterr().out == f"Report: {workdir}/report/report.html\n"
    assert (workdir / "report" / "report.html").exists()


def test_a_refusal_is_one_line(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    (workdir / "small_0" / "record.json").write_text("{")
    done = call(f"--workdir={workdir}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(workdir / "small_0" / "record.json") in done.stderr
    assert not (workdir / "report").exists()


@pytest.mark.parametrize("workdir", ["", "/nowhere/at/all"])
def test_no_workdir(workdir):
    with pytest.raises(errors.UserError, match=f"workdir={workdir!r}"):
        report.main(programs.parse(report.ReportConfig, [f"--workdir={workdir}"]))


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Folders of two runs."""
    monkeypatch.setattr(pictures.Picture, "png", lambda picture, theme=None: b"")
    folders = [tmp_path / "runs" / name for name in "ab"]
    return [str(synthetic.write_run(folder, synthetic.small())) for folder in folders]


def write(*arguments):
    report.main(programs.parse(report.ReportConfig, arguments))


def test_several_runs_are_compared_beside_the_first(two, tmp_path, capsys):
    write(f"--workdir={','.join(two)}")
    folder = tmp_path / "runs" / "comparison"
    assert capsys.readouterr().out == f"Report: {folder}/report.html\n"
    assert "runs side by side" in (folder / "report.html").read_text(encoding="utf-8")
    write(f"--workdir={','.join(reversed(two))}")
    names = {item.name for item in folder.iterdir()}
    assert names == {"report.html", "report.md", "results.json", "runs_over_flops.png"}


def test_output_takes_a_new_folder_an_empty_one_or_that_of_such_a_report(two, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for _ in range(2):
        write(f"--workdir={two[0]}", f"--output={folder}")
        assert (folder / "report.html").exists()
    assert not (tmp_path / "runs" / "a" / "report").exists()


def test_a_comparison_does_not_take_the_place_of_a_run_s_own_report(two):
    with pytest.raises(errors.UserError, match="a run's own report.*Choose another folder"):
        write(f"--workdir={','.join(two)}", f"--output={two[0]}/report")
    write(f"--workdir={two[0]}")


def test_nothing_of_another_kind_is_replaced(two, tmp_path):
    both, folder = f"--workdir={','.join(two)}", tmp_path / "runs" / "a"
    write(f"--workdir={two[0]}")
    for output, received in (
        (folder / "report", "kind 'run'"),
        (folder, "holds something else"),
        (folder / "record", "a file"),
    ):
        (folder / "record").write_text("mine")
        before = sorted(folder.rglob("*"))
        with pytest.raises(errors.UserError, match=received):
            write(both, f"--output={output}")
        assert sorted(folder.rglob("*")) == before
    write(both, f"--output={tmp_path}/c")
    with pytest.raises(errors.UserError, match="kind 'comparison'"):
        write(f"--workdir={two[0]}", f"--output={tmp_path}/c")


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (["--workdir=a,a"], "--workdir to be different texts"),
        (["--workdir=a,./a"], "--workdir to name different folders"),
        (["--workdir=a,b", "--kernels=head/kernel"], "with one --workdir"),
        (["--workdir=a", "--watch=0"], "watch=0"),
        (["--workdir=a", "--watch=soon"], "watch='soon'"),
    ],
)
def test_flags_that_do_not_fit(arguments, received):
    with pytest.raises(errors.UserError, match=received):
        programs.parse(report.ReportConfig, arguments)


def test_watch_without_a_number_looks_every_30_seconds():
    def seconds(*arguments):
        return programs.parse(report.ReportConfig, ["--workdir=w", *arguments]).watch

    assert [seconds(), seconds("--watch"), seconds("--watch=5")] == [None, 30, 5]
    assert seconds("--watch", "--nowatch") is None
