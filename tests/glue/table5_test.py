"""`make table5`, its own commands: what they are given, and all of them at a size of seconds."""

import json

import pytest

from glue import finetune, report
from glue.data import synthetic
from glue.finetuning import run
from glue.reports import glue_page
from tests import makefile
from tests.glue import languages
from tests.trainers import nano
from trainers import pretrain

PROGRAMS = {"trainers.pretrain": pretrain, "glue.finetune": finetune, "glue.report": report}
FAST = {
    "TABLE5_PRETRAIN": "--size=nano --corpus=text --steps=S:2 --noprogress",
    "GLUE_DIR": "",
    "TABLE5_FINETUNE": "--synthetic --tasks=synthetic_grammar --repeats=1 --steps=2 "
    "--checkpoint_every=2 --batch_size=4 --input_length=48 --target_length=32 --noprogress "
    "--strategy=one_device --eval_batches=1 --nosubmission",
}


def test_the_real_commands_are_of_one_folder():
    (trained,), (tuned,), (reported,) = (
        makefile.arguments("table5", program, TABLE5_DIR="T", GLUE_DIR="G") for program in PROGRAMS
    )
    assert {"--plan=table5", "--workdir=T/pretrained", "--size=tiny"} <= set(trained)
    assert nano.config_of(finetune, *tuned).pretrained == "T/pretrained"
    assert {"--data_dir=G", "--tasks=cola,mrpc,rte", "--repeats=3"} <= set(tuned)
    assert reported == ["--workdir=T/glue", "--pretrained=T/pretrained"]


@pytest.mark.slow
def test_every_model_of_table_5_has_a_row(tmp_path, monkeypatch):
    nano.define(monkeypatch)
    monkeypatch.setattr(synthetic, "SIZES", {"train": 40, "validation": 12, "test": 4})
    languages.write_text(tmp_path / "text.txt")
    commands = {
        program: makefile.arguments("table5", program, TABLE5_DIR=str(tmp_path / "t"), **FAST)[0]
        for program in PROGRAMS
    }
    text = f"--corpus_path={tmp_path}/text.txt"
    pretrain.pretrain(nano.config_of(pretrain, *commands["trainers.pretrain"], text))
    run.finetune(nano.config_of(finetune, *commands["glue.finetune"]))
    glue_page.write_report(tmp_path / "t" / "glue", tmp_path / "t" / "pretrained")
    content = json.loads((tmp_path / "t" / "glue" / "report" / "results.json").read_text())
    points = {(tuned["model"], tuned["pretrain_steps"]) for tuned in content["runs"]}
    assert points == {
        *(("baseline", step) for step in (0, 1, 2, 4)),
        *(("fusion_property", step) for step in (0, 1, 2)),
        *(("self_fusion", step) for step in (0, 1, 2)),
        ("small", 4),
    }
    assert len(content["runs"]) == len(points)
