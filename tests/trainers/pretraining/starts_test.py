"""Stages after a fusion: optimizer state, schedule, blocks, growing axes, depth; as trained."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.schedules import InverseSquareRoot
from tests.trainers import killing, nano
from trainers import pretrain
from trainers.checkpoints import models
from trainers.engines.state import state_variables
from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans import settings
from trainers.plans.graph import Stage
from trainers.pretraining import starts
from trainers.runs.rates import learning_rate
from trainers.runs.state import RunState
from trainers.training.optimizers import OPTIMIZERS

RATE = {"warmup_steps": 2, "learning_rate_scale": 0.1}
CONTINUES = {"optimizer_state": "grown", "schedule": "continue"}
UNEQUAL = {"fill": "copies", "asymmetry": 0.2}


def fused(name, source, size, init="self_fusion", copies=2, **fixed):
    fields = {"name": name, "size": size, "init": init, "sources": [source], "copies": copies}
    without_noise = {"noise": 0} if init == "self_fusion" else {}
    return fields | {"settings": RATE | without_noise | fixed}


PLAN = {
    "name": "mine",
    "stages": [
        {"name": "small", "size": "S", "settings": {"steps": 4, **RATE}},
        fused("kept", "small", "M", **CONTINUES, rewarmup_steps=2, dropout=0.1, **UNEQUAL),
        fused("mlp", "small", "S", grow="mlp", **CONTINUES),
        fused("rest", "mlp", "M", grow="hidden+heads", **CONTINUES),
        fused("stacked", "small", "M", init="stacked", schedule="continue"),
        fused("again", "small", "S", init="restarted", copies=1),
    ],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, patch):
    folder = tmp_path_factory.mktemp("starts")
    nano.write_tokens(folder)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    pretrain.pretrain(asked(folder))
    # One report of all of it is enough.
    patch.setattr(pretrain.reports, "write_report", lambda folder: folder)
    return folder


def asked(folder, *arguments, workdir="w", plan=None):
    (data_dir,) = (folder / "data").glob("text-*")
    where = (f"--data_dir={data_dir}", f"--workdir={folder}/{workdir}", "--size=nano")
    plan = plan or f"--plan_file={folder}/plan.json"
    return nano.config_of(pretrain, plan, "--noprogress", *where, *arguments)


def start_of(world, source="small", **fixed):
    """The start of a self-fused stage that has not begun, and its settings."""
    stage = Stage("new", "M", "self_fusion", (source,), copies=2, settings=RATE | fixed)
    resolved = settings.resolve(stage, nano.NANO)
    return starts.start_of(stage, resolved, RunState(world / "w")), resolved


def plain(step):
    """The sources' learning rate."""
    return float(InverseSquareRoot(2, scale=0.1)(step))


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_grown_state_is_that_of_a_fused_compiled_model(world, optimizer):
    checkpoint = models.find_checkpoint(world / "w" / "small")
    source = models.build_model(checkpoint)
    source.compile(optimizer=OPTIMIZERS[optimizer](0.1), loss="mse")
    source.optimizer.build(source.trainable_variables)
    rng = np.random.default_rng(0)
    slots = {
        name: variable
        for name, variable in state_variables(source, source.optimizer).items()
        if name.startswith("optimizer/") and len(variable.shape)
    }
    for variable in slots.values():
        variable.assign(rng.uniform(1, 2, variable.shape))
    compiled = kf.self_fuse(source, 2, noise=0.1, norm="rule", optimizer="grow")
    compiled = state_variables(compiled, compiled.optimizer)

    training = {name: np.array(variable) for name, variable in slots.items()}
    checkpoint = dataclasses.replace(checkpoint, training=training)
    grown = models.grown_slots([checkpoint] * 2, ("hidden", "heads", "mlp"), "all")
    assert grown.keys() == slots.keys()
    for name, value in grown.items():
        np.testing.assert_allclose(value, np.array(compiled[name]), rtol=1e-6, err_msg=name)


def test_the_optimizer_keeps_its_step_count(world):
    names = ("kept", "stacked", "again")
    ended = {name: models.find_checkpoint(world / "w" / name) for name in names}
    counts = {name: models.optimizer_steps(checkpoint) for name, checkpoint in ended.items()}
    assert counts == {"kept": 4 + 3, "stacked": 3, "again": 3}


@pytest.mark.parametrize(
    ("source", "fixed", "iterations", "position"),
    [
        ("small", {}, 0, 0),
        ("small", CONTINUES, 4, 4),
        ("small", {"schedule": "continue"}, 0, 4),
        ("small", {"optimizer_state": "grown_first"}, 4, 0),
        ("small", CONTINUES | {"learning_rate_offset": 3}, 4, 7),
        ("rest", CONTINUES, 10, 10),
        # A source with a fresh optimizer whose own schedule continues another one.
        ("stacked", {"schedule": "continue"}, 0, 7),
    ],
)
def test_the_learning_rate_is_that_of_the_source_or_of_a_new_run(
    world, source, fixed, iterations, position
):
    start, resolved = start_of(world, source, **fixed)
    rate = starts.learning_rate(resolved, start)
    assert start.iterations == iterations
    expected = [plain(position + step) for step in range(3)]
    assert [float(rate(iterations + step)) for step in range(3)] == pytest.approx(expected)


