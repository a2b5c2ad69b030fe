"""Checkpoints: what comes back, which one is taken, and what damage does."""

import json
import os
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from trainers import checkpoints
from trainers.errors import UserError

CONFIG = {"settings": {"size": "tiny"}}


def make_state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "model/encoder/kernel": rng.normal(size=(3, 5)).astype(np.float32),
        "model/head": rng.normal(size=(4,)).astype(ml_dtypes.bfloat16),
        "optimizer/iterations": np.array(7, np.int64),
        "optimizer/encoder/kernel/v": rng.normal(size=(3, 5)).astype(np.float32),
        "seeds/dropout/0": np.array([1, 2], np.uint32),
    }


def assert_same(received, expected):
    assert received.keys() == expected.keys()
    for name, value in expected.items():
        assert received[name].dtype == value.dtype, name
        np.testing.assert_array_equal(received[name], value, err_msg=name)


def damage(path, kind):
    if kind == "flipped bit":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "truncated":
        os.truncate(path, path.stat().st_size - 1)
    else:
        path.unlink()


def test_comes_back_with_dtypes(tmp_path):
    path = checkpoints.save(tmp_path, 1000, make_state(), CONFIG)
    assert path.name == "step_00001000"
    found = checkpoints.load(path)
    assert (found.step, found.config) == (1000, CONFIG)
    assert_same(found.state(), make_state())


def test_model_file_is_plain_safetensors_with_the_models_names(tmp_path):
    path = checkpoints.save(tmp_path, 1, {"model/a/b": np.ones((2, 2), np.float32)}, {})
    np.testing.assert_array_equal(load_file(path / "model.safetensors")["a/b"], np.ones((2, 2)))


def test_manifest_says_hashes_and_versions(tmp_path):
    path = checkpoints.save(tmp_path, 1, make_state(), CONFIG)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.safetensors", "training.safetensors"}
    assert manifest["versions"]["keras"] == keras.version()
    assert manifest["config"] == CONFIG


def test_nothing_partial_is_left(tmp_path):
    (tmp_path / ".partial_step_00000001_dead").mkdir()
    checkpoints.save(tmp_path, 2, make_state(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


def test_same_step_is_replaced(tmp_path):
    checkpoints.save(tmp_path, 2, make_state(0), {})
    checkpoints.save(tmp_path, 2, make_state(1), {})
    assert_same(checkpoints.latest(tmp_path).state(), make_state(1))


def test_a_failed_save_leaves_the_older_one(tmp_path):
    checkpoints.save(tmp_path, 2, make_state(), {})
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path, 4, make_state(), {"not": object()})
    assert checkpoints.steps(tmp_path) == [2]
    assert len(list(tmp_path.iterdir())) == 1


def test_no_folder_or_empty_folder_is_no_checkpoint(tmp_path):
    assert checkpoints.latest(tmp_path / "absent") is None
    (tmp_path / "step_00000005").mkdir()
    (tmp_path / "step_of_something").mkdir()
    with pytest.warns(checkpoints.CheckpointWarning, match="no readable COMMITTED"):
        with pytest.raises(UserError, match="1 damaged ones"):
            checkpoints.latest(tmp_path)


@pytest.mark.parametrize("kind", ["flipped bit", "truncated", "missing"])
@pytest.mark.parametrize(
    "file", ["model.safetensors", "training.safetensors", "manifest.json", "COMMITTED"]
)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, file, kind):
    checkpoints.save(tmp_path, 1, make_state(1), {})
    path = checkpoints.save(tmp_path, 2, make_state(2), {})
    damage(path / file, kind)
    if (file, kind) == ("COMMITTED", "truncated"):  # lost its line feed only
        assert checkpoints.latest(tmp_path).step == 2
        return
    with pytest.warns(checkpoints.CheckpointWarning, match="step_00000002") as caught:
        found = checkpoints.latest(tmp_path)
    assert found.step == 1
    assert_same(found.state(), make_state(1))
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_only_damaged_ones_are_an_error_not_a_new_start(tmp_path):
    damage(checkpoints.save(tmp_path, 3, make_state(), {}) / "model.safetensors", "flipped bit")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="1 damaged ones, the newest step_00000003"):
            checkpoints.latest(tmp_path)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, make_state(), {})

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.tensor_files, "write", no_room)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoints.save(tmp_path, 2, make_state(), {})
    assert checkpoints.latest(tmp_path).step == 1


def make_model(width=4, seed=0, head="head"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(width)(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name=head)(hidden))


def save_model(folder, model):
    from trainers.engines.base import state_variables

    state = {name: v.numpy() for name, v in state_variables(model).items()}
    return checkpoints.save(folder, 1, state, {})


def test_weights_go_into_another_model_of_the_same_shape(tmp_path):
    source, target = make_model(seed=1), make_model(seed=2)
    checkpoints.load_weights_into(target, save_model(tmp_path, source))
    for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mismatches_are_listed_together_and_nothing_is_set(tmp_path):
    path = save_model(tmp_path, make_model(width=4))
    target = make_model(width=5, head="other")
    before = target.get_weights()
    with pytest.raises(UserError) as caught:
        checkpoints.load_weights_into(target, path)
    message = str(caught.value)
    for part in ("missing other/kernel", "unknown head/kernel", "dense/kernel expected (3, 5)"):
        assert part in message
    for a, b in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
