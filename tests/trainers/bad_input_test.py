"""Bad input to the binaries: one line that names the value and the way out, and nothing changed.

Each row of the tables is a command and what its line has to hold. They run in this process, from
the flags on; the tests at the end run whole programs and look at the exit code.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from absl import flags

import keras_fusion as kf
from tests.trainers import nano
from trainers import fuse, pretrain
from trainers.checkpoints import models
from trainers.errors import UserError
from trainers.pretraining import run
from trainers.runs.workdir import Workdir
from trainers.training import loop
from trainers.training.config import TrainResult

PRETRAIN = [
    # Flags of the run.
    ("no plan", "--workdir={new}", "Received: plan=''", "baseline, self_fusion"),
    ("unknown plan", "--plan=bert --workdir={new}", "plan='bert'", "baseline, self_fusion"),
    ("one unknown plan", "--plan=baseline,bert --workdir={new}", "plan='bert'", "baseline"),
    ("unknown size", "--plan=baseline --size=huge --workdir={new}", "size='huge'", "table8"),
    ("no workdir", "--plan=baseline", "workdir=''", "--workdir=FOLDER"),
    ("unknown stage", "{plan} --stage=big --workdir={new}", "stage='big'", "small_0, self_fusion"),
    ("unknown corpus", "--plan=baseline --corpus=wiki --workdir={new}", "corpus='wiki'", "docs"),
    ("unknown strategy", "{plan} --strategy=all --workdir={new}", "strategy='all'", "mirrored"),
    ("no TPU", "{plan} --strategy=tpu --workdir={new}", "tpu=None", "--tpu=local"),
    ("two machines", "{plan} --strategy=mirrored --tpu=x --workdir={new}", "tpu='x'", "Leave out"),
    ("a mesh", "{plan} --mesh_shape=model:2 --workdir={new}", "KERAS_BACKEND", "KERAS_BACKEND=jax"),
    ("mesh in words", "{plan} --mesh_shape=two --workdir={new}", "'two'", "batch:2,model:4"),
    ("no microbatch", "{plan} --microbatches=0 --workdir={new}", "microbatches=0", "at least 1"),
    ("no clipping", "{plan} --clip_norm=0 --workdir={new}", "clip_norm='0'", "above 0"),
    ("unknown dtype", "{plan} --dtype=int8 --workdir={new}", "dtype='int8'", "mixed_bfloat16"),
    ("unknown on_nan", "{plan} --on_nan=go --workdir={new}", "on_nan='go'", "stop or skip"),
    ("no keep_every", "{plan} --keep_every=0 --workdir={new}", "keep_every=0", "at least 1"),
    ("no theory_every", "{plan} --theory_every=0 --workdir={new}", "theory_every=0", "at least 1"),
    ("no batch", "{plan} --batch_size=0 --workdir={new}", "batch_size=0", "at least 1"),
    ("no validation", "{plan} --eval_batches=0 --workdir={new}", "eval_batches=0", "at least 1"),
    # Settings of stages.
    ("steps in words", "{plan} --steps=S:many --workdir={new}", "steps='S:many'", "NAME:VALUE"),
    ("no steps", "{plan} --steps=S:0 --workdir={new}", "steps='S:0'", "at least 1"),
    ("steps of nothing", "{plan} --steps=small_1:5 --workdir={new}", "small_1:5", "--plan"),
    ("steps of no size", "{plan} --size=table8 --steps=L:5 --workdir={new}", "steps=L:5", "S, M"),
    ("steps twice", "{plan} --steps=S:5,S:6 --workdir={new}", "steps='S:5,S:6'", "S once"),
    ("warm-up", "{plan} --warmup_steps=0 --workdir={new}", "warmup_steps='0'", "at least 1"),
    ("offset", "{plan} --learning_rate_offset=1e3 --workdir={new}", "='1e3'", "a whole number"),
    ("scale", "{plan} --learning_rate_scale=-1 --workdir={new}", "='-1'", "above 0"),
    ("dropout", "{plan} --dropout=1.0 --workdir={new}", "dropout='1.0'", "below 1"),
    ("noise", "{plan} --noise=nan --workdir={new}", "noise='nan'", "at least 0"),
    ("noise kind", "{plan} --noise_kind=uniform --workdir={new}", "noise_kind=", "balanced"),
    ("optimizer", "{plan} --optimizer=sgd --workdir={new}", "optimizer='sgd'", "adamw"),
    (
        "steps beyond integers",
        "{plan} --steps=S:3000000000 --workdir={new}",
        "steps='S:3000000000'",
        "at most 2,147,483,647",
    ),
    ("a large batch", "{plan} --batch_size=9999999999 --workdir={new}", "=9999999999", "at most 2"),
    ("seed", "{plan} --seed=-1 --workdir={new}", "seed='-1'", "at least 0"),
    (
        "norm of a stage that has no choice",
        "--plan=fusion_rule --norm=fusion_rule:property --workdir={new}",
        "norm='property'",
        "'fusion_rule'",
    ),
    # Text, vocabularies, tokens.
    ("no text", "{plan} --corpus=text --workdir={new}", "corpus_path=None", "--corpus_path=FILES"),
    (
        "text that is not there",
        "{plan} --corpus=text --corpus_path={tmp}/no*.txt --workdir={new}",
        "no*.txt",
        "corpus_path",
    ),
    (
        "too little text",
        "{plan} --corpus=text --corpus_path={short} --workdir={new}",
        "vocabulary_pieces=64",
        "Give more text",
    ),
    (
        "vocabulary that is not there",
        "{plan} {text} --vocabulary={tmp}/no.model --workdir={new}",
        "no.model",
        "Check the path",
    ),
    (
        "vocabulary that is none",
        "{plan} {text} --vocabulary={tmp}/text.txt --workdir={new}",
        "text.txt",
        "",
    ),
    (
        "vocabulary of other tokens",
        "{plan} --data_dir={data} --vocabulary={other}/vocabulary.model --workdir={new}",
        "vocabulary.model",
        "Leave out --vocabulary",
    ),
    ("no tokens", "{plan} --data_dir={tmp}/none --workdir={new}", "/none'", "Check the path"),
    ("tokens without manifest", "{plan} --data_dir={empty} --workdir={new}", "empty", "prepare"),
    ("tokens cut short", "{plan} --data_dir={cut} --workdir={new}", "train.tokens", "prepare"),
    ("tokens changed", "{plan} --data_dir={changed} --workdir={new}", "train.tokens", "prepare"),
    (
        "tokens and vocabulary that do not match",
        "{plan} --data_dir={mixed} --workdir={new}",
        "vocabulary.model",
        "prepare",
    ),
    (
        "more spans than sentinels",
        "{plan} --data_dir={data} --input_length=400 --workdir={new}",
        "input_length=400",
        "sentinels",
    ),
    (
        "more batch than text",
        "{plan} --data_dir={data} --batch_size=5000 --workdir={new}",
        "tokens",
        "smaller batch",
    ),
    # Workdirs.
    ("workdir is a file", "{plan} {text} --workdir={tmp}/text.txt", "text.txt", "Choose another"),
    ("workdir of something else", "{plan} {text} --workdir={foreign}", "thesis.tex", "Choose"),
    (
        "workdir of another batch size",
        "{plan} --data_dir={data} --batch_size=3 --workdir={w}",
        "batch_size=3, there it is 2",
        "Choose another --workdir",
    ),
    (
        "workdir of another size",
        "{plan} --size=tiny --data_dir={data} --workdir={w}",
        "size='tiny', there it is 'nano'",
        "Choose another --workdir",
    ),
    (
        "workdir of other tokens",
        "{plan} --data_dir={other} --workdir={w}",
        "train.tokens=",
        "Choose another --workdir",
    ),
    (
        "stage of other settings",
        "{plan} --data_dir={data} --steps=S:9 --warmup_steps=7 --workdir={w}",
        "steps=9, there it is 3; warmup_steps=7, there it is 600",
        "choose another --workdir",
    ),
    (
        "workdir with a damaged run.json",
        "{plan} --data_dir={data} --workdir={torn}",
        "run.json",
        "",
    ),
    (
        "stage before its source",
        "{plan} --data_dir={data} --stage=self_fusion --workdir={new}",
        "stage='small_0'",
        "--stage=small_0 --workdir=",
    ),
    (
        "source whose checkpoint is damaged",
        "{plan} --data_dir={data} --workdir={damaged}",
        "damaged",
        "Restore",
    ),
]

FUSE = [
    ("no source", "--output={new}", "sources=''", "at least two"),
    ("one source", "--sources={a} --output={new}", "sources=", "name the folder twice"),
    ("no output", "--sources={a},{b}", "output=''", "--output=FOLDER"),
    ("output that holds something", "--sources={a},{b} --output={b}", "output=", "overwritten"),
    ("output is a file", "--sources={a},{b} --output={tmp}/text.txt", "text.txt", "overwritten"),
    ("norm", "--sources={a},{b} --norm=batch --output={new}", "norm='batch'", "property or rule"),
    ("noise", "--sources={a},{b} --noise=-1 --output={new}", "noise=-1.0", "at least 0"),
    ("noise kind", "--sources={a},{b} --noise_kind=x --output={new}", "noise_kind='x'", "balanced"),
    ("seed", "--sources={a},{b} --seed=-3 --output={new}", "seed=-3", "at least 0"),
    ("noise in words", "--sources={a},{b} --noise=much --output={new}", "noise='much'", ""),
    ("no folder", "--sources={a},{tmp}/none --output={new}", "/none'", "Check the path"),
    ("no checkpoint", "--sources={a},{empty} --output={new}", "empty", "Train the stage first"),
    ("damaged checkpoint", "--sources={a},{bad} --output={new}", "bad", "Restore"),
    ("checkpoint of no T5", "--sources={a},{alien} --output={new}", "alien", "another checkpoint"),
    (
        "weights that do not fit",
        "--sources={a},{liar} --output={new}",
        "liar",
        "another checkpoint",
    ),
    ("other depth", "--sources={a},{deep} --output={new}", "num_layers: 1 vs 2", ""),
    ("other vocabulary", "--sources={a},{words} --output={new}", "vocabulary_size: 128 vs 64", ""),
    ("infinite weights", "--sources={a},{nan} --output={new}", "NaN", "head/kernel"),
]

SMALL = {
    "vocabulary_size": 128,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "key_value_dim": 4,
    "intermediate_dim": 16,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, patch):
    """Everything that the commands are pointed at, by the names that the tables use."""
    tmp = tmp_path_factory.mktemp("bad")
    data, other = (nano.write_tokens(tmp / name, seed) for seed, name in enumerate(("d", "e")))
    nano.write_text(tmp / "text.txt")
    (tmp / "short.txt").write_text("one word")
    (tmp / "empty").mkdir()
    (tmp / "foreign").mkdir()
    (tmp / "foreign" / "thesis.tex").write_text("…")
    places = {"tmp": tmp, "new": tmp / "new", "data": data, "other": other}
    places |= {name: tmp / name for name in ("empty", "foreign")}
    places |= _tokens(tmp, data, other) | _workdirs(tmp, data, patch) | _models(tmp)
    return places | {
        "short": tmp / "short.txt",
        "plan": "--plan=self_fusion",
        "text": f"--corpus=text --corpus_path={tmp}/text.txt",
    }


def _tokens(tmp, data, other):
    """Folders of tokens that something happened to."""
    for name in ("cut", "changed", "mixed"):
        shutil.copytree(data, tmp / name)
    with open(tmp / "cut" / "train.tokens", "r+b") as file:
        file.truncate(100)
    with open(tmp / "changed" / "train.tokens", "r+b") as file:
        file.write(b"\x05\x00\x05\x00")
    shutil.copy(other / "vocabulary.model", tmp / "mixed" / "vocabulary.model")
    return {name: tmp / name for name in ("cut", "changed", "mixed")}


def _workdirs(tmp, data, patch):
    """A workdir with a finished stage, made without training, and what became of its copies."""

    def no_training(job, config, folder, watch):
        path = models.save_model(job.model, folder, {})
        totals = ("tokens", "flops", "device_seconds", "loss", "loss_per_token", "accuracy")
        return TrainResult(config.steps, 1.0, [dict.fromkeys(totals, 1.0)], path)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(loop, "train", no_training)
        arguments = ("--plan=self_fusion", "--stage=small_0", f"--data_dir={data}")
        pretrain_config = nano.config_of(pretrain, "--size=nano", f"--workdir={tmp}/w", *arguments)
        run.train(pretrain_config)
    for name in ("torn", "damaged"):
        shutil.copytree(tmp / "w", tmp / name)
    (tmp / "torn" / "run.json").write_text('{"settings": {')
    _flip_a_byte(next((tmp / "damaged").rglob("model.safetensors")))
    return {name: tmp / name for name in ("w", "torn", "damaged")}


def _models(tmp):
    """Checkpoints that can be fused, and others that cannot."""
    variants = {
        "a": {},
        "b": {},
        "bad": {},
        "alien": {},
        "liar": {},
        "nan": {},
        "deep": {"num_layers": 2},
        "words": {"vocabulary_size": 64},
    }
    for seed, (name, fields) in enumerate(variants.items()):
        model = kf.models.T5(kf.models.T5Config(**(SMALL | fields)), seed=seed)
        settings = {"alien": {"model": {"layers": 3}}, "liar": {"model": SMALL | {"hidden_dim": 9}}}
        if name == "nan":
            model.head.kernel.assign(model.head.kernel * float("nan"))
        models.save_model(model, tmp / name, settings.get(name, {}))
    _flip_a_byte(next((tmp / "bad").rglob("model.safetensors")))
    return {name: tmp / name for name in variants}


def _flip_a_byte(path: pathlib.Path):
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def refused(binary, call, command, world, *first):
    """Runs a command from its flags on, and returns the line that it is refused with."""
    before = nano.content(world["tmp"])
    arguments = [*first, *command.format(**world).split()]
    with pytest.raises((UserError, kf.FusionError, flags.Error)) as error:
        call(nano.config_of(binary, *arguments))
    after = nano.content(world["tmp"])
    assert {name: after.get(name) for name in before} == before
    return str(error.value)


def check_line(line, *expected):
    assert "\n" not in line
    assert len(line) < 1000
    for text in expected:
        assert text in line


@pytest.mark.filterwarnings("ignore::trainers.checkpoints.CheckpointWarning")
@pytest.mark.parametrize(
    ("command", "value", "way_out"), [row[1:] for row in PRETRAIN], ids=[row[0] for row in PRETRAIN]
)
def test_pretrain_refuses(world, command, value, way_out):
    try:
        line = refused(pretrain, run.train, command, world, "--size=nano", "--noprogress")
    finally:
        shutil.rmtree(world["new"], ignore_errors=True)
    check_line(line, value, way_out)


@pytest.mark.filterwarnings("ignore::trainers.checkpoints.CheckpointWarning")
@pytest.mark.parametrize(
    ("command", "value", "way_out"), [row[1:] for row in FUSE], ids=[row[0] for row in FUSE]
)
def test_fuse_refuses(world, command, value, way_out):
    line = refused(fuse, fuse.fuse, command, world)
    check_line(line, value, way_out)
    assert not world["new"].exists()


@pytest.mark.slow  # programs_test.py shows it of a program that imports no TensorFlow
@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("trainers.pretrain", ["--plan=bert", "--workdir=never"], "plan='bert'"),
        ("trainers.fuse", ["--sourcess=a,b", "--output=c"], "sourcess"),
    ],
)
def test_programs_end_with_one_line_and_exit_code_2(tmp_path, module, arguments, expected):
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_good_form_of_these_commands_is_accepted(world):
    """The tables change one thing of these, so each is refused for the reason that it names."""
    assert len(PRETRAIN) + len(FUSE) >= 25
    good = "--plan=self_fusion --data_dir={data} --workdir={w} --steps=S:3,M:5".format(**world)
    config = nano.config_of(pretrain, "--size=nano", *good.split())
    Workdir(world["w"]).check(config.identity() | run.fingerprints([world["data"]]))
    model, _ = models.load_model(world["a"])
    assert model.fuse(models.load_model(world["b"])[0]).config.hidden_dim == 16
