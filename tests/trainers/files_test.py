"""Files that are there whole or not at all, and locks."""

import threading

import pytest

from trainers import files
from trainers.errors import UserError


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_is_one_line_with_the_path(tmp_path):
    # A device that is always full.
    log = files.AppendedFile("/dev/full")
    for _ in range(2):
        with pytest.raises(UserError, match="/dev/full .No space left on device.. Make room"):
            log.write(b"line\n")
    log.close()
    (tmp_path / ".x.json.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match="/x.json .No space left on device.. Make room"):
        files.write_json(tmp_path / "x.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_differences_name_fields_on_either_side():
    assert files.differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == [
        "a='(not set)', there it is 1",
        "b=3, there it is 2",
        "c=4, there it is '(not set)'",
    ]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, there):
    path = tmp_path / "x"
    if there:
        path.mkdir()
        (path / "old").write_text("")
    with pytest.raises(ValueError), files.replacing_folder(path) as new:
        (new / "half").write_text("")
        raise ValueError
    assert [p.name for p in tmp_path.rglob("*")] == (["x", "old"] if there else [])
    (tmp_path / ".x.partial").mkdir()
    with files.replacing_folder(path) as new:
        (new / "whole").write_text("")
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "whole"]


def test_a_folder_that_was_being_replaced_comes_back(tmp_path):
    """A process was killed between the two renames."""
    (tmp_path / ".x.replaced").mkdir()
    (tmp_path / ".x.replaced" / "old").write_text("")
    with pytest.raises(ValueError), files.replacing_folder(tmp_path / "x"):
        raise ValueError
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "old"]


def test_a_lock_is_waited_for(tmp_path):
    order = []

    def later():
        with files.locked(tmp_path / "a.lock") as holder:
            order.append(holder)

    with files.locked(tmp_path / "a.lock") as holder:
        assert holder == ""
        with files.locked(tmp_path / "a.lock", wait=False) as other:
            assert other.startswith("process ")
        thread = threading.Thread(target=later)
        thread.start()
        thread.join(timeout=0.1)
        assert thread.is_alive()
        order.append("first")
    thread.join()
    assert order == ["first", ""]
