"""Real servers of object storage, on this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import fsspec
import pytest

from tests.trainers.storage import servers, support
from trainers.errors import UserError
from trainers.storage import Kind, Places, lease, remote
from trainers.storage.mirror import Mirror
from trainers.storage.remote import Remote

pytestmark = pytest.mark.slow  # the other files show the same without a server


@contextlib.contextmanager
def bucket(kind, monkeypatch):
    """Starts a server and names it in the environment; gives its faults and a URL."""
    with getattr(servers, kind)() as (faults, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield faults, f"{servers.new_bucket(kind, environment)}/runs/W"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(lease, "CONFIRM_SECONDS", 0.0)


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_run_goes_there_and_comes_back(tmp_path, monkeypatch, kind):
    with bucket(kind, monkeypatch) as (_, url):
        # Two parts, where files go up in parts.
        large = {"small_0/checkpoints/step_00000003/training.safetensors": os.urandom(70_000_000)}
        support.write(tmp_path / "a/W", support.FILES | support.HIDDEN | large)
        mirror = Mirror(Remote(url), tmp_path / "a/W")
        assert mirror.push() == len(support.FILES) + 1
        assert mirror.push() == 0
        # Half removed: a later one is there.
        half = support.checkpoint(2)
        half.popitem()
        for name, content in half.items():
            Remote(url).write(name, content)
        other = Mirror(Remote(url), tmp_path / "b/W")
        other.pull(owner=True)
        assert support.read(tmp_path / "b/W") == support.FILES | large
        other.push()
        assert Remote(url).find().keys() == (support.FILES | large).keys()


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_files_come_back_with_their_last_bytes(monkeypatch, kind):
    with bucket(kind, monkeypatch) as (_, url):
        there = Remote(url)
        for end in (b"", b"\r", b"\n", b"\r\n", b"\n\r", b"--", b"\0"):
            there.write("file", b"x" + end)
            assert there.read("file") == b"x" + end


def test_a_bucket_is_not_asked_for_its_kind_by_grpc(monkeypatch):
    monkeypatch.setattr(remote, "READ_SECONDS", 2)
    with bucket("gs", monkeypatch) as (_, url):
        # With a token it would be asked, and nothing here answers.
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        assert Remote(url).read("run.json") is None


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_second_writer_is_refused(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    with bucket(kind, monkeypatch) as (_, url):
        with Places() as one:
            one.local(url, Kind.RUN)
            # Another machine has another cache.
            monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path / "other"))
            with pytest.raises(UserError, match="one process at a time"), Places() as other:
                other.local(url, Kind.RUN)
        with Places() as other:
            other.local(url, Kind.RUN)


def test_a_server_that_fails_now_and_then_is_asked_again(monkeypatch):
    with bucket("s3", monkeypatch) as (faults, url):
        faults.fails = remote.TRIES - 1
        Remote(url).write("run.json", b"{}")
        faults.fails = remote.TRIES - 1
        assert Remote(url).read("run.json") == b"{}"


def test_a_server_that_fails_is_one_line_after_all_tries(monkeypatch):
    with bucket("s3", monkeypatch) as (faults, url):
        there = Remote(url)
        faults.fails = -1
        del faults.requests[:]
        with pytest.raises(UserError) as caught:
            there.write("run.json", b"{}")
        assert len(faults.requests) == remote.TRIES
        assert f"to write in object storage. Received: {url}/run.json (" in str(caught.value)


def test_a_server_that_stands_still_is_one_line(monkeypatch):
    monkeypatch.setattr(remote, "READ_SECONDS", 0.3)
    monkeypatch.setattr(remote, "TRIES", 2)
    with bucket("s3", monkeypatch) as (faults, url):
        faults.stands = threading.Event()
        try:
            with pytest.raises(UserError, match="imeout"):
                Remote(url).write("run.json", b"{}")
        finally:
            faults.stands.set()


SEND = """
import sys
from trainers.storage import Kind, Places, lease
lease.CONFIRM_SECONDS = 0.0
from tests.trainers.storage import support
import pathlib
with Places() as program:
    folder = pathlib.Path(program.local(sys.argv[1], Kind.RUN))
    support.write(folder, support.FILES | support.checkpoint(int(sys.argv[2])))
    print("written", flush=True)
    sys.stdin.readline()
"""


def test_a_kill_while_a_checkpoint_is_sent(tmp_path, monkeypatch):
    def start(step):
        return subprocess.Popen(
            [sys.executable, "-c", SEND, url, str(step)],
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with bucket("s3", monkeypatch) as (faults, url):
        with start(6) as sender:
            assert sender.stdout.readline() == "written\n"
            faults.stands = threading.Event()
            sender.stdin.close()
            assert faults.waiting.wait(60)
            sender.send_signal(signal.SIGKILL)
        stands, faults.stands = faults.stands, None
        stands.set()
        Mirror(Remote(url), tmp_path / "b/W").pull()
        assert not (tmp_path / "b/W/small_0/checkpoints/step_00000006").exists()
        # The same command again: the lease of the dead process is its own.
        with start(9) as sender:
            assert sender.stdout.readline() == "written\n"
            sender.stdin.close()
        assert sender.returncode == 0
        Mirror(Remote(url), tmp_path / "b/W").pull()
        steps = sorted(path.name for path in (tmp_path / "b/W/small_0/checkpoints").iterdir())
        assert steps == ["step_00000003", "step_00000006", "step_00000009"]
