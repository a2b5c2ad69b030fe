"""The pretraining binary: from flags to a report, stage by stage, and again."""

import json
import re

import pytest

from tests.trainers import nano
from trainers import pretrain
from trainers.errors import UserError
from trainers.runs.state import RunState


def config(*arguments):
    return nano.config_of(pretrain, "--size=nano", "--noprogress", *arguments)


@pytest.fixture(scope="module")
def world(tmp_path_factory, patch):
    """A text, and a workdir in which small_0 is trained alone, as its own command does."""
    folder = tmp_path_factory.mktemp("pretrain")
    nano.write_text(folder / "text.txt")
    pretrain.pretrain(asked(folder, "--plan=self_fusion", "--stage=small_0"))
    return folder


def asked(folder, *arguments):
    return config(
        "--corpus=text", f"--corpus_path={folder}/*.txt", f"--workdir={folder}/w", *arguments
    )


def test_a_stage_alone_leaves_the_others(world):
    workdir = RunState(world / "w")
    assert list(nano.records(workdir.path)) == ["small_0"]
    assert nano.plans(workdir.path) == ["self_fusion"]
    run = json.loads((workdir.path / "run.json").read_text())
    assert (run["corpus"], run["corpus_path"], run["tuning"]) == ("text", "text.txt", "")
    assert len(list((workdir.path / "data").glob("text-*/manifest.json"))) == 1


def test_plans_end_with_the_report_and_train_nothing_twice(world, capsys):
    before = (world / "w" / "small_0" / "record.json").stat().st_mtime_ns
    report = pretrain.pretrain(asked(world, "--plan=baseline,self_fusion"))
    output = capsys.readouterr().out
    header, _, small = [line.split() for line in output.splitlines()[1:4]]
    assert header == ["stage", "size", "model", "parameters", "steps", "FLOPs", "starts", "from"]
    records = {name: RunState(world / "w").record(name) for name in nano.records(world / "w")}
    parameters, flops = (records["small_0"][name] for name in ("parameters", "flops"))
    assert small[:6] == ["small_0", "S", "nano_s", f"{parameters:,}", "3", f"{flops:.4g}"]
    left = records["self_fusion"]["flops"] + records["baseline"]["flops"]
    assert re.match(
        "Plan baseline, self_fusion at size nano: 2 of 3 stages to train, "
        rf"{re.escape(f'{left:.4g}')} FLOPs, roughly \d+ s; the time is measured after the first "
        "call. Tokens from ",
        output,
    )
    measured = [line for line in output.splitlines() if " left in all, measured on " in line]
    assert len(measured) == 1 and measured[0].startswith("About ")
    assert measured[0].endswith("measured on baseline.")
    overview = (world / "w" / "baseline" / "parameters.txt").read_text()
    assert f"{records['small_0']['parameters']:,}" not in overview
    count = RunState(world / "w").record("baseline")["parameters"]
    assert f"baseline: {count:,} parameters in " in output and f"{count:,}" in overview
    assert report == world / "w" / "report" / "report.html"
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert (world / "w" / "small_0" / "record.json").stat().st_mtime_ns == before
    lines = {line.split()[0]: line for line in output.splitlines() if line.split()}
    assert "small_0 was finished: 3 steps" in output
    assert lines["self_fusion"].startswith("self_fusion took")
    assert lines["baseline"].startswith("baseline took")
    assert lines["Report:"].endswith("report.html")
    results = json.loads((report.parent / "results.json").read_text())
    by_name = {stage["name"]: stage for stage in results["stages"]}
    assert set(by_name) == {"small_0", "self_fusion", "baseline"}
    assert [comparison["plan"] for comparison in results["comparisons"]] == ["self_fusion"]


def test_tokens_prepared_elsewhere_are_the_same_run(world, monkeypatch):
    monkeypatch.setattr(pretrain.reports, "write_report", lambda folder: folder / "report")
    folder = next((world / "w" / "data").glob("text-*"))
    again = config(
        f"--data_dir={folder}",
        f"--workdir={world}/w",
        "--plan=self_fusion",
        "--stage=small_0",
    )
    assert pretrain.pretrain(again) == world / "w" / "report"


def test_flags_become_one_configuration():
    config = nano.config_of(
        pretrain,
        "--plan=baseline, self_fusion",
        "--workdir=w",
        "--steps=S:3,baseline:5",
        "--noise=0.2",
        "--batch_size=7",
        "--on_nan=skip",
        "--keep_every=50",
    )
    assert (config.on_nan, config.keep_every) == ("skip", 50)
    assert config.plan == ("baseline", "self_fusion")
    assert (config.size, config.corpus, config.batch_size, config.input_length) == (
        "tiny",
        "docs",
        7,
        64,
    )
    by_name = config.settings
    assert [by_name[name].steps for name in ("small_0", "baseline")] == [3, 5]
    assert by_name["self_fusion"].noise == 0.2
    assert by_name["baseline"].noise is None


def test_a_sweep_is_claimed_only_in_words_that_were_given():
    def tuned_by(*arguments):
        return nano.config_of(pretrain, "--plan=baseline", "--workdir=w", *arguments).tuned_by

    assert tuned_by() == ""
    assert tuned_by("--warmup_steps=7", "--tuning=mine") == "mine"


def test_a_size_has_its_objective():
    def task(*arguments):
        return nano.config_of(pretrain, "--plan=baseline", "--workdir=w", *arguments).task

    assert task("--size=tiny").objective == "prefix_lm"
    assert task("--size=table8").objective == "span_corruption"
    spans = task("--size=tiny", "--objective=span_corruption", "--noise_density=0.3")
    assert (spans.objective, spans.noise_density) == ("span_corruption", 0.3)
    with pytest.raises(UserError, match="Received: objective='prefix_lm'. Give that objective"):
        task("--size=tiny", "--noise_density=0.3")


@pytest.mark.usefixtures("patch")
@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (["--profile=2:5"], "within the 3 steps of stage 'small_0'.*ends at step 7"),
        (["--profile=2"], "Received: profile='2'"),
        (["--profile=0:2", "--steps=M:1"], "within the 1 steps of stage 'self_fusion'"),
        (["--profile=0:2", "--parallel_stages"], "one stage at a time"),
    ],
)
def test_a_profile_that_cannot_be_had_is_refused(arguments, received):
    with pytest.raises(UserError, match=received):
        config("--plan=self_fusion", "--workdir=w", *arguments)


@pytest.mark.usefixtures("patch")
def test_a_profile_is_of_the_wanted_stages_alone():
    arguments = ["--plan=self_fusion", "--workdir=w", "--profile=0:2", "--steps=M:1"]
    assert str(config(*arguments, "--stage=small_0").profile) == "0:2"


def test_wanted_stages():
    whole = nano.config_of(pretrain, "--plan=fusion_rule", "--workdir=w")
    single = nano.config_of(pretrain, "--plan=fusion_rule", "--workdir=w", "--stage=small_1")
    assert [stage.name for stage in whole.wanted] == ["small_0", "small_1", "fusion_rule"]
    assert [stage.name for stage in single.wanted] == ["small_1"]
