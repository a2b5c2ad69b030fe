"""Damaged checkpoints of a bucket: programs take the one that they would take on a disk."""

import os
import pathlib
import shutil
import warnings

import fsspec
import numpy as np
import pytest

from tests.trainers.storage import support
from trainers import checkpoints
from trainers.checkpoints.models import find_checkpoint
from trainers.errors import UserError
from trainers.storage import Kind, Places, lease, remote, shown

URL = "memory://bucket/W"
SAVES = "small_0/checkpoints"
STEPS = (3, 6, 9)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "CONFIRM_SECONDS", 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run with three checkpoints."""
    home = tmp_path_factory.mktemp("run")
    for step in STEPS:
        state = {"model/a": np.full(4, step, np.float32), "optimizer/iteration": np.array(step)}
        checkpoints.save(home / SAVES, step, state, {"settings": {}})
    return home


def cut(path):
    os.truncate(path / "model.safetensors", 20)


def changed(path):
    content = bytearray((path / "training.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "training.safetensors").write_bytes(content)


def without_weights(path):
    (path / "model.safetensors").unlink()


def without_manifest(path):
    (path / "manifest.json").unlink()


def with_another_marker(path):
    (path / "COMMITTED").write_text("0" * 64)


def without_marker(path):
    (path / "COMMITTED").unlink()


DAMAGES = (cut, changed, without_weights, without_manifest, with_another_marker, without_marker)


def damaged(run, folder, *damages):
    """A copy of the run with the newest checkpoints damaged, on the disk and in the bucket."""
    shutil.copytree(run, folder)
    for step, damage in zip(reversed(STEPS), damages, strict=False):
        damage(folder / SAVES / checkpoints.step_folder(step))
    send(folder)
    return folder


def send(folder):
    support.send(URL, {name: folder / name for name in support.read(folder)})


def taken(folder):
    """Returns step and state that are read of a folder, and the warnings, with F for its name."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        checkpoint = checkpoints.latest(folder)
    state = {name: value.tolist() for name, value in checkpoint.state().items()}
    lines = [shown(str(warning.message)).replace(str(folder), "F") for warning in warned]
    return checkpoint.step, state, [line.replace(f"{URL}/{SAVES}", "F") for line in lines]


@pytest.mark.parametrize("kind", [Kind.READ, Kind.KEPT, Kind.RUN], ids=lambda kind: kind.name)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_one_is_named_and_passed_over_as_on_a_disk(run, tmp_path, damage, kind):
    disk = damaged(run, tmp_path / "disk", damage)
    there = support.content(URL)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, kind))
        received = taken(folder / SAVES)
    assert received == taken(disk / SAVES)
    assert received[0] == 6 and len(received[2]) == 1 and "step_00000009" in received[2][0]
    # Nothing was removed.
    assert there.items() <= support.content(URL).items()


@pytest.mark.parametrize("damages", [(cut, changed), (without_marker, cut), (cut, without_marker)])
def test_several_damaged_ones_are_passed_over(run, tmp_path, damages):
    disk = damaged(run, tmp_path / "disk", *damages)
    for url, home in ((URL, SAVES), (f"{URL}/{SAVES}", "")):
        with Places() as program:
            received = taken(pathlib.Path(program.local(url, Kind.READ)) / home)
        assert received == taken(disk / SAVES)
        assert received[0] == 3 and len(received[2]) == 2


def test_a_program_asks_for_a_stage_and_says_where_the_damage_is(run, tmp_path):
    damaged(run, tmp_path / "disk", cut)
    with Places() as program:
        stage = program.local(f"{URL}/small_0", Kind.READ)
        with pytest.warns(checkpoints.CheckpointWarning) as warned:
            assert find_checkpoint(stage).step == 6
        line = shown(str(warned[0].message))
    assert f"{URL}/small_0/checkpoints/step_00000009/model.safetensors of 20 bytes" in line


@pytest.mark.filterwarnings("ignore::trainers.checkpoints.CheckpointWarning")
def test_only_damaged_ones_are_an_error_with_their_number(run, tmp_path):
    damaged(run, tmp_path / "disk", cut, cut, cut)
    with Places() as program, pytest.raises(UserError, match="3 damaged ones, the newest step_0+9"):
        checkpoints.latest(pathlib.Path(program.local(URL, Kind.READ)) / SAVES)


def test_one_without_a_marker_alone_may_be_half_sent_and_is_no_checkpoint(run, tmp_path):
    damaged(run, tmp_path / "disk", *[without_marker] * 3)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.RUN))
        with pytest.warns(checkpoints.CheckpointWarning, match="no readable COMMITTED") as warned:
            assert checkpoints.latest(folder / SAVES) is None
    for step, line in zip(reversed(STEPS), warned, strict=True):
        assert checkpoints.step_folder(step) in str(line.message)


def test_without_damage_one_checkpoint_is_brought(run, tmp_path, monkeypatch):
    damaged(run, tmp_path / "disk")
    brought, download = [], remote.Remote.download

    def counting(there, name, path):
        brought.append(name)
        download(there, name, path)

    monkeypatch.setattr(remote.Remote, "download", counting)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.READ))
        assert taken(folder / SAVES)[::2] == (9, [])
    assert {name.split("/")[2] for name in brought} == {"step_00000009"}


def test_a_run_that_passes_a_damaged_one_over_takes_its_place(run, tmp_path):
    """The run resumes at step 6 on another machine, and comes to step 9 again."""
    damaged(run, tmp_path / "disk", without_marker)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.RUN))
        assert taken(folder / SAVES)[0] == 6
        shutil.copytree(run / SAVES / "step_00000009", folder / SAVES / "step_00000009")
        assert taken(folder / SAVES)[::2] == (9, [])
    content = support.content(URL)
    del content[lease.LEASE_FILE]
    assert content == support.read(run)


@pytest.mark.filterwarnings("ignore::trainers.checkpoints.CheckpointWarning")
def test_what_is_restored_there_is_read_by_the_same_machine(run, tmp_path):
    """The same command again, after an error that asks to restore a checkpoint."""
    damaged(run, tmp_path / "disk", cut, cut, cut)
    with Places() as program, pytest.raises(UserError, match="Restore one"):
        checkpoints.latest(pathlib.Path(program.local(URL, Kind.RUN)) / SAVES)
    send(run)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.RUN))
        assert taken(folder / SAVES) == taken(run / SAVES)
        support.write(folder, {"run.json": b"{ahead}"})
    remote.Remote(URL).write("run.json", b"{}")
    with Places() as program:
        # The copy is ahead: what was sent by this machine is its own.
        assert support.read(pathlib.Path(program.local(URL, Kind.RUN)))["run.json"] == b"{ahead}"
