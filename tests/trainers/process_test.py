"""Ends of the process with a line, where no exception could be raised or other threads print."""

import os
import platform
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Only glibc is told.")

READ = {
    "in the interpreter": "sum(content)",
    "while the interpreter goes on": "hashlib.sha256(content)",
    "in a thread": "threading.Thread(target=hashlib.sha256, args=(content,)).start()",
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_the_file_is_named_with_exit_code_2(tmp_path, read):
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(100_000))
    script = f"""
        import hashlib, mmap, os, sys, threading
        from trainers.process import end_at_bus_error
        end_at_bus_error()
        with open(sys.argv[1], "r+b") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0))
            os.truncate(sys.argv[1], 0)
            {read}
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), path],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "\nerror: Expected files that stay as they are while they are read. Received: "
        f"{path}, which was cut, or whose disk cannot be read. "
        "Restore it and give the same command again.\n"
    )


@pytest.mark.parametrize("in_thread", [False, True])
def test_an_abort_ends_the_process_with_the_line_and_exit_code_75(in_thread):
    call = "abort()"
    if in_thread:
        call = "threading.Thread(target=abort).start(); threading.Event().wait()"
    script = f"""
        import ctypes, threading
        from trainers.process import end_at_abort
        end_at_abort("an earlier line")
        end_at_abort("stopped: the others are gone")
        abort = ctypes.CDLL(None).abort
        {call}
        """
    done = _run(script)
    assert (done.returncode, done.stderr) == (75, "\nstopped: the others are gone\n")


@pytest.mark.parametrize("call", ["end(75, 'stopped\\n')", "os.abort()"])
def test_nothing_comes_behind_the_last_line(call):
    """Of threads of a library, which go on until the process has ended."""
    script = f"""
        import os, sys, threading
        from trainers.process import end, end_at_abort
        end_at_abort("stopped")
        def log(began):
            while True:
                os.write(2, b"x\\n")
                began.set()
        for _ in range(4):
            began = threading.Event()
            threading.Thread(target=log, args=(began,), daemon=True).start()
            began.wait()
        {call}
        """
    done = _run(script)
    assert done.returncode == 75
    assert done.stderr.startswith("x\n") and done.stderr.endswith("\nstopped\n")


def _run(script):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
    )
