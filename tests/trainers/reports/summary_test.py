"""The summary of good, bad, unfinished and untuned runs."""

import pytest

from tests.trainers.reports import synthetic
from trainers.reports import comparisons, summary
from trainers.runs import history


def said(workdir):
    run = history.read_run(workdir)
    return " ".join(summary.summarize(run, comparisons.compare(run)))


def test_a_saving_is_said_in_flops_and_in_device_seconds(tmp_path):
    workdir = synthetic.write_run(
        tmp_path, synthetic.small(), synthetic.baseline(), synthetic.fused()
    )
    run = history.read_run(workdir)
    (comparison,) = comparisons.compare(run)
    text = said(workdir)
    assert "English docstrings" in text
    assert "85,312 parameters was trained for 3,000 steps, fused with itself" in text
    assert f"with {comparison.flops_ratio:.2f} of the baseline's FLOPs" in text
    assert (
        f"{comparison.device_seconds_ratio:.2f} of its device-seconds, every stage counted" in text
    )
    assert "So it saved " in text and "saved nothing" not in text
    assert "no sweep chose them" in text


def test_stages_that_repeat_their_text_often_are_named(tmp_path):
    stages = synthetic.small(), synthetic.baseline(), synthetic.fused()
    assert "through its text" not in said(synthetic.write_run(tmp_path / "a", *stages))
    for stage, passes in zip(stages, (4.2, 7.3, 1.0), strict=True):
        stage["text_passes"] = {"first": passes}
    text = said(synthetic.write_run(tmp_path / "b", *stages))
    assert "baseline goes 7.3 times through its text; 2 more go over 4 times. A rep" in text


def test_what_a_fused_model_comes_from_has_read_the_text_too(tmp_path):
    small, fused = synthetic.small(), synthetic.fused(source_steps={"small_0": 1500})
    small["text_passes"], fused["text_passes"] = {"first": 4.0, "second": 1.0}, {"first": 3.0}
    text = said(synthetic.write_run(tmp_path, small, synthetic.baseline(), fused))
    assert "self_fusion goes 5.0 times through the first text, with what it comes from. " in text


def test_no_saving_is_said_plainly(tmp_path):
    workdir = synthetic.write_run(
        tmp_path, synthetic.small(steps=30000), synthetic.baseline(), synthetic.fused()
    )
    assert "So it saved nothing here: training from scratch cost no more." in said(workdir)


@pytest.mark.parametrize(
    ("flops", "seconds", "words"),
    [
        (0.9, 0.8, "So it saved 10 % of the FLOPs and 20 % of the device time."),
        (0.9, 1.1, "So it saved 10 % of the FLOPs, but no device time."),
        (1.1, 0.9, "So it saved 10 % of the device time, but no FLOPs."),
        (0.997, 0.998, "So it saved nothing here"),
        (0.96, 0.9, "So it saved 4 % of the FLOPs and 10 % of the device time. One seed does not"),
        (1.04, 1.1, "cost no more. One seed does not tell a ratio within 5 % of 1 from 1: repeat"),
        (0.95, 0.8, "So it saved 5 % of the FLOPs and 20 % of the device time. One seed does not"),
        (1.05, 1.2, "cost no more. One seed does not tell"),
        (0.8, 0.96, "So it saved 20 % of the FLOPs and 4 % of the device time. One seed does not"),
    ],
)
def test_verdict(tmp_path, monkeypatch, flops, seconds, words):
    workdir = synthetic.write_run(
        tmp_path, synthetic.small(), synthetic.baseline(), synthetic.fused()
    )
    run = history.read_run(workdir)
    (comparison,) = comparisons.compare(run)
    fields = {**vars(comparison), "flops_ratio": flops, "device_seconds_ratio": seconds}
    text = " ".join(summary.summarize(run, (comparisons.Comparison(**fields),)))
    assert words in text
    assert ("One seed does not tell" in text) == any(0.949 < r < 1.051 for r in (flops, seconds))


