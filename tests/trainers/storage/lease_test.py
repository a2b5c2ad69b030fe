"""One writer for a folder of a bucket."""

import threading

import fsspec
import pytest

from trainers.errors import UserError
from trainers.storage import lease, remote
from trainers.storage.lease import Lease

URL = "memory://bucket/W"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "DEAD_SECONDS", 0.1)
    monkeypatch.setattr(lease, "CONFIRM_SECONDS", 0.0)


def lease_of(mirror):
    return Lease(remote.Remote(URL), mirror)


def test_a_second_writer_is_refused_while_the_first_one_lives():
    first = lease_of("a")
    assert not first.acquire()
    ended = threading.Event()

    def beat():
        while not ended.wait(0.005):
            first.renew()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="one process at a time. Received: process .* which"):
            lease_of("b").acquire()
    finally:
        ended.set()
        thread.join()
    first.check()


def test_a_dead_writer_is_taken_over_and_finds_out():
    first, second = lease_of("a"), lease_of("b")
    first.acquire()
    assert not second.acquire()
    for act in (first.check, first.renew, first.release):
        with pytest.raises(lease.Refused):
            act()
    second.check()


def test_the_same_copy_goes_on_at_once(monkeypatch):
    monkeypatch.setattr(lease, "DEAD_SECONDS", 1e6)
    lease_of("a").acquire()
    assert lease_of("a").acquire()


def test_a_released_one_is_free_and_says_who_wrote_last(monkeypatch):
    monkeypatch.setattr(lease, "DEAD_SECONDS", 1e6)
    for mirror, was_last in (("a", False), ("a", True), ("b", False), ("a", False)):
        right = lease_of(mirror)
        assert right.acquire() == was_last
        right.release()


def test_what_is_no_lease_is_none():
    remote.Remote(URL).write(lease.LEASE_FILE, b"[1]")
    assert not lease_of("a").acquire()


@pytest.mark.parametrize("content", [None, b"", b"<html>"])
def test_a_lease_that_cannot_be_read_is_nobody_elses(content):
    first = lease_of("a")
    first.acquire()
    if content is None:
        remote.Remote(URL).remove([lease.LEASE_FILE])
    else:
        remote.Remote(URL).write(lease.LEASE_FILE, content)
    first.check()
    first.renew()
    with pytest.raises(UserError, match="process .* which writes there"):
        lease_of("b").check()


def test_a_server_that_does_not_give_the_lease_gives_nobody_the_folder(monkeypatch):
    first, second = lease_of("a"), lease_of("b")
    first.acquire()

    def fail(there, name):
        raise UserError("to read in object storage", there.url, "Check")

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "read", fail)
        for act in (second.acquire, first.check):
            with pytest.raises(UserError, match="to read in object storage"):
                act()
    first.check()
