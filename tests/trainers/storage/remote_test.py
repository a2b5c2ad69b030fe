"""Requests to a bucket: tried again with a limit, and one line at the end."""

import errno
import os

import fsspec
import pytest
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem

from trainers.errors import UserError
from trainers.storage import remote

URL = "memory://bucket/W"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)


def failing(monkeypatch, error, times):
    """Has reads fail so often; returns the tries."""
    tries, cat_file = [], MemoryFileSystem.cat_file

    def read(files, path, **kwargs):
        tries.append(path)
        if len(tries) <= times:
            raise error
        return cat_file(files, path, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", read)
    return tries


@pytest.mark.parametrize("error", [OSError("500 Internal Error"), TimeoutError()])
def test_a_request_is_tried_again(monkeypatch, error):
    remote.Remote(URL).write("run.json", b"{}")
    tries = failing(monkeypatch, error, remote.TRIES - 1)
    assert remote.Remote(URL).read("run.json") == b"{}"
    assert len(tries) == remote.TRIES


@pytest.mark.parametrize(
    ("error", "count", "fault"),
    [
        (OSError("500"), remote.TRIES, "OSError: 500"),
        (PermissionError("403"), 1, "PermissionError: 403"),
        (FSTimeoutError(), 1, "FSTimeoutError"),
    ],
)
def test_the_end_of_the_tries_is_one_line(monkeypatch, error, count, fault):
    tries = failing(monkeypatch, error, 100)
    with pytest.raises(UserError) as caught:
        remote.Remote(URL).read("run.json")
    assert len(tries) == count
    assert f"Received: {URL}/run.json ({fault}). Check bucket" in str(caught.value)


def test_a_disk_without_room_is_no_fault_of_the_storage(tmp_path, monkeypatch):
    remote.Remote(URL).write("run.json", b"{}")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MemoryFileSystem, "get_file", full)
    with pytest.raises(UserError, match="No space left on device on this machine"):
        remote.Remote(URL).download("run.json", tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_none_and_removed_already():
    there = remote.Remote(URL)
    assert there.read("run.json") is None
    assert there.find() == {}
    there.remove(["run.json"])


def test_a_name_that_leads_elsewhere_is_refused(monkeypatch):
    files = {"/bucket/W/../x": {"name": "/bucket/W/../x", "type": "file", "size": 1}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: files)
    with pytest.raises(UserError, match="names of files in memory://bucket/W"):
        remote.Remote(URL).find()


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(remote.PROTOCOLS, "s3", ("no_such_package", "s3", dict, True))
    with pytest.raises(UserError, match=r"no_such_package for s3://.*keras-fusion\[s3\]"):
        remote.Remote("s3://bucket/W")


@pytest.mark.parametrize("text", ["runs/W", "s3:", "gs:/bucket", "hf://org/model", "kaggle://x"])
def test_other_texts_are_no_urls(text):
    assert not remote.is_url(text)
