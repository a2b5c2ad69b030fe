"""Checkpoints: what comes back, which one is taken, and what damage does."""

import errno
import json
import os
import stat
import tracemalloc
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from trainers import checkpoints
from trainers.checkpoints import reading, tensors
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
    checkpoint = checkpoints.load(path)
    assert (checkpoint.step, checkpoint.config) == (1000, CONFIG)
    assert_same(checkpoint.state(), make_state())


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


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.latest(tmp_path / "absent") is None
    for name in ("step_of_something", "step_5", ".partial_step_00000005_0123abcd", "other"):
        (tmp_path / name).mkdir()
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.steps(tmp_path) == []


def empty(path):
    for file in path.iterdir():
        file.unlink()


def half_copied(path):
    (path / "manifest.json").unlink()
    (path / "COMMITTED").unlink()


def of_another_step(path):
    path.rename(path.with_name("step_00000003"))


def with_another_manifest(path):
    """Manifest and marker of the other checkpoint, which fit together."""
    for file in ("manifest.json", "COMMITTED"):
        (path / file).write_bytes((path.parent / "step_00000001" / file).read_bytes())


def with_another_model(path):
    content = (path.parent / "step_00000001" / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content)


def unreadable(path):
    """A folder in place of the manifest."""
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()


WHOLE_FOLDERS = {
    empty: "no readable COMMITTED",
    half_copied: "no readable COMMITTED",
    of_another_step: "step_00000003 with the manifest.json of step 2",
    with_another_manifest: "the manifest.json of step 1",
    with_another_model: "model.safetensors with changed bytes",
    unreadable: "no readable manifest.json",
}


@pytest.mark.parametrize("harm", WHOLE_FOLDERS, ids=lambda harm: harm.__name__)
def test_a_folder_that_is_no_whole_checkpoint_is_named_and_passed_over(tmp_path, harm):
    checkpoints.save(tmp_path, 1, make_state(1), {})
    harm(checkpoints.save(tmp_path, 2, make_state(2), {}))
    with pytest.warns(checkpoints.CheckpointWarning, match=WHOLE_FOLDERS[harm]) as caught:
        assert_same(checkpoints.latest(tmp_path).state(), make_state(1))
    assert len(caught) == 1 and str(caught[0].message).isprintable()


@pytest.mark.parametrize("harm", [empty, half_copied, of_another_step, unreadable])
@pytest.mark.filterwarnings("ignore::trainers.checkpoints.CheckpointWarning")
def test_the_only_one_harmed_is_an_error_not_a_new_start(tmp_path, harm):
    harm(checkpoints.save(tmp_path, 2, make_state(2), {}))
    with pytest.raises(UserError, match="1 damaged ones, the newest step_0000000[23]") as caught:
        checkpoints.latest(tmp_path)
    assert str(caught.value).isprintable()


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
        checkpoint = checkpoints.latest(tmp_path)
    assert checkpoint.step == 1
    assert_same(checkpoint.state(), make_state(1))
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json", "COMMITTED"])
def test_every_single_flipped_bit_is_found(tmp_path, file):
    """One bit of each byte in turn; all but the line feed after the marker counts."""
    path = checkpoints.save(tmp_path, 2, {"model/a": np.arange(3.0)}, {"a": "b"})
    content = (path / file).read_bytes()
    last = len(content) - (file == "COMMITTED")
    for index in range(last):
        changed = bytearray(content)
        changed[index] ^= 1 << index % 8
        (path / file).write_bytes(changed)
        with pytest.raises(UserError, match="step_00000002"):
            checkpoints.load(path)
    (path / file).write_bytes(content)
    assert checkpoints.load(path).step == 2


def test_only_damaged_ones_are_an_error_not_a_new_start(tmp_path):
    for step in (2, 3):
        damage(checkpoints.save(tmp_path, step, make_state(), {}) / "model.safetensors", "missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            UserError, match="2 damaged ones, the newest step_00000003.*No such file"
        ):
            checkpoints.latest(tmp_path)


def shapes(state):
    return {name: value.shape for name, value in state.items()}


