"""Reading a work folder: finished and running stages, and what is refused."""

import json

import pytest

from tests.trainers.reports import synthetic
from trainers.errors import UserError
from trainers.runs import history


def test_stages_come_after_their_sources(tmp_path):
    run = history.read_run(synthetic.full_run(tmp_path / "w"))
    assert list(run.stages) == [
        "small_0", "small_1", "baseline", "fusion_property", "fusion_rule", "self_fusion"
    ]  # fmt: skip
    assert run.settings["corpus"] == "docs"
    assert run.stages["fusion_rule"].sources == ("small_0", "small_1")
    assert run.stages["baseline"].curve[-1].step == 4800


def test_folders_that_are_no_stages_are_left_alone(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    (workdir / "data").mkdir()
    (workdir / "report").mkdir()
    assert list(history.read_run(workdir).stages) == ["small_0"]


def test_running_stage_is_read_from_its_evaluations(tmp_path):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    synthetic.write_running(workdir, synthetic.fused(steps=1000))
    stage = history.read_run(workdir).stages["self_fusion"]
    assert not stage.finished
    assert (stage.steps, stage.planned_steps) == (1000, 4000)
    assert stage.sources == ("small_0",)
    assert stage.flops == pytest.approx(1000 * synthetic.FLOPS_PER_STEP["M"])
    assert stage.accuracy == stage.curve[-1].accuracy


def test_resumed_and_half_written_metrics(tmp_path):
    workdir = tmp_path / "w"
    stage = synthetic.record("baseline", "M", [synthetic.point(0, 1.0), synthetic.point(200, 2.0)])
    synthetic.write_running(workdir, stage)
    metrics = workdir / "baseline" / "metrics.jsonl"
    again = {"kind": "eval", **synthetic.point(200, 3.0)}
    with metrics.open("a") as file:
        file.write(json.dumps({"kind": "eval", **synthetic.point(400, 9.0)}) + "\n")
        file.write(json.dumps(again) + "\n")
        file.write('{"kind": "eval", "st')
    baseline = history.read_run(workdir).stages["baseline"]
    assert [(point.step, point.accuracy) for point in baseline.curve] == [(0, 1.0), (200, 3.0)]


def test_stage_without_an_evaluation_yet(tmp_path):
    synthetic.write_running(tmp_path, synthetic.baseline())
    (tmp_path / "baseline" / "metrics.jsonl").unlink()
    stage = history.read_run(tmp_path).stages["baseline"]
    assert (stage.steps, stage.accuracy, stage.curve) == (0, None, ())


def test_what_is_not_finite_is_none(tmp_path):
    points = [synthetic.point(0, 1.0), {**synthetic.point(200, 2.0), "accuracy": float("nan")}]
    record = synthetic.record("baseline", "M", points, loss=None)
    synthetic.write_record(tmp_path, record)
    stage = history.read_run(tmp_path).stages["baseline"]
    assert stage.curve[-1].accuracy is None
    assert stage.accuracy is None
    assert stage.loss is None


def damaged(workdir, **changes):
    record = {**synthetic.complete(synthetic.small()), **changes}
    folder = workdir / "small_0"
    folder.mkdir(parents=True)
    record = {name: value for name, value in record.items() if value is not ...}
    (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"flops": ...}, "flops"),
        ({"learning_rate": ...}, "learning_rate"),
        ({"curve": ..., "tokens": ...}, "tokens, curve"),
        ({"format": 2}, "format=2"),
        ({"name": "small_9"}, "name='small_9'"),
        ({"sources": "small_1"}, "sources='small_1'"),
        ({"sources": ["small_0"]}, "small_0 <- small_0"),
        ({"flops": "many"}, "flops='many'"),
        ({"parameters": True}, "parameters=True"),
        ({"learning_rate": {"scale": 1.0}}, "learning_rate={'scale': 1.0}"),
        ({"curve": 3}, "curve=3"),
        ({"curve": [3]}, "curve[0]"),
        ({"curve": [{"step": 1}]}, "curve[0]"),
        ({"curve": [{**synthetic.point(0, 1.0), "flops": float("inf")}]}, "flops=inf"),
    ],
)
def test_damaged_record_is_named(tmp_path, changes, named):
    damaged(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        history.read_run(tmp_path)
    message = str(error.value)
    assert named in message
    assert str(tmp_path) in message
    assert "Expected" in message and "Received: " in message and "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
@pytest.mark.parametrize("name", ["small_0/record.json", "run.json", "small_1/stage.json"])
def test_unreadable_file_is_named(tmp_path, text, name):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    (workdir / "small_1").mkdir()
    (workdir / name).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=name):
        history.read_run(workdir)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"settings": 3}, "settings=3"),
        ({"settings": {"corpus": {"a": 1}}}, "corpus={'a': 1}"),
        ({"settings": {}, "tuning": 5}, "tuning=5"),
        ({"versions": "3.15"}, "versions='3.15'"),
        ({"corpus_unknown": "few"}, "corpus_unknown='few'"),
        ({"experiments": [1]}, "experiments=[1]"),
        ({"experiments": {"tune": 3}}, "experiments={'tune': 3}"),
        ({"experiments": {"tune": {"points": {"a": 1}}}}, "'points': {'a': 1}"),
    ],
)
def test_damaged_settings_are_named(tmp_path, content, named):
    workdir = synthetic.write_run(tmp_path / "w", synthetic.small())
    (workdir / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        history.read_run(workdir)
    assert named in str(error.value) and "run.json" in str(error.value)


def test_damaged_metrics_line_is_named(tmp_path):
    synthetic.write_running(tmp_path, synthetic.baseline())
    metrics = tmp_path / "baseline" / "metrics.jsonl"
    metrics.write_text('{"kind": "train"}\nnonsense\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2"):
        history.read_run(tmp_path)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        history.read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="which has none"):
        history.read_run(tmp_path)


def totals(stage):
    """Costs of a stage over those of a step."""
    flops, seconds = synthetic.FLOPS_PER_STEP["M"], synthetic.SECONDS_PER_STEP["M"]
    return stage.flops / flops, stage.device_seconds / seconds


def test_stages_that_continue_one_another_are_one_with_the_costs_of_all(tmp_path):
    def link(name, *rest):
        return synthetic.record(
            name, "M", [synthetic.point(n, n / 10) for n in (0, 50, 100)], *rest
        )

    links = link("a"), link("b", "continued", ["a"]), link("c", "continued", ["b"])
    run = history.read_run(synthetic.write_run(tmp_path, *links))
    whole = run.from_its_start(run.stages["c"])
    assert (whole.steps, whole.init) == (300, "scratch")
    assert totals(whole) == pytest.approx((300, 300))
    assert [point.step for point in whole.curve] == [0, 50, 100, 150, 200, 250, 300]
    costs = [point.flops / synthetic.FLOPS_PER_STEP["M"] for point in whole.curve]
    assert costs == pytest.approx([point.step for point in whole.curve])


def test_a_restarted_stage_is_one_with_its_source_up_to_the_step_that_it_takes(tmp_path):
    stages = (
        synthetic.record("a", "M", [synthetic.point(n, n / 10) for n in (0, 50, 100)]),
        synthetic.record(
            "b",
            "M",
            [synthetic.point(n, 6 + n / 10) for n in (0, 40)],
            "restarted",
            ["a"],
            source_steps={"a": 60},
        ),
    )
    run = history.read_run(synthetic.write_run(tmp_path, *stages))
    again = run.stages["b"]
    assert run.from_its_start(again) is again
    whole = run.from_its_start(again, (history.CONTINUED, history.RESTARTED))
    assert [(point.step, point.accuracy) for point in whole.curve] == [
        *((0, 0.0), (50, 5.0)),
        *((60, 6.0), (100, 10.0)),
    ]
    assert totals(whole) == pytest.approx((100, 100))
