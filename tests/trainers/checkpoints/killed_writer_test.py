"""Checkpoints that stay whole: a writer dies at every line of its code, or the disk is full."""

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from keras_fusion.interop import tensors
from tests.trainers.training.loop_support import python
from trainers import checkpoints
from trainers.checkpoints import Keep, Writer, format, reading, writer
from trainers.errors import UserError

# Lines of these files are counted, in whichever thread.
TRACED = {module.__file__ for module in (format, reading, tensors, writer, shutil)}


def state(value):
    return {"model/a": np.full(3, value), "optimizer/a": np.full(2, value)}


def save(folder, step, value):
    with Writer(folder, Keep(newest=1)) as saving:
        saving.save(step, state(value), {"value": value}, score=2.0)


def dies_at(line, folder, step):
    """Says whether a process that saves -1 is killed at a line of the code, counted from 1."""
    process = os.fork()
    if process == 0:
        lines = itertools.count(1)

        def trace(frame, event, _):
            if frame.f_code.co_filename not in TRACED:
                return None
            if event == "line" and next(lines) == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        code = 1
        try:
            threading.settrace(trace)
            sys.settrace(trace)
            save(folder, step, -1)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def die_at_every_line(folder, there, step, stride):
    """Each round begins with the same folder and dies `stride` lines later, until one gets through.

    Returns the number of deaths that were survived, and the values that `latest` found.
    """
    before, work, values = folder / "before", folder / "work", set()
    for old in there:
        checkpoints.save(before, old, state(old), {"value": old}, score=old)
    for deaths in itertools.count():
        shutil.rmtree(work, ignore_errors=True)
        if there:
            shutil.copytree(before, work)
        died = dies_at(1 + deaths * stride, work, step)
        for _, path in format.step_folders(work):
            checkpoints.load(path)
        latest = checkpoints.latest(work)
        if latest is None:
            assert not there
        else:
            value = latest.config["value"]
            is_new = latest.step == step and step not in there
            assert value == -1 if is_new else value in (-1, *there)
            assert (latest.state()["model/a"] == value).all()
            assert latest.step >= max(there, default=0)
            values.add(value)
        if not died:
            return deaths, values
        save(work, step, -2)
        assert checkpoints.latest(work).config["value"] == -2
        names = os.listdir(work)
        assert not any(".partial" in name or ".replaced" in name for name in names), names


CASES = {
    # 1 is the best and stays; 2 goes when 3 is there.
    "one is removed": ([1, 2], 3, {-1, 2}),
    "the only one is replaced": ([2], 2, {-1, 2}),
    "the first one": ([], 3, {-1}),
}


# No thread that runs here has anything that the forked process waits for.
FORKS = pytest.mark.filterwarnings("error::trainers.checkpoints.CheckpointWarning", "ignore:.*fork")


@FORKS
@pytest.mark.parametrize("case", list(CASES)[:2])
def test_killed_now_and_then(tmp_path, case):
    there, step, expected = CASES[case]
    deaths, values = die_at_every_line(tmp_path, there, step, stride=41)
    assert deaths > 5 and values == expected


@pytest.mark.slow
@FORKS
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_line(tmp_path, case):
    there, step, expected = CASES[case]
    deaths, values = die_at_every_line(tmp_path, there, step, stride=1)
    assert deaths > 200 and values == expected


def fill(folder):
    """Saves a checkpoint for which there is room and one that is too large; returns the error."""
    small, large = np.ones(1000, np.float32), np.ones(1_000_000, np.float32)
    with Writer(folder, Keep(newest=1)) as writer:
        writer.save(1, {"model/a": small, "optimizer/a": small}, {})
        writer.save(2, {"model/a": small, "optimizer/a": large}, {})
        with pytest.raises(UserError) as caught:
            writer.save(3, {"model/a": small}, {})
    return str(caught.value)


def assert_survived_full_disk(folder, line, reason):
    assert "\n" not in line
    assert "step_00000002" in line and reason in line and "Make room" in line
    assert os.listdir(folder) == ["step_00000001"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint = checkpoints.latest(folder)
    np.testing.assert_array_equal(checkpoint.weights["a"], np.ones(1000, np.float32))


def test_a_limit_on_the_size_of_files(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        line = fill(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_survived_full_disk(tmp_path, line, "File too large")


FULL = """
import sys
from tests.trainers.checkpoints.killed_writer_test import fill
print(fill(sys.argv[1]))
"""


@pytest.mark.slow  # the limit above fails in the same write; faults_test.py fills disks
def test_a_full_disk(tmp_path):
    """A file system of 1 MB, which only its own process sees: it copies out what is left."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {disk}"
    isolated = ["unshare", "--mount", "--map-root-user", "sh", "-e", "-c"]
    if not shutil.which("unshare") or subprocess.run([*isolated, mount]).returncode:
        pytest.skip("No file system can be mounted here.")
    command = python(FULL, disk)
    command["env"]["KERAS_BACKEND"] = "numpy"
    command["args"] = [*isolated, f'{mount}; "$@"; cp -r {disk} {copy}', "sh", *command["args"]]
    ran = subprocess.run(**command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert_survived_full_disk(copy, ran.stdout.rstrip("\n"), "No space left on device")
