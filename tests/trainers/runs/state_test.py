"""Stages of a run: what they are, which are finished, each file read once."""

import pytest

from trainers import files
from trainers.errors import UserError
from trainers.runs import state
from trainers.runs.state import RunState


@pytest.fixture
def run(tmp_path):
    return RunState(tmp_path)


def test_a_stage_keeps_its_settings(run):
    assert run.stage("a") is None
    for _ in range(2):
        run.start_stage("a", {"steps": 10, "betas": (1, 2)}, {"sources": []})
    assert run.stage("a") == {
        "name": "a", "identity": {"steps": 10, "betas": [1, 2]}, "sources": []
    }  # fmt: skip
    with pytest.raises(UserError, match="stage 'a'.*steps=20, there it is 10"):
        run.start_stage("a", {"steps": 20, "betas": (1, 2)}, {})


def test_a_record_is_there_when_it_is_written(run):
    assert run.record("a") is None
    run.write_record("a", {"steps": 3})
    assert run.record("a") == {"steps": 3}


def test_what_another_process_finishes_is_seen(run):
    assert run.record("a") is None
    RunState(run.path).write_record("a", {"steps": 3})
    assert run.record("a") == {"steps": 3}


def test_each_file_is_read_once(run, monkeypatch):
    paths = []

    def counted(path):
        paths.append(path.name)
        return files.read_json(path)

    monkeypatch.setattr(state, "read_json", counted)
    run.start_stage("a", {}, {})
    run.write_record("a", {"steps": 3})
    for _ in range(3):
        run.check_stage("a", {})
        run.record("a")
    assert paths == ["stage.json", "record.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
@pytest.mark.parametrize("name", ["stage", "record"])
def test_a_damaged_file_is_named(run, name, content):
    (run.path / "a").mkdir()
    (run.path / "a" / f"{name}.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=f"a/{name}.json"):
        getattr(run, name)("a")
