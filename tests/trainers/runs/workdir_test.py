"""The workdir: whose it is, whole files or none, and what is refused without a trace."""

import json

import pytest

from trainers.errors import UserError
from trainers.runs.workdir import Workdir

RUN = {"size": "tiny", "seed": 0}


@pytest.fixture
def folder(tmp_path):
    found = Workdir(tmp_path / "w")
    found.open(RUN, plans=["baseline"])
    return found


def test_open_writes_the_run_and_collects_plans(folder):
    folder.open(RUN, plans=["self_fusion", "baseline"])
    assert folder.plans == ["baseline", "self_fusion"]
    assert json.loads((folder.path / "run.json").read_text())["settings"] == RUN


def test_facts_of_the_latest_command_stay(folder):
    folder.open(RUN, plans=["baseline"], corpus="docs")
    folder.open(RUN, plans=["baseline"], corpus="text")
    content = json.loads((folder.path / "run.json").read_text())
    assert content == {"settings": RUN, "plans": ["baseline"], "corpus": "text"}


def test_a_folder_with_prepared_data_is_welcome(tmp_path):
    (tmp_path / "data").mkdir()
    Workdir(tmp_path).open(RUN)
    assert (tmp_path / "run.json").exists()


def test_another_runs_folder_is_refused_with_every_field(folder):
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(UserError) as error:
        folder.open({"size": "table8", "seed": 1, "new": None}, plans=["fusion_rule"])
    assert "size='table8', there it is 'tiny'; seed=1, there it is 0; new=None" in str(error.value)
    assert (folder.path / "run.json").read_bytes() == before


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(UserError, match="holds 'thesis.tex'"):
        Workdir(tmp_path).open(RUN)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "w").write_text("…")
    with pytest.raises(UserError, match="w', a file"):
        Workdir(tmp_path / "w").open(RUN)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_a_damaged_file_is_named(folder, content):
    (folder.path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="run.json"):
        folder.open(RUN)


def test_a_stage_keeps_its_settings(folder):
    path = folder.start_stage("a", {"steps": 10, "betas": (1, 2)}, {"sources": []})
    assert path == folder.path / "a"
    folder.start_stage("a", {"steps": 10, "betas": (1, 2)}, {"sources": []})
    with pytest.raises(UserError, match="stage 'a'.*steps=20, there it is 10"):
        folder.start_stage("a", {"steps": 20, "betas": (1, 2)}, {})
    assert json.loads((path / "stage.json").read_text())["identity"]["steps"] == 10


def test_records_of_finished_stages(folder):
    assert folder.record("b") is None
    for name in ("b", "a"):
        folder.start_stage(name, {}, {})
        folder.write_record(name, {"name": name})
    assert folder.record("b") == {"name": "b"}
    assert [record["name"] for record in folder.records()] == ["b", "a"]
