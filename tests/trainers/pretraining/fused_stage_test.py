"""A fused stage begins with the bits of fused models, from files of which none is built."""

import numpy as np
import pytest

import keras_fusion as kf
from tests.trainers import nano
from trainers.checkpoints import models
from trainers.engines.devices import Devices, engine_factory
from trainers.engines.state import state_variables
from trainers.plans import settings
from trainers.plans.graph import Stage
from trainers.pretraining.config import PretrainConfig
from trainers.pretraining.stage import Run, make_model
from trainers.runs.state import RunState

STAGE = Stage("big", "M", "fusion_rule", ("small_0", "small_1"))
FLAGS = {"norm": "rule", "noise": "0.2", "seed": "3", "dropout": "0.1"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in which two small stages have a checkpoint each."""
    nano.define(monkeypatch)
    run = Run(
        config=PretrainConfig(("self_fusion",), size="nano", workdir=str(tmp_path)),
        workdir=RunState(tmp_path),
        texts=(tmp_path,),
        vocabulary_size=128,
        make_engine=engine_factory(Devices()),
    )
    for seed, name in enumerate(STAGE.sources):
        model = kf.models.T5(run.model_config("S"), seed=seed)
        models.save_model(model, run.workdir.stage_dir(name), {})
    return run


def test_the_bits_of_fused_models(run, monkeypatch):
    folders = map(run.workdir.stage_dir, STAGE.sources)
    small, other = (models.load_model(folder, dropout=0.1)[0] for folder in folders)
    parsed = {name: settings.parse(name, text) for name, text in FLAGS.items()}
    asked = settings.resolve(STAGE, nano.NANO, parsed)
    expected = small.fuse(other, norm="rule", noise=0.2, seed=asked.seed)
    built = []
    build = kf.models.T5.build
    monkeypatch.setattr(kf.models.T5, "build", lambda self, *_: built.append(self) or build(self))
    model, steps = make_model(STAGE, asked, run)
    assert [layer for layer in built if layer.name != "skeleton"] == [model]
    assert steps == {"small_0": 0, "small_1": 0}
    assert (model.config, model.seed) == (expected.config, expected.seed)
    assert model.config.dropout == 0.1
    expected = state_variables(expected)
    for name, variable in state_variables(model).items():
        np.testing.assert_array_equal(variable, expected[name], err_msg=name)
