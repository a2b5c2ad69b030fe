"""Python processes that begin with everything imported, in place of those of `subprocess`.

Importing TensorFlow takes longer than what most of these processes do. `tests/conftest.py` calls
`begin` when all test modules are imported and before any test runs: the process that it forks has
imported everything and used nothing, and each process of `run` and `Popen` is a fork of it.

Forking is safe as long as nothing of TensorFlow or JAX has run: no test module makes a variable
while it is imported.
"""

import contextlib
import gc
import json
import logging
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings

from absl import flags
from absl import logging as absl_logging

# Where the backend is another one, these are imported anew: Keras and all that imports it.
_OF_KERAS = {"benchmarks", "examples", "glue", "keras", "keras_fusion", "keras_hub", "trainers"}
_OF_KERAS |= {"tests"}
_HIDDEN = (DeprecationWarning, ImportWarning, PendingDeprecationWarning, ResourceWarning)
_nursery: "_Nursery | None" = None


def begin() -> None:
    """Forks the process that others are forked from, if a test module asks for one."""
    global _nursery
    names = {pathlib.Path(f"/proc/self/task/{task}/comm").read_text() for task in _tasks()}
    if any(name.startswith("tf_") for name in names):
        raise RuntimeError("Expected test modules that make no variables when they are imported.")
    _nursery = _Nursery()


def end() -> None:
    """Ends that process."""
    global _nursery
    if _nursery:
        _nursery.end()
    _nursery = None


def _tasks():
    return os.listdir("/proc/self/task")


class _Nursery:
    """The process that has used nothing, on the other end of a socket."""

    def __init__(self):
        # Messages of one write each.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        # What lives now is looked at by no collection, which would copy its pages.
        gc.freeze()
        with warnings.catch_warnings():
            # That there are threads: those that wait for the messages of pytest-xdist.
            warnings.simplefilter("ignore")
            self._pid = os.fork()
        if self._pid == 0:
            try:
                _serve(theirs)
            finally:
                os._exit(1)
        theirs.close()

    def ask(self, job: dict, descriptors=()) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(job).encode()], descriptors)
            return json.loads(self._socket.recv(1 << 10))

    def end(self) -> None:
        self._socket.close()
        os.waitpid(self._pid, 0)


def _serve(connection: socket.socket) -> None:
    _leave_pytest(connection)
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            os._exit(0)
        job = json.loads(message)
        if pid := job.get("ended"):
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        elif (answer := os.fork()) == 0:
            connection.close()
            _become(job, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(json.dumps(answer).encode())


def _leave_pytest(connection: socket.socket) -> None:
    """Gives up what belongs to the process that runs the tests."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(("pipe:", "socket:")) and int(name) != connection.fileno():
                os.close(int(name))
    warnings.resetwarnings()
    for category in _HIDDEN:
        warnings.simplefilter("ignore", category)
    # Of forks with threads.
    warnings.filterwarnings("ignore", "os.fork")
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    logging.root.handlers[:] = [absl_logging.get_absl_handler()]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _become(job: dict, descriptors: list[int]) -> None:
    """Is `python -c` or `python -m`, and never returns."""
    code = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "rww"[n]) for n in range(3))
        absl_logging.get_absl_handler().python_handler.stream = sys.stderr
        os.chdir(job["cwd"])
        is_of_other_backend = job["env"]["KERAS_BACKEND"] != os.environ["KERAS_BACKEND"]
        os.environ.clear()
        os.environ.update(job["env"])
        if is_of_other_backend:
            for name in [name for name in sys.modules if name.partition(".")[0] in _OF_KERAS]:
                del sys.modules[name]
        _forget_flags()
        kind, text, *arguments = job["args"]
        if kind == "-m":
            sys.argv[:] = [text, *arguments]
            sys.modules.pop(text, None)
            runpy.run_module(text, run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = [kind, *arguments]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(text, "<string>", "exec"), main.__dict__)
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget_flags() -> None:
    """Takes back the flags that programs of the project have defined when they were imported."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.partition(".")[0] in _OF_KERAS:
            for flag in list(defined):
                delattr(flags.FLAGS, flag.name)


class Popen:
    """A process as `subprocess.Popen` starts it, for `[sys.executable, "-c" or "-m", …]`.

    Args:
        args: the interpreter, -c or -m, the program or its module, arguments.
        stdin, stdout, stderr: PIPE, STDOUT, a file, or None for none.
        text: whether pipes have text.
        env: its environment; by default that of this process.
        cwd: its folder; by default that of this process.
    """

    def __init__(
        self, args, *, stdin=None, stdout=None, stderr=None, text=False, env=None, cwd=None
    ):
        if _nursery is None:
            raise RuntimeError("Expected a test run by pytest, which begins `forks`.")
        mode = "" if text else "b"
        self.returncode, theirs, opened = None, [], []
        self.stdin = self.stdout = None
        if stdin == subprocess.PIPE:
            end, mine = os.pipe()
            self.stdin, stdin = os.fdopen(mine, f"w{mode}"), end
            opened.append(end)
        if stdout == subprocess.PIPE:
            mine, end = os.pipe()
            self.stdout, stdout = os.fdopen(mine, f"r{mode}"), end
            opened.append(end)
        with open(os.devnull, "r+b") as null:
            for place in (stdin, stdout, stdout if stderr == subprocess.STDOUT else stderr):
                place = null if place in (None, subprocess.DEVNULL) else place
                theirs.append(place if isinstance(place, int) else place.fileno())
            job = {
                "args": [os.fspath(argument) for argument in args[1:]],
                "env": dict(os.environ if env is None else env),
                "cwd": os.fspath(cwd or os.getcwd()),
            }
            job["env"].setdefault("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
            self.pid = _nursery.ask(job, theirs)
        for descriptor in opened:
            os.close(descriptor)

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *error) -> None:
        for pipe in (self.stdin, self.stdout):
            if pipe:
                pipe.close()
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end, and returns its exit code or minus the signal."""
        if self.returncode is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(str(self.pid), timeout)
            finally:
                os.close(descriptor)
            self.returncode = _nursery.ask({"ended": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(args, *, timeout=300, check=False, text=True, env=None, cwd=None, **_):
    """Runs a process as `subprocess.run` does with `capture_output`."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = Popen(args, stdout=stdout, stderr=stderr, env=env, cwd=cwd)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        outputs = []
        for file in (stdout, stderr):
            file.seek(0)
            outputs.append(file.read().decode() if text else file.read())
    done = subprocess.CompletedProcess(args, process.returncode, *outputs)
    if check:
        done.check_returncode()
    return done
