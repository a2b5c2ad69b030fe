"""Checkpoints that stay whole: a writer dies at every line of its code, or the disk is full."""

import ast
import os
import resource
import shutil
import subprocess
import warnings

import numpy as np
import pytest

from tests.trainers.training.loop_support import python
from trainers import checkpoints
from trainers.checkpoints import Keep, Writer
from trainers.errors import UserError

# Each round begins with the same folder, and dies at the next line of the code that writes and
# removes, in whichever thread, until a round gets through.
KILLED = """
import os, pathlib, shutil, signal, sys, threading, warnings
import numpy as np
from keras_fusion.interop import tensors
from trainers import checkpoints
from trainers.checkpoints import format, reading, writer
warnings.simplefilter("error")
stride, lines = int(sys.argv[2]), 0
modules = (format, reading, tensors, writer, shutil)
traced = {module.__file__ for module in modules}

def state(value):
    return {"model/a": np.full(3, value), "optimizer/a": np.full(2, value)}

def save(value):
    with checkpoints.Writer(root / "work", checkpoints.Keep(newest=1)) as writer:
        writer.save(step, state(value), {"value": value}, score=2.0)

def trace(frame, event, _):
    global lines
    if frame.f_code.co_filename not in traced:
        return None
    if event == "line":
        lines += 1
        if lines == deadline:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

for number, (there, step) in enumerate(eval(sys.argv[3])):
    root = pathlib.Path(sys.argv[1]) / str(number)
    root.mkdir()
    for old in there:
        checkpoints.save(root / "before", old, state(old), {"value": old}, score=old)
    deadline, survived, kinds = 1, 0, set()
    while True:
        shutil.rmtree(root / "work", ignore_errors=True)
        if there:
            shutil.copytree(root / "before", root / "work")
        child = os.fork()
        if child == 0:
            threading.settrace(trace)
            sys.settrace(trace)
            save(-1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        for _, path in format.step_folders(root / "work"):
            checkpoints.load(path)
        latest = checkpoints.latest(root / "work")
        if latest is None:
            assert not there
        else:
            value = latest.config["value"]
            new = latest.step == step and step not in there
            assert value == -1 if new else value in (-1, *there)
            assert (latest.state()["model/a"] == value).all()
            assert latest.step >= max(there, default=0)
            kinds.add(value)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        save(-2)
        names = os.listdir(root / "work")
        assert checkpoints.latest(root / "work").config["value"] == -2
        assert not any(".partial" in name or ".replaced" in name for name in names), names
        survived, deadline = survived + 1, deadline + stride
    print([survived, sorted(kinds)])
"""


def die_at_every_line(folder, cases, stride):
    """For each case: how many deaths were survived, and what `latest` found after them."""
    command = python(KILLED, folder, stride, [CASES[case][:2] for case in cases])
    command["env"] |= {"KERAS_BACKEND": "numpy", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(**command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return [ast.literal_eval(line) for line in ran.stdout.splitlines()]


CASES = {
    # 1 is the best and stays; 2 goes when 3 is there.
    "one is removed": ([1, 2], 3, [-1, 2]),
    "the only one is replaced": ([2], 2, [-1, 2]),
    "the first one": ([], 3, [-1]),
}


def test_killed_now_and_then(tmp_path):
    cases = ["one is removed", "the only one is replaced"]
    for case, (survived, values) in zip(
        cases, die_at_every_line(tmp_path, cases, stride=41), strict=True
    ):
        assert survived > 5 and values == CASES[case][2], case


@pytest.mark.slow
def test_killed_at_every_line(tmp_path):
    for case, (survived, values) in zip(
        CASES, die_at_every_line(tmp_path, CASES, stride=1), strict=True
    ):
        assert survived > 200 and values == CASES[case][2], case


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
