"""Measures in processes of their own, in turn with others."""

import contextlib
import os
import subprocess
import sys


class Worker:
    """A process that runs a measurement as often as it is asked to, until this closes.

    Args:
        arguments: of the interpreter. The program calls `serve`.
        python: the interpreter; by default this one.
        environment: variables that it has beside those of this process.

    Example:
        with Worker(["-m", "benchmarks.step_alone", "keras_hub", config]) as worker:
            seconds = worker.run(20)
    """

    def __init__(self, arguments, python=sys.executable, environment=None):
        self._process = subprocess.Popen(
            [python, *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, number):
        """Returns what the process measured for a number, or raises where it has ended."""
        with contextlib.suppress(BrokenPipeError):  # Then the answer is missing too.
            self._process.stdin.write(f"{number}\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            command = " ".join(self._process.args[:4])
            raise RuntimeError(f"{command} ended with exit code {self._process.wait()}")
        return float(answer)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def serve(make):
    """Answers each number on standard input with what the function that `make()` returns says."""
    # Whatever a library prints goes to standard error: standard output has the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    measure = make()
    for line in sys.stdin:
        print(measure(int(line)), file=answers, flush=True)
