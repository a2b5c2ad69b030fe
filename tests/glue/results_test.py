"""The folder of fine-tunings: what is written is read, and what does not belong is refused."""

import json
import math

import pytest

from glue import results
from tests.glue import recorded
from trainers.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Two runs of one model, and another model without a result yet."""
    recorded.write_run(tmp_path, "self_fusion", 250, ["cola", "mnli"], repeat=1, command="x")
    recorded.write_run(tmp_path, "self_fusion", 250, ["cola"], repeat=0)
    recorded.write_run(tmp_path, "baseline", 0, [])
    (tmp_path / "report").mkdir()
    return tmp_path


def change(path, **fields):
    """Another value for some fields of a file; None takes a field out."""
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_runs_are_read_in_order(folder):
    runs = results.read_runs(folder)
    assert [run.name for run in runs] == ["baseline-0-0", "self_fusion-250-0", "self_fusion-250-1"]
    assert runs[0].scores == {} and runs[0].stage == "baseline"
    assert list(runs[2].results) == ["cola", "mnli"] and runs[2].facts["command"] == "x"
    assert sorted(runs[2].scores) == ["cola", "mnli_m", "mnli_mm"]
    assert runs[2].results["mnli"].facts["best_step"] == 50


def test_scores_and_predictions_are_those_that_were_written(folder):
    (run,) = [run for run in results.read_runs(folder) if run.repeat == 1]
    pairs = recorded.predictions("mnli", seed=1)
    right = [t == p for t, p in zip(*pairs["validation_matched"], strict=True)]
    assert run.scores["mnli_m"] == pytest.approx(100 * sum(right) / 40)
    assert (
        run.results["mnli"].predictions("validation_mismatched") == pairs["validation_mismatched"]
    )
    assert run.results["mnli"].predictions("validation") is None


def test_an_undefined_score_is_null_in_the_file(tmp_path):
    results.write_model(tmp_path, "r", model="baseline", pretrain_steps=0)
    pairs = {"validation": (["1.0", "2.0"], ["3.0\n\u2028", "x"])}
    results.write_result(tmp_path, "r", "stsb", {"validation": (["1.0", "2.0"], ["3.0", "3.0"])})
    text = (tmp_path / "r" / "stsb" / "result.json").read_text()
    assert json.loads(text)["scores"] == {"stsb_pearson": None, "stsb_spearman": None}
    assert math.isnan(results.read_runs(tmp_path)[0].scores["stsb_pearson"])
    # Line breaks inside a prediction do not break the file.
    results.write_model(tmp_path, "s", model="baseline", pretrain_steps=1)
    results.write_result(tmp_path, "s", "stsb", pairs)
    assert (
        results.read_runs(tmp_path)[1].results["stsb"].predictions("validation")
        == pairs["validation"]
    )


def test_writing_a_model_again_is_nothing_and_another_model_is_refused(folder):
    path = folder / "self_fusion-250-1" / "model.json"
    before = path.read_bytes()
    results.write_model(
        folder, "self_fusion-250-1", model="self_fusion", pretrain_steps=250, repeat=1, command="x"
    )
    assert path.read_bytes() == before
    with pytest.raises(
        UserError, match="pretrain_steps=500, there it is 250; seed=7, there it is 0"
    ):
        results.write_model(
            folder, "self_fusion-250-1", model="self_fusion", pretrain_steps=500, repeat=1, seed=7,
            command="x",
        )  # fmt: skip
    assert path.read_bytes() == before


def test_a_result_is_not_overwritten(folder):
    path = folder / "self_fusion-250-0" / "cola"
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UserError, match="without a result.*cola/result.json"):
        results.write_result(folder, "self_fusion-250-0", "cola", recorded.predictions("cola", 0.1))
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_result_needs_all_its_splits(folder):
    pairs = recorded.predictions("mnli")
    pairs.pop("validation_mismatched")
    with pytest.raises(UserError, match="none for validation_mismatched"):
        results.write_result(folder, "baseline-0-0", "mnli", pairs)
    assert not (folder / "baseline-0-0" / "mnli").exists()


def test_a_result_of_another_run_is_refused(folder):
    (folder / "baseline-0-0" / "cola").mkdir()
    source = folder / "self_fusion-250-0" / "cola" / "result.json"
    (folder / "baseline-0-0" / "cola" / "result.json").write_bytes(source.read_bytes())
    with pytest.raises(UserError, match="run='baseline-0-0'.*run='self_fusion-250-0', of another"):
        results.read_runs(folder)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("model.json", {"format": 2}, "format=1.*model.json.*format=2"),
        ("model.json", {"run": "other"}, "run='other'"),
        ("model.json", {"pretrain_steps": "250"}, "'pretrain_steps' as int.*'250'"),
        ("model.json", {"model": None}, "'model' as str.*model=None"),
        ("cola/result.json", {"task": "rte"}, "task='rte'"),
        ("cola/result.json", {"scores": {"rte": 1.0}}, "scores cola of cola.*scores=rte"),
        ("cola/result.json", {"scores": {"cola": "high"}}, "cola='high'"),
        ("cola/result.json", {"scores": [1]}, "'scores' as dict"),
    ],
)
def test_files_that_are_wrong_are_named_with_field_and_value(folder, file, fields, message):
    change(folder / "self_fusion-250-0" / file, **fields)
    with pytest.raises(UserError, match=message) as caught:
        results.read_runs(folder)
    assert file in str(caught.value) and "\n" not in str(caught.value)


def test_two_runs_that_are_the_same_repeat_are_refused(folder):
    results.write_model(folder, "again", model="self_fusion", pretrain_steps=250, repeat=1)
    with pytest.raises(UserError, match="repeat=1. Received: again and self_fusion-250-1 in"):
        results.read_runs(folder)


def test_a_damaged_line_of_predictions_is_named(folder):
    path = folder / "self_fusion-250-0" / "cola" / "validation.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], '{"target": "acceptable"}', *lines[5:]]) + "\n")
    (_, run, _) = results.read_runs(folder)
    with pytest.raises(UserError, match="validation.jsonl.*line=5, value='.*acceptable"):
        run.results["cola"].predictions("validation")


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one run"):
        results.read_runs(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        results.read_runs(tmp_path / "absent")
