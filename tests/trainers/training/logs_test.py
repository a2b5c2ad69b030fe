"""Metrics file, TensorBoard records and progress bar."""

import json
import math

import pytest

from trainers.training.logs import MetricsFile, RunLog, TensorBoard, read_metrics

TRAIN = {"loss_per_token": 1.5, "accuracy": 30.0, "tokens_per_second": 1234.0}


def write_lines(path, steps):
    file = MetricsFile(path, None)
    for step in steps:
        file.write("train", {"step": step, "loss": 1.0})
    file.close()


def read_events(folder):
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_lines_are_json_with_kind(tmp_path):
    write_lines(tmp_path / "m", [1, 2])
    assert read_metrics(tmp_path / "m") == [
        {"kind": "train", "step": step, "loss": 1.0} for step in (1, 2)
    ]


def test_resume_cuts_back_to_the_step_and_drops_a_half_line(tmp_path):
    path = tmp_path / "m"
    write_lines(path, [100, 200, 300, 400])
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')
    file = MetricsFile(path, 200)
    file.write("eval", {"step": 300})
    file.close()
    assert [line["step"] for line in read_metrics(path)] == [100, 200, 300]


def test_new_run_begins_an_empty_file(tmp_path):
    write_lines(tmp_path / "m", [0, 100])
    MetricsFile(tmp_path / "m", None).close()
    assert read_metrics(tmp_path / "m") == []


def test_what_is_not_finite_is_null(tmp_path):
    file = MetricsFile(tmp_path / "m", 0)
    file.write("train", {"step": 1, "loss": math.nan, "rate": math.inf})
    file.close()
    line = (tmp_path / "m").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["loss"] is None


def test_tensorboard_reads_what_was_written(tmp_path):
    board = TensorBoard(tmp_path, 0)
    board.write("train", 10, {"step": 10, "loss": 2.5, "name": "no number"})
    board.write("train", 20, {"step": 20, "loss": 1.5})
    board.close()
    assert read_events(tmp_path) == {"train/loss": [(10, 2.5), (20, 1.5)]}


def test_tensorboard_shows_one_value_a_step_after_a_resume(tmp_path):
    for start, steps, value in ((0, (10, 20, 30), 1.0), (20, (30, 40), 2.0)):
        board = TensorBoard(tmp_path, start)
        for step in steps:
            board.write("train", step, {"loss": value})
        board.close()
    assert read_events(tmp_path)["train/loss"] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]


def test_progress_says_loss_accuracy_speed_and_time_left(tmp_path, capsys):
    with RunLog(tmp_path, 0, 10, "baseline", progress=True) as log:
        log.advance(5)
        log.write("train", {"step": 5, **TRAIN})
        log._bar.refresh()
    shown = capsys.readouterr().err
    for part in ("baseline", "5/10", "loss 1.5000", "acc 30.00 %", "1,234 tokens/s", "<"):
        assert part in shown


def test_progress_says_the_time_left_in_all_in_place_of_the_stages(tmp_path, capsys):
    with RunLog(tmp_path, 0, 10, "baseline", progress=True) as log:
        log.advance(5, left=3725.0)
        log.write("train", {"step": 5, **TRAIN})
        log._bar.refresh()
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "5/10 [" in shown and ", 1:02:05 left in all, " in shown and "loss 1.5000" in shown
    assert "<" not in shown


def test_no_progress_is_silent(tmp_path, capsys):
    with RunLog(tmp_path, 0, 10, "baseline", progress=False) as log:
        log.write("train", {"step": 5, **TRAIN})
    assert capsys.readouterr() == ("", "")
