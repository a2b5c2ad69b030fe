"""Background writing: what stays, whose error it is, memory."""

import os
import pathlib
import tracemalloc

import numpy as np
import pytest

from trainers import checkpoints
from trainers.checkpoints import CheckpointWarning, Keep, Writer, tensors
from trainers.errors import UserError


def make_state(seed=0):
    value = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
    return {"model/kernel": value, "optimizer/kernel/v": value + 1}


def fail_writing(monkeypatch, error):
    """The next files of tensors cannot be written, half of their bytes excepted."""
    write = tensors.write

    def broken(path, arrays):
        write(path, arrays)
        os.truncate(path, path.stat().st_size // 2)
        raise error

    monkeypatch.setattr(tensors, "write", broken)


NO_ROOM = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("keep", "scores", "stay"),
    [
        (Keep(1, False), {1: 0.5, 2: 0.7}, {2}),
        (Keep(2, False), {1: None, 5: None, 3: None}, {3, 5}),
        (Keep(1), {1: 0.5, 2: 0.7, 3: None}, {1, 3}),
        # Of equal ones the newest.
        (Keep(1), {1: 0.5, 2: 0.5, 3: 0.7}, {2, 3}),
        (Keep(1), {1: 0.7, 2: 0.5}, {2}),
        (Keep(1), {1: None, 2: None}, {2}),
        (Keep(1, False, every=10), {0: None, 5: None, 10: None, 25: None}, {0, 10, 25}),
        (
            Keep(2, True, every=300),
            {100: 3, 200: 1, 300: None, 400: 2, 500: 2},
            {200, 300, 400, 500},
        ),
        (Keep(), {}, set()),
    ],
)
def test_what_stays(keep, scores, stay):
    assert keep.of(scores) == stay


@pytest.mark.parametrize("fields", [{"newest": 0}, {"newest": 1.5}, {"every": -1}, {"every": 0}])
def test_what_cannot_be_kept(fields):
    with pytest.raises(UserError, match=f"Received: {next(iter(fields))}="):
        Keep(**fields)


def test_keeps_the_newest_the_best_and_every_nth(tmp_path):
    with Writer(tmp_path, Keep(newest=2, every=300)) as writer:
        for step, score in [(100, 3.0), (200, 1.0), (300, None), (400, 2.0), (500, float("nan"))]:
            writer.save(step, make_state(step), {}, score)
    assert checkpoints.steps(tmp_path) == [200, 300, 400, 500]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        checkpoints.step_folder(step) for step in (200, 300, 400, 500)
    ]
    assert checkpoints.load(tmp_path / "step_00000200").score == 1.0
    assert checkpoints.load(tmp_path / "step_00000500").score is None


def test_the_best_of_an_earlier_process_stays(tmp_path):
    for step, score in [(1, 0.1), (2, 0.3), (3, 0.2)]:
        with Writer(tmp_path, Keep(newest=1)) as writer:
            writer.save(step, make_state(step), {}, np.float32(score))
    assert checkpoints.steps(tmp_path) == [1, 3]


def test_a_later_one_of_a_damaged_past_does_not_count(tmp_path):
    checkpoints.save(tmp_path, 30, make_state(), {}, score=0.0)
    with Writer(tmp_path, Keep(newest=2)) as writer:
        for step in (1, 2, 3):
            writer.save(step, make_state(step), {}, score=step)
    assert checkpoints.steps(tmp_path) == [1, 2, 3, 30]
    with Writer(tmp_path, Keep(newest=2)) as writer:
        writer.save(4, make_state(), {}, score=4)
    assert checkpoints.steps(tmp_path) == [1, 3, 4, 30]


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_a_damaged_one_does_not_count_and_is_not_removed(tmp_path, file):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, make_state(step), {}, score=step)
    path = tmp_path / "step_00000002" / file
    os.truncate(path, path.stat().st_size - 1)
    with Writer(tmp_path, Keep(newest=2, best=False)) as writer:
        writer.save(3, make_state(3), {})
    assert checkpoints.steps(tmp_path) == [1, 2, 3]


def test_nothing_is_removed_before_the_new_one_is_there(tmp_path, monkeypatch):
    with Writer(tmp_path, Keep(newest=1, best=False)) as writer:
        writer.save(1, make_state(1), {})
        writer.wait()
        fail_writing(monkeypatch, NO_ROOM)
        writer.save(2, make_state(2), {})
        with pytest.raises(UserError, match="No space left"):
            writer.wait()
        monkeypatch.undo()
        writer.save(3, make_state(3), {})
    assert os.listdir(tmp_path) == ["step_00000003"]


