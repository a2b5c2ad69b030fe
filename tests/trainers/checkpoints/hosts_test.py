"""Checkpoints that several hosts write and read together, each its part."""

import dataclasses
import hashlib
import json
import os
import threading
import warnings

import numpy as np
import pytest

from tests.trainers.engines.hosts_support import on_hosts
from trainers import checkpoints
from trainers.checkpoints import CheckpointWarning, Keep, Part, Writer
from trainers.checkpoints import writer as writers
from trainers.engines.state import part_name
from trainers.errors import UserError

KERNEL = np.arange(24, dtype=np.float32).reshape(4, 6)
WHOLE = {"model/kernel": KERNEL, "optimizer/kernel/m": -KERNEL, "optimizer/iteration": np.array(7)}
SHAPES = {name: value.shape for name, value in WHOLE.items()}


def part_of(host, count=2):
    """Rows of a host, and the count of steps on the first one."""
    rows = slice(host * 4 // count, (host + 1) * 4 // count)
    state = {
        part_name(name, (rows.start, 0)): WHOLE[name][rows] for name in WHOLE if "kernel" in name
    }
    return state if host else state | {part_name("optimizer/iteration", ()): np.array(7)}


def save(folder, step=3, count=2, token="t1", hosts=None):
    """Saves on hosts, by default on all of them at once; returns what each got."""
    hosts = range(count) if hosts is None else hosts
    parts = [Part(host, count, token) for host in range(count)]

    def save_one(host):
        return checkpoints.save(folder, step, part_of(host, count), {"a": 1}, 0.5, parts[host])

    threads = [threading.Thread(target=save_one, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return parts


def assert_whole(checkpoint):
    assert (checkpoint.step, checkpoint.score, checkpoint.config) == (3, 0.5, {"a": 1})
    state = checkpoint.state()
    assert state.keys() == WHOLE.keys() and checkpoint.shapes() == SHAPES
    for name, value in state.items():
        np.testing.assert_array_equal(np.asarray(value), WHOLE[name], err_msg=name)


@pytest.mark.parametrize("count", [2, 4])
def test_parts_of_hosts_are_one_checkpoint(tmp_path, count):
    save(tmp_path, count=count)
    (folder,) = tmp_path.iterdir()
    files = [file.name for file in folder.glob("*.safetensors")]
    assert len(files) == 2 * count and f"model-00001-of-0000{count}.safetensors" in files
    assert {file.name for file in folder.iterdir()} == {*files, "manifest.json", "COMMITTED"}
    assert_whole(checkpoints.load(folder))
    assert_whole(checkpoints.latest(tmp_path, SHAPES))
    hashes = {checkpoints.read_manifest(folder).weights_sha256}
    save(tmp_path, count=count)
    hashes.add(checkpoints.read_manifest(folder).weights_sha256)
    assert len(hashes) == 1


def test_there_is_no_checkpoint_before_every_host_has_written(tmp_path):
    save(tmp_path, hosts=[1])
    assert checkpoints.steps(tmp_path) == []
    # What a run that was killed has left is not taken for a part of the next one.
    save(tmp_path, token="t2", hosts=[1])
    save(tmp_path, token="t2", hosts=[0])
    assert checkpoints.steps(tmp_path) == [3] and len(list(tmp_path.iterdir())) == 1
    assert_whole(checkpoints.latest(tmp_path))


def test_a_host_whose_others_are_gone_ends_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "GRACE_SECONDS", 0.0)
    with pytest.warns(CheckpointWarning, match="without host-00001.json"):
        with pytest.raises(ValueError, match="another fault"):
            with Writer(tmp_path, Keep(), Part(0, 2, "t1")) as writer:
                writer.save(3, part_of(0), {})
                raise ValueError("another fault")
    assert list(tmp_path.iterdir()) == []


def test_the_first_host_removes_what_is_too_old(tmp_path):
    def run(host):
        with Writer(tmp_path, Keep(1, best=False), Part(host.host, 2)) as writer:
            for step in (1, 2, 3):
                token = host.gather(f"t{step}")[0]
                writer.part = dataclasses.replace(writer.part, token=token)
                writer.save(step, part_of(host.host), {"a": 1}, 0.5)
                writer.wait()
                host.agree(False)

    assert on_hosts(run) == [None, None]
    assert checkpoints.steps(tmp_path) == [3]
    assert_whole(checkpoints.latest(tmp_path))


def damage(folder, step, name):
    """Changes a byte of a tensor."""
    path = folder / checkpoints.step_folder(step) / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["model", "training"])
@pytest.mark.parametrize("host", [1, 2])
def test_a_changed_byte_is_found_by_one_host_and_known_to_all(tmp_path, kind, host):
    for step in (2, 3):
        save(tmp_path, step)
    damage(tmp_path, 3, f"{kind}-0000{host}-of-00002.safetensors")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        newest = on_hosts(lambda host: checkpoints.latest(tmp_path, SHAPES, host))
    assert [checkpoint.step for checkpoint in newest] == [2, 2]
    assert all(f"{kind}-0000{host}" in str(warning.message) for warning in caught) and caught


def test_hosts_share_the_hashing_of_a_checkpoint(tmp_path, monkeypatch):
    save(tmp_path)
    read, hashed = checkpoints.reading.tensors.read, []

    def reading(path, digest=None, is_hashed=True):
        hashed.append((os.path.basename(path), is_hashed))
        return read(path, digest, is_hashed)

    monkeypatch.setattr(checkpoints.reading.tensors, "read", reading)
    for checkpoint in on_hosts(lambda host: checkpoints.latest(tmp_path, SHAPES, host)):
        assert_whole(checkpoint)
    assert len(hashed) == 8
    assert len({name for name, is_hashed in hashed if is_hashed}) == 4
    assert sum(is_hashed for _, is_hashed in hashed) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.pop("model-00002-of-00002.safetensors"),
        lambda files: files.update({"../model.safetensors": files.pop(next(iter(files)))}),
        lambda files: files.clear(),
    ],
)
def test_a_manifest_names_the_files_of_all_hosts_and_no_others(tmp_path, change):
    save(tmp_path)
    (folder,) = tmp_path.iterdir()
    fields = json.loads((folder / "manifest.json").read_text())
    change(fields["files"])
    content = json.dumps(fields).encode()
    (folder / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "COMMITTED").write_text(digest + "\n")
    with pytest.raises(UserError, match="manifest.json of another format"):
        checkpoints.load(folder)
