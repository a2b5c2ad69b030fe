"""What a fused stage begins with: the bits of fused models, from files of which none is built."""

import numpy as np
import pytest

import keras_fusion as kf
from tests.trainers import nano
from trainers.checkpoints import models
from trainers.engines.devices import Devices, engine_factory
from trainers.engines.state import state_variables
from trainers.plans import settings
from trainers.plans.graph import Stage
from trainers.pretraining import stage
from trainers.runs.state import RunState

STAGE = Stage("big", "M", "fusion_rule", ("small_0", "small_1"))
FLAGS = {"norm": "rule", "noise": "0.2", "seed": "3", "dropout": "0.1"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in which two small stages have a checkpoint each."""
    nano.define(monkeypatch)
    found = stage.Run(
        workdir=RunState(tmp_path),
        size=nano.NANO,
        data_dir=tmp_path,
        vocabulary_size=128,
        batch_size=2,
        input_length=16,
        eval_batches=2,
        make_engine=engine_factory(Devices()),
    )
    for seed, name in enumerate(STAGE.sources):
        model = kf.models.T5(found.config("S"), seed=seed)
        models.save_model(model, found.workdir.stage_dir(name), {})
    return found


def test_the_bits_of_fused_models(run, monkeypatch):
    models = [
        models.load_model(run.workdir.stage_dir(name), dropout=0.1)[0] for name in STAGE.sources
    ]
    parsed = {name: settings.parse(name, text) for name, text in FLAGS.items()}
    found = settings.resolve(STAGE, nano.NANO, parsed)
    expected = models[0].fuse(models[1], norm="rule", noise=0.2, seed=found.seed)
    built = []
    build = kf.models.T5.build
    monkeypatch.setattr(kf.models.T5, "build", lambda self, *_: built.append(self) or build(self))
    model, steps = stage.make_model(STAGE, found, run)
    assert [each for each in built if each.name != "skeleton"] == [model]
    assert steps == {"small_0": 0, "small_1": 0}
    assert (model.config, model.seed) == (expected.config, expected.seed)
    assert model.config.dropout == 0.1
    expected = state_variables(expected)
    for name, variable in state_variables(model).items():
        np.testing.assert_array_equal(variable, expected[name], err_msg=name)