@pytest.mark.parametrize("where", ["save", "wait", "close"])
def test_a_failed_write_is_raised_once_where_the_loop_next_waits(tmp_path, monkeypatch, where):
    checkpoints.save(tmp_path, 1, make_state(1), {})
    fail_writing(monkeypatch, NO_ROOM)
    writer = Writer(tmp_path, Keep())
    writer.save(2, make_state(2), {})
    arguments = (3, make_state(3), {}) if where == "save" else ()
    with pytest.raises(UserError, match="step_00000002.*No space left.*untouched") as caught:
        getattr(writer, where)(*arguments)
    assert "\n" not in str(caught.value)
    writer.close()
    assert os.listdir(tmp_path) == ["step_00000001"]
    assert checkpoints.latest(tmp_path).step == 1


def test_a_defect_is_raised_too(tmp_path):
    with Writer(tmp_path, Keep()) as writer:
        writer.save(1, {"model/a": np.array(["text"])}, {})
        with pytest.raises(ValueError, match="Received: 'a' of <U4"):
            writer.wait()
    assert os.listdir(tmp_path) == []


def test_an_exception_on_its_way_goes_first(tmp_path, monkeypatch):
    fail_writing(monkeypatch, NO_ROOM)
    with pytest.warns(CheckpointWarning, match="No space left"), pytest.raises(KeyboardInterrupt):
        with Writer(tmp_path, Keep()) as writer:
            writer.save(1, make_state(), {})
            raise KeyboardInterrupt


def test_an_exception_on_its_way_waits_for_the_disk(tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path, Keep()) as writer:
        writer.save(1, make_state(), {})
        raise KeyboardInterrupt
    assert checkpoints.latest(tmp_path).step == 1


def test_the_configuration_may_change_after_save(tmp_path, monkeypatch):
    curve = [1]
    write = tensors.write

    def change(path, arrays):
        curve.append(2)
        return write(path, arrays)

    monkeypatch.setattr(tensors, "write", change)
    with Writer(tmp_path, Keep()) as writer:
        writer.save(1, make_state(), {"curve": curve})
    assert len(curve) == 3 and checkpoints.latest(tmp_path).config == {"curve": [1]}


def test_writing_makes_no_second_copy(tmp_path):
    state = {
        "model/a": np.ones((4096, 1024), np.float32),
        "model/b": np.ones((64, 64, 1024), np.float32),
        "optimizer/a": np.ones((4096, 1024), np.float32),
    }
    with Writer(tmp_path, Keep()) as writer:
        writer.save(1, {"model/a": np.ones(1)}, {})
        writer.wait()
        tracemalloc.start()
        writer.save(2, state, {})
        writer.wait()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_replaced_one_counts_until_the_new_one_is_there(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 2, make_state(0), {})
    rename = os.rename

    def die(source, target):
        if pathlib.Path(target).name == "step_00000002":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(UserError, match="Input/output error"):
        checkpoints.save(tmp_path, 2, make_state(1), {})
    monkeypatch.undo()
    assert checkpoints.steps(tmp_path) == [2]
    state = checkpoints.latest(tmp_path).state()
    np.testing.assert_array_equal(state["model/kernel"], make_state(0)["model/kernel"])
    checkpoints.save(tmp_path, 2, make_state(1), {})
    assert os.listdir(tmp_path) == ["step_00000002"]


def test_one_that_cannot_be_removed_is_one_line(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, make_state(1), {})
    rename = os.rename

    def refuse(source, target):
        if pathlib.Path(source).name == "step_00000001":
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    writer = Writer(tmp_path, Keep(newest=1))
    writer.save(2, make_state(2), {})
    with pytest.raises(UserError, match="remove an old .*step_00000001 .Permission denied"):
        writer.close()
    assert checkpoints.steps(tmp_path) == [1, 2]


def test_what_a_dead_process_did_not_remove_is_removed(tmp_path):
    for step in (1, 2, 3, 9):
        checkpoints.save(tmp_path, step, make_state(step), {}, score=step)
    (tmp_path / ".partial_step_00000004_0123abcd").mkdir()
    with Writer(tmp_path, Keep(newest=1)) as writer:
        writer.tidy(3)
    assert sorted(os.listdir(tmp_path)) == [checkpoints.step_folder(step) for step in (1, 3, 9)]


def test_a_removed_link_leaves_what_it_leads_to(tmp_path):
    inside, elsewhere = tmp_path / "checkpoints", tmp_path / "disk"
    moved = checkpoints.save(elsewhere, 1, make_state(1), {})
    inside.mkdir()
    (inside / "step_00000001").symlink_to(moved)
    with Writer(inside, Keep(newest=1, best=False)) as writer:
        writer.save(2, make_state(2), {})
    assert os.listdir(inside) == ["step_00000002"]
    assert checkpoints.load(moved).step == 1
