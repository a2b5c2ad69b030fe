"""A process that has imported everything and used nothing: each job is a fork of it.

Importing a backend takes longer than training at this size. Forking is safe as long as nothing of
it ran. Jobs come as JSON lines on the standard input, answers go to the standard output.
"""

import dataclasses
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.faults import points

# A process that SIGSTOP holds goes on after so long: for a bucket, it was dead.
STOPPED_SECONDS = 0.5
ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Ended:
    """End of a process: its exit code, or minus the signal, and what it printed.

    Args:
        code: of this process.
        output: what it printed.
        others: ends of the other hosts of the run.
        seconds: time from this end to the last of those.
    """

    code: int
    output: str
    others: tuple["Ended", ...] = ()
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        """True if this process and the others have come to their ends."""
        return not any(host.code for host in (self, *self.others))


class Zygote:
    """Starts runs of programs, one process each.

    Args:
        eager: their steps run one operation after the other: tracing takes longer than training.
        backend: of Keras.
        root: folder of the project's sources, if not this one.
        variables: other variables of its environment.
        start: starts its process.

    Example:
        with Zygote() as zygote:
            ended = zygote.run(folder, ["trainers.pretrain", "--plan=baseline", …], Point(…))
    """

    def __init__(
        self,
        eager: bool = False,
        backend: str = "tensorflow",
        root: pathlib.Path = ROOT,
        variables: Mapping[str, str] = MappingProxyType({}),
        start: Callable = subprocess.Popen,
    ):
        self._arguments = ["eager"] if eager else []
        self._backend, self._root, self._variables = backend, root, variables
        self._start = start

    def __enter__(self) -> "Zygote":
        environment = dict(
            os.environ,
            PYTHONPATH=str(self._root),
            KERAS_BACKEND=self._backend,
            TF_CPP_MIN_LOG_LEVEL="3",
            # Small models gain nothing from more threads, and sums come out the same.
            TF_NUM_INTRAOP_THREADS="1",
            TF_NUM_INTEROP_THREADS="1",
            **self._variables,
        )
        command = [sys.executable, "-m", "tests.faults.zygote", *self._arguments]
        pipe = subprocess.PIPE
        self._process = self._start(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=self._root
        )
        return self

    def __exit__(self, *error) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def start(self, folder, command, point=None, record=None, clock=0.0, environment=None) -> int:
        """Starts a program in a folder and returns its process number; `end` has to follow.

        Args:
            folder: where it runs.
            command: its module and flags.
            point: where something happens to it.
            record: file for what it does inside each site.
            clock: seconds that its clock is ahead.
            environment: variables of its own.
        """
        job = {
            "folder": str(folder),
            "command": list(command),
            "point": dataclasses.asdict(point) if point else None,
            "record": str(record) if record else None,
            "clock": clock,
            "environment": environment or {},
        }
        return self._ask(job)["pid"]

    def end(self, pid: int) -> Ended:
        """Waits for a run that was started; one that stops itself goes on at once."""
        return Ended(**self._ask({"end": pid}))

    def run(self, folder, command, point=None, **described) -> Ended:
        """Starts a program as `start` does, and waits for its end."""
        return self.end(self.start(folder, command, point, **described))

    def _ask(self, job: dict) -> dict:
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is no answer.
    _import()
    if "eager" in sys.argv:
        # Only a flag: nothing of TensorFlow runs.
        sys.modules["tensorflow"].config.run_functions_eagerly(True)
    logs = {}
    for line in sys.stdin:
        job = json.loads(line)
        if pid := job.get("end"):
            answer = {"code": _end_of(pid), "output": logs.pop(pid).read_text(errors="replace")}
        else:
            log = pathlib.Path(job["folder"]) / f"output-{uuid.uuid4().hex}.txt"
            log.touch()
            pid = os.fork()
            if pid == 0:
                _child(job, log)
            logs[pid] = log
            answer = {"pid": pid}
        print(json.dumps(answer), file=answers, flush=True)


def _end_of(pid: int) -> int:
    while os.WIFSTOPPED(status := os.waitpid(pid, os.WUNTRACED)[1]):
        time.sleep(STOPPED_SECONDS)
        os.kill(pid, signal.SIGCONT)
    return os.waitstatus_to_exitcode(status)


def _import() -> None:
    import pytest

    import trainers.engines.devices
    import trainers.pretraining.converted
    import trainers.pretraining.stage

    if os.environ["KERAS_BACKEND"] == "jax":
        import trainers.engines.jax
    else:
        import glue.reports.glue_page
        import trainers.engines.strategies
        import trainers.engines.tensorflow  # noqa: F401
    import glue.finetuning.run  # noqa: F401
    import trainers.reports
    from glue.data import synthetic
    from tests.trainers import nano
    from trainers.engines import hosts
    from trainers.storage import lease, places, remote

    nano.define(pytest.MonkeyPatch())
    synthetic.SIZES = {"train": 40, "validation": 5, "test": 4}
    lease.CONFIRM_SECONDS, lease.BEAT_SECONDS, lease.DEAD_SECONDS = 0.0, 0.2, 1.0
    remote.PAUSE_SECONDS, remote.READ_SECONDS, places.PUSH_SECONDS = 0.01, 5, 0.2
    # All hosts are started at once.
    hosts.JOIN_SECONDS = 40
    # Figures take longer than the training; the report is made anew from the records anyway.
    trainers.reports.write_report = lambda workdir: pathlib.Path(workdir) / "report"


def _child(job: dict, log: pathlib.Path) -> None:
    """Is `python -m COMMAND` in the job's folder, and never returns."""
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(job["folder"])
        os.environ |= job["environment"]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["KERAS_FUSION_CACHE"] = os.path.join(job["folder"], "cache")
        module, *sys.argv[1:] = job["command"]
        _set_clock(job["clock"])
        if job["record"]:
            points.record(job["record"])
        if job["point"]:
            points.arm(points.Point(**job["point"]))
        runpy.run_module(module, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _set_clock(seconds: float) -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)


if __name__ == "__main__":
    _serve()