def test_the_learning_rate_rises_onto_the_continued_schedule(world):
    start, resolved = start_of(world, rewarmup_steps=2, **CONTINUES)
    rate = starts.learning_rate(resolved, start)
    expected = [plain(4) / 2, plain(5), plain(6)]
    assert [float(rate(4 + step)) for step in range(3)] == pytest.approx(expected)
    logged = (world / "w" / "kept" / "metrics.jsonl").read_text().splitlines()
    trained = [line for line in map(json.loads, logged) if line["kind"] == "train"]
    assert trained[-1]["learning_rate"] == pytest.approx(plain(6))
    assert RunState(world / "w").record("kept")["learning_rate"]["offset"] == 4


def test_the_learning_rate_falls_to_zero_at_the_end(world):
    ramps = {"rewarmup_steps": 2, "decay_steps": 2}
    start, resolved = start_of(world, steps=3, **ramps, **CONTINUES)
    rate = starts.learning_rate(resolved, start)
    expected = [plain(4) / 2, plain(5), plain(6) / 2]
    assert [float(rate(4 + step)) for step in range(3)] == pytest.approx(expected)
    facts = {"warmup_steps": 2, "offset": 4, "scale": 0.1, **ramps}
    assert [learning_rate(facts, step, 3) for step in range(3)] == pytest.approx(expected)


def test_only_blocks_that_are_kept_have_state(world):
    start, _ = start_of(world, optimizer_state="grown_first")
    name = "optimizer/encoder/block_0/self_attention/query/kernel/v"
    slots = models.find_checkpoint(world / "w" / "small").training[name]
    rows, columns = slots.shape
    np.testing.assert_allclose(start.state[name][:rows, :columns], slots / 4)
    assert not start.state[name][rows:].any() and not start.state[name][:, columns:].any()


def test_a_stage_that_continues_has_the_schedule_of_its_source(world):
    stage = Stage("longer", "M", "continued", ("kept",))
    resolved = settings.resolve(stage, nano.NANO)
    start = starts.start_of(stage, resolved, RunState(world / "w"))
    assert start.to_dict() == {"first_batch": 3, "iterations": 4, "schedule_step": 4}
    assert not start.is_partial


@pytest.mark.parametrize("name", ["kept", "mlp", "rest", "again"])
def test_the_function_is_kept(world, name):
    workdir = RunState(world / "w")
    source = workdir.record(workdir.record(name)["sources"][0])
    first = workdir.record(name)["curve"][0]
    assert first["loss"] == pytest.approx(source["loss"], rel=1e-5)


def test_models_between_the_sizes(world):
    workdir = RunState(world / "w")
    fields = ("hidden_dim", "num_heads", "intermediate_dim", "num_layers")
    shapes = {
        name: tuple(workdir.stage(name)["model"][field] for field in fields)
        for name in ("small", "mlp", "rest", "kept", "stacked", "again")
    }
    assert shapes == {
        "small": (8, 2, 16, 1),
        "mlp": (8, 2, 32, 1),
        "rest": (16, 4, 32, 1),
        "kept": (16, 4, 32, 1),
        "stacked": (8, 2, 16, 2),
        "again": (8, 2, 16, 1),
    }
    costs = {name: workdir.record(name)["flops"] / workdir.record(name)["steps"] for name in shapes}
    assert costs["small"] == costs["again"] < costs["mlp"] < costs["rest"] == costs["kept"]
    assert workdir.stage("mlp")["identity"]["model.intermediate_dim"] == 32


@pytest.mark.slow  # loop_test.py interrupts runs
def test_a_stage_that_was_interrupted_ends_as_one_that_was_not(world, patch):
    shutil.copytree(world / "w", world / "w2")
    shutil.rmtree(world / "w2" / "kept")
    config = asked(world, "--stage=kept", workdir="w2")
    assert killing.train_through_kills(patch, config, "kept") > 1
    left, right = (models.find_checkpoint(world / w / "kept").state() for w in ("w", "w2"))
    assert left.keys() == right.keys()
    for path, value in left.items():
        np.testing.assert_array_equal(value, right[path], err_msg=path)


def test_state_of_another_optimizer_is_refused(world):
    with pytest.raises(UserError, match="one optimizer of stage 'kept'.*'adamw', and 'adafactor'"):
        asked(world, "--optimizer=kept:adamw")


def test_theory_of_copies_is_refused(world):
    with pytest.raises(UserError, match="diagonal.*stage='kept' with fill='copies'"):
        asked(world, "--theory_every=1")


def test_sources_at_different_steps_are_refused(world):
    stage = Stage("both", "M", "fusion_rule", ("small", "mlp"), settings={"schedule": "continue"})
    with pytest.raises(UserError, match="small at 4, 4, mlp at 7, 7"):
        starts.start_of(stage, settings.resolve(stage, nano.NANO), RunState(world / "w"))


def test_muon_trains(world):
    pretrain.pretrain(asked(world, "--optimizer=muon", workdir="w3", plan="--plan=baseline"))
    record = read_json(world / "w3" / "baseline" / "record.json")
    assert record["loss"] < record["curve"][0]["loss"]
    slots = models.find_checkpoint(world / "w3" / "baseline").training
    adam = {name.rsplit("/", 1)[0] for name in slots if name.endswith("velocity")}
    momentum = {name.rsplit("/", 1)[0] for name in slots if name.endswith("momentum")}
    # Matrices of layers have momentum alone; embedding, head, biases and scales AdamW's state.
    assert "optimizer/encoder/block_0/self_attention/query/kernel" in momentum - adam
    assert {"optimizer/token_embedding/embeddings", "optimizer/head/kernel"} <= adam
    kernels = {name for name in adam if name.endswith("kernel")}
    assert kernels == {"optimizer/head/kernel"}
