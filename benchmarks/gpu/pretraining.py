"""A short experiment: arms of the plan `gains`, side by side on one accelerator.

Steps of models as small as these leave most of an accelerator idle, so each command of
`Size.experiments` is a process of its own, in a folder of its own, at the same time as the others;
NVIDIA's multi-process service, where there is one, lets their kernels run at once. A command that
the time cuts short leaves the stages that it has finished.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from trainers.data.manifest import MANIFEST
from trainers.plans import sizes
from trainers.runs.workdir import RECORD_FILE, REPORT_FILE, REPORT_FOLDER, RUN_FILE

CURVES = "curves.json"
# Seconds that a command has to save after its `--max_seconds`, and the report afterwards.
_LAST = 15
_MPS = "nvidia-cuda-mps-control"


def run(size, results, left, data_dir=None):
    """Trains the arms of a size and writes what each stage reached, curves and report.

    Args:
        size, results, left: as in `benchmarks.gpu.steps.run`.
        data_dir: folder with the tokens of each experiment, in folders of their sizes; where one is
            missing, they are prepared first.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        commands = {}
        for experiment in size.experiments:
            manifests = sorted(
                pathlib.Path(data_dir or folder).glob(f"{experiment.size}/*/{MANIFEST}")
            )
            tokens = manifests[-1].parent if manifests else prepare(experiment, folder)
            for name, flags in experiment.commands().items():
                commands[name] = (*flags, f"--data_dir={tokens}")
        with shared_device(folder / "mps") as variables:
            results.note("experiment", f"{'with' if variables else 'without'} {_MPS}")
            processes = {
                name: start(folder / name, flags, left() - 2 * _LAST, variables)
                for name, flags in commands.items()
            }
            try:
                for name, process in processes.items():
                    code = process.wait(max(0, left() - _LAST))
                    if code:
                        results.note(name, f"ended with code {code}")
            except subprocess.TimeoutExpired:
                results.note("experiment", "stopped by the time")
            finally:
                for process in processes.values():
                    process.kill()
                bring_back([folder / name for name in processes], results)


def prepare(experiment, folder):
    """Prepares the tokens of `docs` for an experiment, in FOLDER/SIZE; returns their folder."""
    size = sizes.get_size(experiment.size)
    flags = [
        f"--vocabulary_pieces={size.vocabulary_pieces}",
        f"--num_sentinels={size.num_sentinels}",
        f"--data_dir={folder / experiment.size}",
    ]
    if experiment.packages:
        # All of their text: without a limit of its own, `docs` has at most 16 MB.
        flags += [f"--packages={','.join(experiment.packages)}", f"--max_bytes={10**9}"]
    command = [sys.executable, "-m", "trainers.prepare", *flags]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode().split()[-1]


def start(folder, flags, seconds, variables):
    """Starts `trainers.pretrain`, with its output in FOLDER.txt; returns the process.

    Args:
        folder: `--workdir`.
        flags: further ones.
        seconds: after which it saves and ends.
        variables: of its environment, beside those of this process.
    """
    command = [sys.executable, "-m", "trainers.pretrain", f"--workdir={folder}"]
    command += [f"--max_seconds={max(1, seconds):.0f}", "--progress=false", *flags]
    environment = {**os.environ, **variables, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with open(folder.with_suffix(".txt"), "w", encoding="utf-8") as log:
        print(*command, file=log, flush=True)
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


@contextlib.contextmanager
def shared_device(folder):
    """Context in which kernels of several processes run at once, where NVIDIA's service can.

    Yields:
        Variables of the environment of these processes; none where there is no such service, or JAX
        does not run under it.
    """
    if shutil.which(_MPS) is None:
        yield {}
        return
    folder.mkdir(parents=True)
    variables = {f"CUDA_MPS_{name}_DIRECTORY": str(folder) for name in ("PIPE", "LOG")}
    environment = {**os.environ, **variables}
    trial = "import jax; jax.numpy.ones(2).sum().block_until_ready()"
    try:
        commands = ([_MPS, "-d"], [sys.executable, "-c", trial])
        codes = [subprocess.run(c, env=environment, timeout=60).returncode for c in commands]
        yield {} if any(codes) else variables
    finally:
        subprocess.run([_MPS], input=b"quit\n", env=environment, timeout=20)


def record(folder):
    """Returns the record of a finished stage."""
    return json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))


def bring_back(folders, results):
    """Writes what each finished stage reached; copies all curves, and a report of all folders."""
    runs = {}
    for folder in folders:
        print(folder.with_suffix(".txt").read_text(encoding="utf-8"), flush=True)
        stages = [record(path.parent) for path in sorted(folder.glob(f"*/{RECORD_FILE}"))]
        if not stages:
            continue
        run_file = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        runs[folder.name] = {"run": run_file, "stages": stages}
        for stage in stages:
            facts = {name: stage[name] for name in ("steps", "loss_per_token", "device_seconds")}
            facts["TFLOP"] = stage["flops"] / 1e12
            name = f"{folder.name}: {stage['name']}"
            results.add(name, [stage["accuracy"]], "% accuracy", **facts)
    (results.folder / CURVES).write_text(json.dumps(runs), encoding="utf-8")
    if runs:
        names = ",".join(str(folder) for folder in folders if folder.name in runs)
        written = folders[0].parent / REPORT_FOLDER
        command = [sys.executable, "-m", "trainers.report", f"--workdir={names}"]
        subprocess.run([*command, f"--output={written}"], check=True)
        shutil.copy(written / REPORT_FILE, results.folder / REPORT_FILE)
