"""Measures training steps, a fusion and a short experiment on one accelerator.

    python -m benchmarks.gpu [--minutes=12] [--parts=steps,peer,fusion,pretrain] [--output=DIR]
                             [--profile]

The parts:

    steps     tokens/s of training steps of t5_m and t5_l, 512 + 114 tokens, products in bfloat16,
              and their share of the card's peak; attention as plain operations, and cuDNN's
    peer      the same of Hugging Face's T5, with torch.compile; left out where there is no torch
    fusion    two t5_m fused on the device: seconds, memory
    pretrain  arms of the plan gains at hidden 256 to 512 and 8 layers, side by side

It runs unattended on Keras' JAX backend: each part is a process of its own with a share of the
minutes, what a part leaves over goes to the next ones, and one that fails or takes too long leaves
what it has written. Aims: 1.2 times the peer's tokens/s, half of the peak. DIR, by default $OUT or
gpu_results/, has results.jsonl and results.md, written after each measurement; log.txt; curves.json
and report.html of the experiment.

`--size=small` tries everything on a CPU (`--minutes=4`). `python -m benchmarks.gpu.collect` gathers
what a machine without a network needs.
"""

import contextlib
import importlib
import importlib.metadata
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

from absl import flags

from benchmarks import _programs
from benchmarks.gpu import collect
from benchmarks.gpu.results import JSON_LINES, TABLE, Results, markdown, read
from benchmarks.gpu.sizes import SIZES

# Part to its module and its share of the time.
PARTS = {
    "steps": ("benchmarks.gpu.steps", 0.3),
    "peer": ("benchmarks.gpu.peer", 0.2),
    "fusion": ("benchmarks.gpu.fusing", 0.1),
    "pretrain": ("benchmarks.gpu.pretraining", 0.4),
}
LOG = "log.txt"
VERSIONS = ("jax", "jaxlib", "keras", "numpy", "grain", "torch", "transformers")
# Seconds before its end in which a part is to finish by itself.
_RESERVE = 10


def budget(part, parts, left):
    """Returns the seconds of a part: its share of what is left for it and those after it.

    Example:
        >>> budget("peer", ["steps", "peer", "pretrain"], 60.0)
        20.0
    """
    waiting = parts[parts.index(part) :]
    return left * PARTS[part][1] / sum(PARTS[name][1] for name in waiting)


def run_all(parts, minutes, size, output, options=()):
    """Runs parts one after the other, each in a process, and returns the rows of all results."""
    end = time.monotonic() + 60 * minutes
    output.mkdir(parents=True, exist_ok=True)
    (output / JSON_LINES).unlink(missing_ok=True)
    Results(output, "all").note("versions", versions())
    for part in parts:
        seconds = budget(part, parts, end - time.monotonic())
        command = [sys.executable, "-m", "benchmarks.gpu", f"--part={part}", f"--size={size}"]
        command += [f"--seconds={seconds:.0f}", f"--output={output}"]
        command += options
        fault = run_part(command, seconds, output / LOG)
        if fault:
            Results(output, part).note("part", fault)
    return read(output)


def run_part(command, seconds, log):
    """Runs a command with its output in a log; returns what went wrong, or None."""
    with open(log, "a", encoding="utf-8") as lines:
        print("\n$", *command, file=lines, flush=True)
        process = subprocess.Popen(
            command, stdout=lines, stderr=lines, env=environment(), start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # What it started ends with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code is None:
        return f"stopped after its {seconds:.0f} s"
    if code:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        return f"ended with code {code}: {last[-1]}"
    return None


def environment():
    """Returns the environment of a part: Keras on JAX, compiled programs kept for the next one."""
    cache = pathlib.Path.home() / ".cache" / "keras_fusion" / "compiled"
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        # With Triton's among the candidates, it takes minutes to choose the products of a step.
        "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONUNBUFFERED": "1",
    }


def versions():
    """Returns the versions of Python and the packages that count, as a text."""
    texts = [f"python {platform.python_version()}"]
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            texts.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(texts)


def main():
    values = flags.FLAGS
    output = pathlib.Path(values.output or os.environ.get("OUT") or "gpu_results")
    data_dir = values.data_dir or (collect.TOKENS if collect.TOKENS.exists() else None)
    if values.part:
        end = time.monotonic() + values.seconds - _RESERVE
        module = importlib.import_module(PARTS[values.part][0])
        of_parts = {"pretrain": {"data_dir": data_dir}, "steps": {"profile": values.profile}}
        arguments = SIZES[values.size], Results(output, values.part)
        options = of_parts.get(values.part, {})
        module.run(*arguments, lambda: end - time.monotonic(), **options)
        return
    options = [f"--data_dir={data_dir}"] if data_dir else []
    options += ["--profile"] if values.profile else []
    rows = run_all(values.parts, values.minutes, values.size, output, options)
    print(markdown(rows))
    print(f"Results: {output / TABLE}")


if __name__ == "__main__":
    flags.DEFINE_float("minutes", 12, "Time for all parts.", lower_bound=0.1)
    flags.DEFINE_list("parts", list(PARTS), "Parts, in this order.")
    _programs.check_list("parts", list(PARTS))
    flags.DEFINE_enum("size", "full", list(SIZES), "Sizes of what is measured.")
    flags.DEFINE_string("output", None, "Folder of the results.")
    flags.DEFINE_string(
        "data_dir", None, "Folder with tiny/ and mini/, each the --data_dir of a trainers.prepare."
    )
    flags.DEFINE_bool("profile", False, "Write a trace of two steps of each model.")
    # What a process of this program is started with.
    flags.DEFINE_enum("part", None, list(PARTS), "Run this part in this process.")
    flags.DEFINE_float("seconds", 600, "Time of that part.")
    _programs.run(main)
