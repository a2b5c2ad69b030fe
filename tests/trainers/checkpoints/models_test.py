"""Models from the folders of stages: which checkpoint is taken, and what comes back."""

import warnings

import keras
import numpy as np
import pytest

import keras_fusion as kf
from trainers import checkpoints
from trainers.checkpoints import models
from trainers.engines.state import state_variables
from trainers.errors import UserError

CONFIG = kf.models.T5Config(
    vocabulary_size=32,
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    key_value_dim=4,
    intermediate_dim=16,
    dropout=0.1,
)


@pytest.fixture
def stage(tmp_path):
    """A stage's folder with the checkpoints of steps 0 and 5, of different weights."""
    models.save_model(kf.models.T5(CONFIG, seed=0), tmp_path, {"note": "first"})
    later = kf.models.T5(CONFIG, seed=1)
    state = {
        name: keras.ops.convert_to_numpy(v.value) for name, v in state_variables(later).items()
    }
    config = {"settings": {"model": CONFIG.to_dict()}}
    checkpoints.save(tmp_path / "checkpoints", 5, state, config)
    return tmp_path


@pytest.mark.parametrize(
    ("inside", "step"),
    [("", 5), ("checkpoints", 5), ("checkpoints/step_00000000", 0)],
)
def test_folder_of_a_stage_of_checkpoints_or_of_one(stage, inside, step):
    assert models.find_checkpoint(stage / inside).step == step


def test_the_newest_good_checkpoint_counts(stage):
    (stage / "checkpoints" / "step_00000005" / "model.safetensors").write_bytes(b"")
    with pytest.warns(checkpoints.CheckpointWarning, match="step_00000005"):
        assert models.find_checkpoint(stage).step == 0


def test_a_model_comes_back_as_it_was(stage):
    model, checkpoint = models.load_model(stage / "checkpoints" / "step_00000000")
    assert checkpoint.config["settings"]["note"] == "first"
    assert model.config == CONFIG
    for weight, expected in zip(model.weights, kf.models.T5(CONFIG, seed=0).weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_dropout_can_be_another(stage):
    model, _ = models.load_model(stage, dropout=0.0)
    assert model.config.dropout == 0.0


def test_a_configuration_too_large_for_its_file_is_refused_before_it_is_built(tmp_path):
    settings = {"model": CONFIG.to_dict() | {"vocabulary_size": 10**12}}
    models.save_model(kf.models.T5(CONFIG, seed=0), tmp_path, settings)
    with warnings.catch_warnings(), pytest.raises(UserError, match="weights as its configuration"):
        warnings.simplefilter("error")
        models.load_model(tmp_path)