def test_not_reached_and_unfinished(tmp_path):
    workdir = synthetic.write_run(tmp_path, synthetic.small(), synthetic.baseline())
    synthetic.write_running(workdir, synthetic.fused(steps=600))
    text = said(workdir)
    assert "has been trained on for 600 steps so far" in text
    assert "The goal is the baseline's final accuracy (" in text
    assert "No ratio is given: it has not yet reached the goal of " in text
    assert "Still running, so provisional: self_fusion." in text
    synthetic.write_record(workdir, synthetic.fused(end=42.0))
    assert "No ratio is given: it did not reach the goal of " in said(workdir)


def test_baseline_unfinished_or_absent(tmp_path):
    workdir = synthetic.write_run(tmp_path, synthetic.small(), synthetic.fused())
    assert "Nothing can be compared: no stage named baseline is in this run." in said(workdir)
    synthetic.write_running(workdir, synthetic.baseline(600))
    assert "It cannot be compared with the baseline: the baseline is not finished." in said(workdir)


def test_a_restarted_model_is_not_called_fused(tmp_path):
    again = synthetic.fused("again", ("baseline",)) | {"init": "restarted"}
    workdir = synthetic.write_run(tmp_path, synthetic.baseline(), again)
    assert "again: the model of baseline was taken over and" in said(workdir)
    assert "baseline, which it comes from, reaches the goal alone" in said(workdir)


def test_the_models_named_are_those_of_the_sources_alone(tmp_path):
    """And not what these come from."""
    again = synthetic.fused("again", ("self_fusion",)) | {"init": "restarted"}
    stages = synthetic.small(), synthetic.baseline(), synthetic.fused(), again
    workdir = synthetic.write_run(tmp_path, *stages)
    assert "again: the model of self_fusion was taken over and" in said(workdir)


def test_two_sources_and_a_source_elsewhere(tmp_path):
    both = ("small_0", "small_1")
    workdir = synthetic.write_run(
        tmp_path, synthetic.small(), synthetic.baseline(), synthetic.fused("fusion_rule", both)
    )
    assert "not all stages that it was fused from are in this folder" in said(workdir)
    synthetic.write_record(workdir, synthetic.small("small_1"))
    assert "the T5 models small_0 and small_1 were fused" in said(workdir)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "a corpus that run.json does not name"),
        ({"corpus": "c4"}, "C4 (corpus “c4”)"),
        ({"corpus": "text"}, "text files (corpus “text”)"),
        ({"corpus": "text", "corpus_path": "a.txt, b.txt"}, "the text of a.txt, b.txt"),
        ({"corpus": "mine"}, "the corpus “mine”"),
        ({"corpus": "docs"}, "docstrings of installed packages (corpus “docs”)"),
        ({"corpus": "docs", "corpus_note": ""}, "of the project's pinned packages (corpus “docs”)"),
        ({"corpus": "docs", "corpus_note": "not the text of"}, "(corpus “docs”, not the text of)"),
    ],
)
def test_corpus(settings, words):
    assert words in summary.corpus(settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "(corpus “docs”). self"),
        ({"objective": "prefix_lm"}, ", objective prefix LM: the second half of a text is"),
        (
            {"objective": "span_corruption", "noise_density": 0.15, "mean_span_length": 3.0},
            ", objective span corruption: 15 % of the tokens, in spans of 3.",
        ),
        ({"objective": "span_corruption"}, ", objective span corruption."),
        ({"objective": "mine"}, ", objective mine."),
    ],
)
def test_the_first_paragraph_names_the_objective(tmp_path, settings, words):
    stages = synthetic.small(), synthetic.baseline(), synthetic.fused()
    run = history.read_run(synthetic.write_run(tmp_path, *stages, **settings))
    assert words in summary.summarize(run, comparisons.compare(run))[0]


def test_tuning_is_quoted():
    assert summary.tuning({"tuning": "sweep A. "}) == "sweep A."
