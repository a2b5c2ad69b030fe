"""Measurements of `--theory_every`: of which model, with which learning rates, on which batch."""

import json
import shutil
import types

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.theory.monitors import NAMES
from tests.trainers import killing, nano
from trainers import pretrain
from trainers.checkpoints.models import load_model
from trainers.data.batches import PretrainingBatches
from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.pretraining import run, theory_monitor
from trainers.runs.state import RunState
from trainers.training.logs import read_metrics

FLAGS = (
    "--plan=self_fusion",
    "--size=nano",
    "--noprogress",
    "--strategy=one_device",
    "--eval_batches=1",
)
# The source's last step is its third: scale / sqrt(2 + 10); the fused model's next, 1 / sqrt(3).
RATES = (
    "--learning_rate_offset=small_0:10,self_fusion:0",
    "--warmup_steps=1",
    "--learning_rate_scale=small_0:0.5,self_fusion:1",
)
H, ALPHA_H = 2 * 0.5 / 12**0.5, 3**-0.5


@pytest.fixture(scope="module")
def world(tmp_path_factory, patch):
    patch.setattr(pretrain.reports, "write_report", lambda path: path / "report")
    folder = tmp_path_factory.mktemp("theory")
    nano.write_tokens(folder)
    pretrain.pretrain(asked(folder))
    return folder


def asked(folder, *arguments, workdir="w"):
    (data_dir,) = (folder / "data").glob("text-*")
    where = (f"--data_dir={data_dir}", f"--workdir={folder}/{workdir}")
    every = ("--theory_every=2", "--dropout=0.1")
    return nano.config_of(pretrain, *FLAGS, *RATES, *every, *where, *arguments)


def lines_of(folder):
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "theory"]


def without_clock(lines):
    clock = ("seconds", "total_seconds")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


@pytest.mark.slow
def test_lines_of_a_fused_stage_alone(world):
    lines = lines_of(world / "w" / "self_fusion")
    assert [line["step"] for line in lines] == [0, 2, 3]
    assert set(lines[0]) == {*NAMES, "kind", "step", "total_seconds"}
    assert lines[-1]["total_seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
    assert lines_of(world / "w" / "small_0") == []


@pytest.mark.slow  # test_sources_of_other_widths_and_kinds compares numbers
def test_numbers_are_those_of_the_models_that_were_saved(world):
    small, _ = load_model(world / "w" / "small_0")
    fused, _ = load_model(world / "w" / "self_fusion")
    (data_dir,) = (world / "data").glob("text-*")
    batch = PretrainingBatches(data_dir, "validation", 2, 16).batch(0)
    expected = kf.theory.Monitor([small, small], batch, H, ALPHA_H / H)(fused)
    line = lines_of(world / "w" / "self_fusion")[-1]
    for name in NAMES:
        if name != "seconds":
            assert line[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.slow  # measurements_test.py kills runs with measurements
def test_a_stage_that_was_killed_has_the_same_lines(world, patch):
    shutil.copytree(world / "w", world / "w2", ignore=shutil.ignore_patterns("self_fusion"))
    with killing.killed_after_saving(patch, step=2), pytest.raises(killing.Killed):
        pretrain.pretrain(asked(world, workdir="w2"))
    pretrain.pretrain(asked(world, workdir="w2"))
    resumed, expected = (lines_of(world / w / "self_fusion") for w in ("w2", "w"))
    assert without_clock(resumed) == without_clock(expected)


def write_record(workdir, name, steps, init="scratch", sources=(), offset=0):
    rate = {"warmup_steps": 4, "offset": offset, "scale": 2.0}
    facts = {"steps": steps, "init": init, "sources": list(sources), "learning_rate": rate}
    workdir.write_record(name, facts)


@pytest.mark.parametrize(
    ("name", "source_steps", "position"),
    [
        ("plain", {}, 99),
        ("plain", {"plain": 50}, 49),
        ("plain", {"plain": 2}, 4),
        ("late", {}, 99 + 1000),
        ("longer", {}, 99 + 30 + 7),
    ],
)
def test_learning_rate_of_the_last_step(tmp_path, name, source_steps, position):
    workdir = RunState(tmp_path)
    write_record(workdir, "plain", 100)
    write_record(workdir, "late", 100, offset=1000)
    write_record(workdir, "long", 30, "continued", ["plain"])
    write_record(workdir, "longer", 7, "continued", ["long"])
    stage = Stage("big", "M", "self_fusion", (name,), copies=2, source_steps=source_steps)
    assert theory_monitor.last_learning_rate(stage, workdir) == pytest.approx(2 / position**0.5)


def test_of_several_sources_the_first_counts(tmp_path):
    workdir = RunState(tmp_path)
    write_record(workdir, "a", 101)
    write_record(workdir, "b", 401)
    stage = Stage("big", "M", "fusion_rule", ("b", "a"))
    assert theory_monitor.last_learning_rate(stage, workdir) == pytest.approx(2 / 400**0.5)


def test_sources_of_other_widths_and_kinds(tmp_path, patch):
    """A source that is itself fused, beside one of another width."""
    workdir = RunState(tmp_path)
    common = {"vocabulary_size": 32, "num_layers": 1, "key_value_dim": 4, "dropout": 0.1}
    configs = [
        kf.models.T5Config(hidden_dim=4 * n, num_heads=n, intermediate_dim=8 * n, **common)
        for n in (1, 2)
    ]
    models = [kf.models.T5(config, seed=0) for config in configs]
    models[0] = models[0].self_fuse(3, noise=0.1)
    for name, model in zip("ab", models, strict=True):
        write_record(workdir, name, 10)
        content = {"model": model.config.to_dict()}
        (workdir.stage_dir(name) / "stage.json").write_text(json.dumps(content))
    stage = Stage("big", "M", "fusion_property", ("a", "b"))
    data, rate = batch(), types.SimpleNamespace(learning_rate=0.25)
    monitor = theory_monitor.measurement(stage, workdir, data, rate, 5, "float32")
    fused = kf.fuse(models, norm="property", noise=0.1)
    numbers = monitor.measure(fused)
    h = 2 * 2 / 9**0.5
    rows = {name: value[: theory_monitor.SEQUENCES] for name, value in data.items()}
    losses = [
        float(kf.theory.mean_cross_entropy(rows["targets"], model(rows)))
        for model in (*models, fused)
    ]
    assert (monitor.kind, monitor.every) == ("theory", 5)
    assert numbers["bound_first_loss"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-5)
    assert numbers["second_loss"] == pytest.approx(0.25 / h * losses[2], rel=1e-5)


def batch():
    rng = np.random.default_rng(0)
    lengths = {"encoder_token_ids": 6, "decoder_token_ids": 4, "targets": 4}
    return {name: rng.integers(1, 32, (10, length)) for name, length in lengths.items()}


def test_several_devices_are_refused_before_anything_is_written(tmp_path, patch):
    nano.write_tokens(tmp_path)
    several = types.SimpleNamespace(is_local=False, is_chief=True, num_devices=8)
    with patch.context() as asking:
        asking.setattr(run, "engine_factory", lambda devices: lambda options: several)
        with pytest.raises(UserError, match=r"one device.*Received: 8 device\(s\)") as error:
            pretrain.pretrain(asked(tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "w").exists()
