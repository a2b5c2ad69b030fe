"""One process for a stage; a lock dies with its process."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess

import pytest
from absl import logging

from tests.trainers.training import loop_support
from trainers.errors import UserError
from trainers.runs import locks

HOLD = """
import sys
from trainers.runs import locks
with locks.stages(sys.argv[1], ["small_0"]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other_process(workdir):
    """A process that holds the lock of small_0."""
    pipe = subprocess.PIPE
    holder = subprocess.Popen(
        **loop_support.python(HOLD, workdir), stdin=pipe, stdout=pipe, text=True
    )
    with holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def test_a_second_process_is_refused_with_the_first_ones_number_and_host(tmp_path):
    with other_process(tmp_path) as holder:
        with pytest.raises(UserError) as caught, locks.stages(tmp_path, ["small_1", "small_0"]):
            pytest.fail("it got the lock")
        message = str(caught.value)
        assert f"process {holder.pid} on {socket.gethostname()} does it" in message
        assert "stage 'small_0'" in message and "\n" not in message
        # All or none, and other stages are free.
        with locks.stages(tmp_path, ["small_1", "baseline"]):
            pass


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_a_dead_process_leaves_no_lock(tmp_path, end):
    with other_process(tmp_path) as holder:
        if end == "killed":
            holder.send_signal(signal.SIGKILL)
        else:
            holder.stdin.close()
        holder.wait(timeout=60)
        with locks.stages(tmp_path, ["small_0"]):
            content = (tmp_path / ".locks" / "small_0.lock").read_text()
    assert content == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_the_lock_of_shared_files_is_another_one_and_given_back(tmp_path):
    with locks.stages(tmp_path, ["run"]), locks.run_files(tmp_path):
        with open(tmp_path / ".locks" / locks.RUN_LOCK) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locks.run_files(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, number):
    def flock(descriptor, how):
        raise OSError(number, "no locks")

    warned = []
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(logging, "warning", lambda text, *values: warned.append(text))
    with locks.stages(tmp_path, ["small_0", "small_1"]), locks.run_files(tmp_path):
        pass
    assert len(warned) == 1 and "no locks" in warned[0]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_fault_of_the_disk_is_no_missing_lock(tmp_path, monkeypatch, number):
    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=os.strerror(number)), locks.stages(tmp_path, ["small_0"]):
        pytest.fail("it got the lock")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / ".locks").write_text("in the way")
    with pytest.raises(UserError, match="Received: .*small_0.lock"):
        with locks.stages(tmp_path, ["small_0"]):
            pass