def test_one_of_another_model_is_named_and_passed_over(tmp_path):
    unlike = make_state(2) | {"model/head": np.ones(5, np.float32), "model/more": np.ones(1)}
    checkpoints.save(tmp_path, 1, make_state(1), {})
    checkpoints.save(tmp_path, 2, unlike, {})
    assert checkpoints.latest(tmp_path).step == 2
    with pytest.warns(checkpoints.CheckpointWarning, match="unknown model/more .*expected") as seen:
        checkpoint = checkpoints.latest(tmp_path, shapes(make_state()))
    assert checkpoint.step == 1 and checkpoint.shapes() == shapes(make_state())
    assert len(seen) == 1 and "step_00000002" in str(seen[0].message)


@pytest.mark.filterwarnings("ignore::trainers.checkpoints.CheckpointWarning")
def test_only_ones_of_another_model_are_an_error(tmp_path):
    checkpoints.save(tmp_path, 1, make_state(), {})
    with pytest.raises(UserError, match="the newest step_00000001 .*missing model/more"):
        checkpoints.latest(tmp_path, shapes(make_state()) | {"model/more": (1,)})


def test_one_that_is_removed_while_it_is_read_was_not_damaged(tmp_path, monkeypatch):
    """Another process reads while the run continues: it saves 2 and removes 1."""
    checkpoints.save(tmp_path, 1, make_state(1), {})
    load, calls = reading.load, []

    def slow_load(path, share):
        if not calls:
            with checkpoints.Writer(tmp_path, checkpoints.Keep(newest=1)) as writer:
                writer.save(2, make_state(2), {})
        calls.append(path.name)
        return load(path, share)

    monkeypatch.setattr(reading, "load", slow_load)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.latest(tmp_path).step == 2
    assert calls == ["step_00000001", "step_00000002"]


def test_the_state_stays_on_the_disk_until_it_is_sliced(tmp_path):
    state = {"model/a": np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)}
    path = checkpoints.save(tmp_path, 1, state, {})
    tracemalloc.start()
    weight = checkpoints.load(path).state()["model/a"]
    part = weight[512:, :2]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.shares_memory(weight, part) and not weight.flags.owndata
    assert peak < state["model/a"].nbytes // 4
    np.testing.assert_array_equal(part, state["model/a"][512:, :2])


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, make_state(), {})

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "write", no_room)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoints.save(tmp_path, 2, make_state(), {})
    assert os.listdir(tmp_path) == ["step_00000001"]
    assert checkpoints.latest(tmp_path).step == 1


@pytest.mark.parametrize("at", range(6))
def test_room_that_ends_at_any_sync_leaves_the_older_one(tmp_path, monkeypatch, at):
    """Some file systems give out space late: a disk turns out to be full when a file is synced."""
    checkpoints.save(tmp_path, 1, make_state(1), {})
    left, sync = [at], os.fsync

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="step_00000002.*No space left on device"):
        checkpoints.save(tmp_path, 2, make_state(2), {})
    monkeypatch.undo()
    # The sixth is that of the folder, in which the new one already has its name.
    names = ["step_00000001"] if at < 5 else ["step_00000001", "step_00000002"]
    assert sorted(os.listdir(tmp_path)) == names
    assert checkpoints.latest(tmp_path).step == len(names)


def fail_for_folders(monkeypatch, number):
    """Has the system refuse to sync folders."""
    sync = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, 524])
def test_a_file_system_that_syncs_no_folders_is_warned_of_once(tmp_path, monkeypatch, number):
    fail_for_folders(monkeypatch, number)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        for step in (1, 2):
            checkpoints.save(tmp_path / str(number), step, make_state(step), {})
    assert [str(warning.message)[:38] for warning in warned] == [
        "The file system does not sync folders:"
    ]
    assert checkpoints.latest(tmp_path / str(number)).step == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_fault_of_the_disk_is_no_missing_sync(tmp_path, monkeypatch, number):
    fail_for_folders(monkeypatch, number)
    with pytest.raises(UserError, match=os.strerror(number)):
        checkpoints.save(tmp_path, 1, make_state(), {})


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Expected to write a checkpoint. Received: "):
        checkpoints.save(tmp_path / "file" / "checkpoints", 1, make_state(), {})
