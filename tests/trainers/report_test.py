"""The binary trainers.report: the file it writes, and how it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainers.reports import synthetic
from trainers import errors, programs, report
from trainers.reports import pictures

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments):
    command = [sys.executable, "-m", "trainers.report", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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
