"""Damage by the faults table, and the comparison of what is left."""

import random

from tests.faults import compare, damage
from tests.trainers.storage import support
from trainers.checkpoints import MARKER_FILE, step_folder


def test_a_removed_folder_is_none_that_no_run_makes_anew(tmp_path):
    """An older checkpoint goes only with all others."""
    workdir = tmp_path / "W"
    for step in (0, 3):
        folder = workdir / "a/checkpoints" / step_folder(step)
        folder.mkdir(parents=True)
        (folder / MARKER_FILE).write_text("")
    (workdir / "a/tensorboard").mkdir()
    (workdir / "a/tensorboard/events").write_bytes(b"1")
    removed, before = set(), support.read(tmp_path)
    for seed in range(40):
        name, repair = damage.remove_folder(random.Random(seed), [workdir])
        removed.add(name)
        repair()
        assert support.read(tmp_path) == before
    assert removed == {"W", "a", "checkpoints", f"a/{step_folder(3)}"}


def test_nothing_to_damage_is_nothing_to_repair(tmp_path):
    for damages in (damage.flip, damage.cut):
        name, repair = damages(random.Random(0), [tmp_path])
        assert name == "" and repair(if_left=True) is None
    name, repair = damage.remove_folder(random.Random(0), [tmp_path / "W"])
    assert name == "" and repair() is None


def test_text_that_a_kill_has_cut_is_compared_as_it_is(tmp_path):
    (tmp_path / "whole.json").write_text('{"seconds": 1, "a": 2}')
    files = {"cut.json": b'{"seconds": 1, "a', "metrics.jsonl": b'{"seconds": 1}\n{"a'}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert compare.content(tmp_path) == files | {"whole.json": b'{"a": 2}'}


def test_a_repair_may_leave_what_was_written_since(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"right")
    _, repair = damage.cut(random.Random(0), [tmp_path])
    assert path.read_bytes() != b"right"
    repair(if_left=True)
    assert path.read_bytes() == b"right"
    _, repair = damage.cut(random.Random(0), [tmp_path])
    path.write_bytes(b"wrong")
    repair(if_left=True)
    assert path.read_bytes() == b"wrong"
    repair()
    assert path.read_bytes() == b"right"


def test_a_checkpoint_of_a_stop_is_nothing_that_was_lost():
    three = {"a/checkpoints/step_00000003/model.safetensors": b"3"}
    zero = {"a/checkpoints/step_00000000/model.safetensors": b"0"}
    assert compare.lost(three, three | zero) == {}
    assert compare.lost(three | zero, three) == {next(iter(zero)): 1}
    assert compare.lost(zero, three | zero) == {next(iter(three)): 1}
    assert compare.lost(three, three | {"b/checkpoints/step_00000000/COMMITTED": b""}) != {}
