"""Stages: what they start from, what they record, and that none is trained twice."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_fusion as kf
from tests.trainers import nano
from tests.trainers.training import hparams_page
from trainers import plans
from trainers.checkpoints.models import load_model
from trainers.data.batches import PretrainingBatches
from trainers.engines.devices import Devices, engine_factory
from trainers.engines.flops import step_flops
from trainers.engines.losses import loss_sums
from trainers.errors import UserError
from trainers.plans import settings
from trainers.plans.graph import Stage
from trainers.pretraining.config import PretrainConfig
from trainers.pretraining.stage import Run, make_model, run_stage
from trainers.runs.state import RunState

SMALL, FUSED = plans.PLANS["self_fusion"].stages


@pytest.fixture(scope="module")
def run(tmp_path_factory, patch):
    """A run in which the small stage is finished."""
    folder = tmp_path_factory.mktemp("stages")
    data_dir = nano.write_tokens(folder)
    run = Run(
        config=PretrainConfig(
            ("self_fusion",), size="nano", workdir=str(folder / "w"), progress=False
        ),
        workdir=RunState(folder / "w"),
        texts=(data_dir,),
        vocabulary_size=PretrainingBatches(data_dir, "train", 2, 16).vocabulary_size,
        make_engine=engine_factory(Devices(strategy="one_device")),
    )
    run_stage(SMALL, settings_of(SMALL), run)
    return run


def settings_of(stage, **flags):
    return settings.resolve(
        stage, nano.NANO, {name: settings.parse(name, text) for name, text in flags.items()}
    )


def loss_of(model, run):
    """Loss on the validation batches, summed per batch, without trainers.training.loop."""
    batches = PretrainingBatches(run.texts[0], "validation", 2, 16)
    losses = []
    for index in range(run.config.eval_batches):
        batch = batches.batch(index)
        targets = batch.pop("targets")
        losses.append(float(loss_sums(model(batch), targets).loss))
    return np.mean(losses)


def test_record_of_a_stage_from_random_weights(run):
    record = run.workdir.record("small_0")
    model, checkpoint = load_model(run.workdir.stage_dir("small_0"))
    tokens_per_step = 2 * (16 + 5)
    assert record["name"] == "small_0"
    assert (record["size"], record["init"], record["sources"]) == ("S", "scratch", [])
    assert record["parameters"] == model.count_params()
    assert record["steps"] == checkpoint.step == 3
    assert record["tokens"] == 3 * tokens_per_step
    assert record["flops"] == 3 * step_flops(model, 2, 16, 5).total
    assert "counted from the model" in record["flops_method"]
    assert record["device_seconds"] > 0
    assert record["learning_rate"] == {
        "warmup_steps": 600,
        "offset": 0,
        "scale": 1.0,
        "rewarmup_steps": 0,
        "decay_steps": 0,
    }
    assert record["seed"] == 0
    examples = PretrainingBatches(run.texts[0], "train", 2, 16).num_examples
    assert record["text_passes"] == {"first": pytest.approx(3 * 2 / examples)}
    assert [point["step"] for point in record["curve"]] == [0, 2, 3]
    assert record["loss"] == record["curve"][-1]["loss"]
    assert record["loss"] == pytest.approx(loss_of(model, run), rel=1e-5)
    assert 0 <= record["accuracy"] <= 100


def test_tensorboard_has_a_row_with_the_settings_of_the_stage_and_of_the_run(run):
    record = run.workdir.record("small_0")
    ((shown, metrics),) = hparams_page.read(run.workdir.stage_dir("small_0"))[1]
    expected = {"stage": "small_0", "init": "scratch", "model": "S", "size": "nano", "steps": 3}
    assert expected.items() <= shown.items()
    assert metrics["eval/accuracy"] == pytest.approx(record["accuracy"])


def test_a_finished_stage_is_not_trained_again(run):
    before = nano.content(run.workdir.path)
    assert run_stage(SMALL, settings_of(SMALL), run) == run.workdir.record("small_0")
    assert nano.content(run.workdir.path) == before


def test_other_settings_are_refused_with_both_values(run):
    before = nano.content(run.workdir.path)
    with pytest.raises(UserError, match="'small_0'.*steps=4, there it is 3"):
        run_stage(SMALL, settings_of(SMALL, steps="4"), run)
    assert nano.content(run.workdir.path) == before


def test_how_often_it_saves_is_not_what_it_is(run):
    run_stage(SMALL, settings_of(SMALL, checkpoint_every="1", steps_per_call="1"), run)


def test_a_source_that_is_not_finished_names_the_command(run):
    stage = plans.PLANS["fusion_rule"].stages[-1]
    with pytest.raises(UserError) as error:
        run_stage(stage, settings_of(stage), run)
    assert f"--stage=small_1 --workdir={run.workdir.path}" in str(error.value)
    assert not run.workdir.stage_dir("fusion_rule").exists()


def test_self_fusion_starts_where_its_source_ended(run):
    asked = settings_of(FUSED, noise="0", dropout="0.1")
    record = run_stage(FUSED, asked, run)
    source = run.workdir.record("small_0")
    assert record["curve"][0]["loss"] == pytest.approx(source["loss"], rel=1e-5)
    assert record["curve"][0]["step"] == 0
    assert (record["sources"], record["source_steps"]) == (["small_0"], {"small_0": 3})
    assert record["loss"] != record["curve"][0]["loss"]
    lines = (run.workdir.stage_dir("self_fusion") / "metrics.jsonl").read_text().splitlines()
    symmetry = [json.loads(line).get("symmetry") for line in lines if '"eval"' in line]
    assert symmetry[0] == 0
    assert symmetry[-1] > 0
    # As a plain T5 of the size that it now has.
    model, _ = load_model(run.workdir.stage_dir("self_fusion"))
    assert model.config.norm_groups is None
    assert model.config.dropout == 0.1


@pytest.mark.parametrize(("norm", "groups"), [("property", (8, 8)), ("rule", None)])
def test_models_of_two_sources(run, tmp_path, norm, groups):
    twin = dataclasses.replace(run, workdir=RunState(tmp_path))
    for name in ("small_0", "small_1"):
        shutil.copytree(run.workdir.stage_dir("small_0"), twin.workdir.stage_dir(name))
    stage = Stage("big", "M", f"fusion_{norm}", ("small_0", "small_1"))
    with pytest.warns(kf.SymmetryWarning):
        model, steps = make_model(stage, settings_of(stage, noise="0"), twin)
    assert steps == {"small_0": 3, "small_1": 3}
    assert model.config.norm_groups == groups
    assert model.config.hidden_dim == 16
    assert loss_of(model, run) == pytest.approx(run.workdir.record("small_0")["loss"], rel=1e-5)


def test_noise_and_seed_reach_the_fusion(run, tmp_path):
    twin = dataclasses.replace(run, workdir=RunState(tmp_path))
    shutil.copytree(run.workdir.stage_dir("small_0"), twin.workdir.stage_dir("small_0"))

    def kernel(**flags):
        model, _ = make_model(FUSED, settings_of(FUSED, **flags), twin)
        return keras.ops.convert_to_numpy(model.head.kernel), [
            keras.ops.convert_to_numpy(v) for v in model.weights if "query" in v.path
        ][0]

    head, query = kernel(noise="0.1", seed="1")
    same_head, same_query = kernel(noise="0.1", seed="1")
    _, reseeded = kernel(noise="0.1", seed="2")
    np.testing.assert_array_equal(query, same_query)
    np.testing.assert_array_equal(head, same_head)
    np.testing.assert_array_equal(query[:8, :8], reseeded[:8, :8])
    assert (query[:8, 8:] != reseeded[:8, 8:]).all()
    scale = np.sqrt(np.mean(query[:8, :8] ** 2))
    assert np.std(query[:8, 8:]) == pytest.approx(0.1 * scale, rel=0.3)


@pytest.mark.slow  # loop_test.py stops runs
def test_a_stage_that_was_stopped_ends_as_one_that_was_not(run, tmp_path):
    """Its folder as a kill between step 2 and step 3 would leave it."""
    twin = dataclasses.replace(run, workdir=RunState(tmp_path))
    shutil.copytree(run.workdir.stage_dir("small_0"), twin.workdir.stage_dir("small_0"))
    folder = twin.workdir.stage_dir("small_0")
    (folder / "record.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step_00000003")
    record = run_stage(SMALL, settings_of(SMALL), twin)
    whole = run.workdir.record("small_0")
    for field in ("loss", "accuracy", "tokens", "flops", "steps", "parameters"):
        assert record[field] == whole[field], field
    assert [point["loss"] for point in record["curve"]] == [p["loss"] for p in whole["curve"]]


def test_a_fused_stage_that_was_stopped_is_not_fused_again(run, tmp_path):
    twin = dataclasses.replace(run, workdir=RunState(tmp_path))
    asked = settings_of(FUSED, noise="0", dropout="0.1")
    run_stage(FUSED, asked, run)
    shutil.copytree(run.workdir.stage_dir("self_fusion"), twin.workdir.stage_dir("self_fusion"))
    model, steps = make_model(FUSED, asked, twin)  # small_0 is not even there
    assert steps == {"small_0": 3}
    assert model.config.blocks["hidden"] == (8, 8)


def test_adamw_works_everywhere(run, tmp_path):
    twin = dataclasses.replace(run, workdir=RunState(tmp_path))
    record = run_stage(SMALL, settings_of(SMALL, optimizer="adamw", steps="2"), twin)
    assert record["loss"] < record["curve"][0]["loss"]


ON_TWO_DEVICES = """
import pathlib
import sys

