"""The workdir: whose it is, whole files or none, and what is refused without a trace."""

import json

import pytest

from tests.trainers import nano
from trainers.errors import UserError
from trainers.plans.graph import RESERVED_NAMES
from trainers.runs.workdir import DATA_FOLDER, REPORT_FOLDER, Workdir

RUN = {"size": "tiny", "seed": 0}


@pytest.fixture
def folder(tmp_path):
    workdir = Workdir(tmp_path / "w")
    workdir.open(RUN, plans=["baseline"])
    return workdir


def test_open_writes_the_run_and_collects_plans(folder):
    folder.open(RUN, plans=["self_fusion", "baseline"])
    assert nano.plans(folder.path) == ["baseline", "self_fusion"]
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


def test_names_of_folders_are_no_names_of_stages():
    assert set(RESERVED_NAMES) == {DATA_FOLDER, REPORT_FOLDER}
