"""A report that is rewritten while its run is going, and how that ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainers import nano
from tests.trainers.reports import synthetic
from trainers import report
from trainers.errors import UserError
from trainers.reports import watch

ROOT = Path(__file__).resolve().parents[3]


def going(workdir, *names):
    """A run that was asked for stages, by default for two, of which one has begun."""
    names = names or ("small_0", "small_1")
    stage = synthetic.small()
    synthetic.write_run(workdir)
    planned = {name: {"name": name, "size": "S"} for name in names}
    content = {"settings": {"size": "tiny"}, "planned": planned}
    (workdir / "run.json").write_text(json.dumps(content))
    synthetic.write_running(workdir, stage | {"curve": stage["curve"][:3]})
    return workdir


@pytest.fixture
def play(monkeypatch):
    """Calls `trainers.report`; each wait is one of some actions in place of time."""
    monkeypatch.setattr("trainers.reports.pictures.Picture.png", lambda picture, theme=None: b"")
    reports = []

    def play(*arguments, actions):
        rest = iter(actions)

        def wait(seconds, stop):
            assert seconds == 7
            next(rest)()

        monkeypatch.setattr(watch, "pause", wait)
        write = report.write.write_files

        def count(made, *places):
            reports.append(made)
            return write(made, *places)

        monkeypatch.setattr(report.write, "write_files", count)
        result = report.main(nano.config_of(report, "--watch=7", *arguments))
        assert result is None and not list(rest)
        return reports

    return play


def page_of(workdir):
    return (workdir / "report" / "report.html").read_text(encoding="utf-8")


def refresh_of(workdir):
    refreshes = re.findall(r'<meta http-equiv="refresh" content="(\d+)">', page_of(workdir))
    return [int(seconds) for seconds in refreshes]


def test_the_page_follows_the_run_to_its_end(tmp_path, play, capsys):
    workdir = going(tmp_path / "w")

    def nothing():
        assert refresh_of(workdir) == [7] and "Training is running" in page_of(workdir)

    def first_ends():
        synthetic.write_record(workdir, synthetic.small())

    def second_ends():
        assert refresh_of(workdir) == [7] and "42." in page_of(workdir)
        synthetic.write_record(workdir, synthetic.small("small_1"))

    made = play(f"--workdir={workdir}", actions=[nothing, nothing, first_ends, second_ends])
    # Nothing new, nothing written: at the start, and after each of the stages.
    assert len(made) == 3
    assert refresh_of(workdir) == [] and "Training is running" not in page_of(workdir)
    assert "small_1" in page_of(workdir)
    assert capsys.readouterr().out == f"Report: {workdir}/report/report.html\n"


def test_a_finished_run_is_written_once(tmp_path, play):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    assert len(play(f"--workdir={workdir}", actions=[])) == 1
    assert refresh_of(workdir) == []


def test_ctrl_c_ends_it_well_with_a_page_that_stands_still(tmp_path, play):
    workdir = going(tmp_path / "w")
    play(f"--workdir={workdir}", actions=[lambda: os.kill(os.getpid(), signal.SIGINT)])
    assert refresh_of(workdir) == []
    assert "still running" in page_of(workdir)


def test_a_run_that_has_not_begun_is_waited_for(tmp_path, play, capsys):
    workdir = tmp_path / "w"
    workdir.mkdir()

    def begin():
        synthetic.write_run(workdir, synthetic.small())

    play(f"--workdir={workdir}", actions=[lambda: None, begin])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Waiting for the first stage in {workdir}." and len(lines) == 2
    assert lines[-1].startswith("Report: ")


def test_a_folder_that_is_not_there_is_refused(tmp_path, play):
    with pytest.raises(UserError, match="nowhere.*which is no folder"):
        play(f"--workdir={tmp_path}/nowhere", actions=[])


def test_several_runs_are_watched_until_the_last_ends(tmp_path, play, capsys):
    done = synthetic.write_run(tmp_path / "a", synthetic.small())
    workdir = going(tmp_path / "b", "small_0")

    def end():
        assert 'content="7"' in (tmp_path / "comparison" / "report.html").read_text()
        synthetic.write_record(workdir, synthetic.small())

    play(f"--workdir={done},{workdir}", actions=[end])
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert "http-equiv" not in page
    assert capsys.readouterr().out == f"Report: {tmp_path}/comparison/report.html\n"


@pytest.mark.slow  # a process of its own
def test_ctrl_c_of_the_program_is_code_0(tmp_path):
    workdir = going(tmp_path / "w")
    command = [sys.executable, "-m", "trainers.report", f"--workdir={workdir}", "--watch"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("Report: ")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - began < 30
    assert refresh_of(workdir) == []
