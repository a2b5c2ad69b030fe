"""The binary trainers.advise: what it prints and writes, and how it refuses."""

import json
import sys
from pathlib import Path

import pytest

from tests import forks
from tests.trainers.reports import synthetic
from trainers import advise
from trainers.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def workdir(tmp_path):
    """A small and a big model that have left their plateaus, and a fused one."""
    return synthetic.write_run(
        tmp_path / "w", synthetic.small(steps=4000), synthetic.baseline(), synthetic.fused()
    )


def call(*arguments):
    command = [sys.executable, "-m", "trainers.advise", *arguments]
    return forks.run(command, cwd=ROOT)


def test_the_advice_is_printed_and_written(workdir, tmp_path, monkeypatch):
    # As in a bucket: the program works on a copy, which the file does not name.
    monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path / "cache"))
    url, output = f"file://{workdir}", tmp_path / "advice.json"
    done = call(f"--workdir={url}", "--budget=1.2e13", f"--output={output}", "--backtest")
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert content["settings"]["workdir"] == [url]
    assert done.stdout.splitlines() == [*content["text"], f"Wrote {output}"]
    assert content["format"] == advise.FORMAT
    assert content["advice"]["budget"] == 1.2e13
    assert content["advice"]["unit"] == "flops"
    assert set(content["fits"]) == {"S", "M"}
    assert list(content["fits"]["M"]["fused"]) == ["w/self_fusion"]
    assert {score["kind"] for score in content["backtest"]} == {"continued", "unseen", "fused"}
    assert "Advice: " in done.stdout
    assert "From random weights: " in done.stdout


def test_device_time(workdir, capsys):
    report = advise.advise(advise.AdviseConfig((str(workdir),), "5m"))
    assert report["advice"]["unit"] == "device_seconds"
    assert report["advice"]["budget"] == 300.0
    assert "Budget: 300 device-seconds for a model of size M." in capsys.readouterr().out


def test_how_far_it_goes_beyond_what_was_seen_is_said(workdir, capsys):
    report = advise.advise(advise.AdviseConfig((str(workdir),), "1e15"))
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "law of size M" in line)
    assert report["advice"]["beyond"]["M"] >= 53.4  # the budget over the compute of the curve
    assert said.endswith("times the compute observed; nothing so far away was ever checked.")


def test_without_a_fused_run_that_is_said(tmp_path, capsys):
    folder = synthetic.write_run(tmp_path / "w", synthetic.small(steps=4000), synthetic.baseline())
    advise.advise(advise.AdviseConfig((str(folder),), "1e13"))
    assert "Note: no self-fusion shows what fusing does here" in capsys.readouterr().out


def test_a_budget_within_the_plateau(workdir, capsys):
    report = advise.advise(advise.AdviseConfig((str(workdir),), "1e11"))
    assert report["advice"]["verdict"] == "scratch"
    assert "No smaller model leaves its plateau within this budget." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e15", (1e15, "flops")),
        ("2.5E13flops", (2.5e13, "flops")),
        ("1000 FLOPs", (1000.0, "flops")),
        ("3600s", (3600.0, "device_seconds")),
        ("90m", (5400.0, "device_seconds")),
        ("1.5h", (5400.0, "device_seconds")),
    ],
)
def test_budgets(text, expected):
    assert advise.parse_budget(text) == expected


@pytest.mark.parametrize(
    "text", ["", "abc", "0", "-1e15", "1e15x", "1e999", "nan", "inf", "1.2.3s", "s", "1e15 s h"]
)
def test_bad_budgets(text):
    with pytest.raises(UserError, match=r"Expected --budget .*Received: budget="):
        advise.parse_budget(text)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workdir": ()}, "workdir=''"),
        ({"budget": ""}, "budget=''"),
        ({"sizes": ("S",)}, "sizes="),
        ({"sizes": ("S", "S")}, "sizes="),
        ({"sizes": ("S", "X")}, "sizes="),
        ({"seed": -1}, "seed=-1"),
        ({"output": "/nowhere/at/all.json"}, "output='/nowhere/at/all.json'"),
    ],
)
def test_bad_settings(changes, expected):
    with pytest.raises(UserError, match="Expected ") as refused:
        advise.AdviseConfig(**{"workdir": ("w",), "budget": "1e15", **changes})
    assert f"Received: {expected}" in str(refused.value)


def test_nothing_is_overwritten(workdir, tmp_path):
    there = tmp_path / "there.json"
    there.write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        advise.AdviseConfig((str(workdir),), "1e13", output=str(there))
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("stages", "sizes", "expected"),
    [
        ([synthetic.small(steps=4000)], (), "Received: curves of S. "),
        ([synthetic.baseline(), synthetic.fused()], (), "Received: curves of M. "),
        ([synthetic.fused()], (), "Received: curves of none. "),
        ([synthetic.small(steps=4000), synthetic.baseline()], ("S", "L"), "curves of S, M. "),
        ([synthetic.small(steps=1400), synthetic.baseline()], (), "w/small_0 0 of 7"),
        ([synthetic.small(steps=2000), synthetic.baseline()], (), "w/small_0 2 of 10"),
    ],
)
def test_runs_that_carry_no_advice(tmp_path, stages, sizes, expected):
    folder = synthetic.write_run(tmp_path / "w", *stages)
    with pytest.raises(UserError) as refused:
        advise.advise(advise.AdviseConfig((str(folder),), "1e13", sizes))
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "workdir=''"),
        (("--workdir=/nowhere/at/all", "--budget=1e15"), "workdir='/nowhere/at/all'"),
        (("--workdir=w", "--budget=plenty"), "budget='plenty'"),
        (("--workdir=w", "--budget=1e15", "stray"), "stray"),
    ],
)
def test_a_refusal_is_one_line(arguments, expected):
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"Received: {expected}" in done.stderr