import pytest
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.trainers import nano
from trainers import pretrain

with pytest.MonkeyPatch.context() as patch:
    nano.define(patch)
    patch.setattr(pretrain.reports, "write_report", lambda folder: folder)
    mirrored = tf.distribute.MirroredStrategy
    patch.setattr(tf.distribute, "MirroredStrategy", lambda: mirrored(["CPU:0", "CPU:1"]))
    data_dir = nano.write_tokens(pathlib.Path(sys.argv[1]))
    for strategy in ("mirrored", "one_device"):
        where = [f"--data_dir={data_dir}", f"--workdir={sys.argv[1]}/{strategy}"]
        how = ["--size=nano", "--noprogress", f"--strategy={strategy}"]
        pretrain.pretrain(nano.config_of(pretrain, "--plan=fusion_property", *how, *where))
"""


@pytest.mark.slow
def test_stages_on_two_devices_are_those_on_one(tmp_path):
    """Stages of two sizes in one process; it is one of its own, since it begins with two CPUs."""
    root = pathlib.Path(__file__).resolve().parents[3]
    subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
        timeout=300,
    )
    for name in ("small_0", "small_1", "fusion_property"):
        records = [RunState(tmp_path / s).record(name) for s in ("mirrored", "one_device")]
        assert [record["devices"] for record in records] == [2, 1]
        losses = [[point["loss"] for point in record["curve"]] for record in records]
        np.testing.assert_allclose(*losses, rtol=1e-4)
