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
import traceback
import uuid

from tests.faults import points

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Ended:
    """End of a process: its exit code, or minus the signal, and what it printed."""

    code: int
    output: str


class Zygote:
    """Starts runs of `trainers.pretrain`, one process each.

    Args:
        eager: their steps run one operation after the other: tracing takes longer than training.
        backend: of Keras.

    Example:
        with Zygote() as zygote:
            ended = zygote.run(folder, ["--plan=baseline", …], Point("trainers.training.loop:…", 3))
    """

    def __init__(self, eager: bool = False, backend: str = "tensorflow"):
        self._arguments = ["eager"] if eager else []
        self._backend = backend

    def __enter__(self) -> "Zygote":
        environment = dict(
            os.environ,
            PYTHONPATH=str(ROOT),
            KERAS_BACKEND=self._backend,
            TF_CPP_MIN_LOG_LEVEL="3",
            # Small models gain nothing from more threads, and sums come out the same.
            TF_NUM_INTRAOP_THREADS="1",
            TF_NUM_INTEROP_THREADS="1",
        )
        command = [sys.executable, "-m", "tests.faults.zygote", *self._arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT
        )
        return self

    def __exit__(self, *error) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def start(self, folder, flags, point=None, record=None, environment=None) -> int:
        """Starts a run in a folder and returns its process number; `end` has to follow."""
        job = {
            "folder": str(folder),
            "flags": list(flags),
            "point": dataclasses.asdict(point) if point else None,
            "record": str(record) if record else None,
            "environment": environment or {},
        }
        return self._ask(job)["pid"]

    def end(self, pid: int) -> Ended:
        """Waits for a run that was started."""
        return Ended(**self._ask({"end": pid}))

    def run(self, folder, flags, point=None, record=None) -> Ended:
        """Starts a run and waits for its end."""
        return self.end(self.start(folder, flags, point, record))

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
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            answer = {"code": code, "output": logs.pop(pid).read_text(errors="replace")}
        else:
            log = pathlib.Path(job["folder"]) / f"output-{uuid.uuid4().hex}.txt"
            log.touch()
            pid = os.fork()
            if pid == 0:
                _child(job, log)
            logs[pid] = log
            answer = {"pid": pid}
        print(json.dumps(answer), file=answers, flush=True)


def _import() -> None:
    import pytest

    import trainers.engines.devices
    import trainers.pretraining.stage

    if os.environ["KERAS_BACKEND"] == "jax":
        import trainers.engines.jax
    else:
        import trainers.engines.strategies
        import trainers.engines.tensorflow  # noqa: F401
    import trainers.reports
    from tests.trainers import nano

    nano.define(pytest.MonkeyPatch())
    # Figures take longer than the training; the report is made anew from the records anyway.
    trainers.reports.write_report = lambda workdir: pathlib.Path(workdir) / "report"


def _child(job: dict, log: pathlib.Path) -> None:
    """Is `python -m trainers.pretrain FLAGS` in the job's folder, and never returns."""
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(job["folder"])
        os.environ |= job["environment"]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["pretrain", *job["flags"]]
        if job["record"]:
            points.record(job["record"])
        if job["point"]:
            points.arm(points.Point(**job["point"]))
        runpy.run_module("trainers.pretrain", run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
