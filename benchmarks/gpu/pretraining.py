"""A short experiment: plans of `trainers.pretrain`, as many steps as fit the time.

A trial of a few steps fills JAX's cache of compiled programs and tells how long a step and what
surrounds a stage take. The plans then run one command after the other in one folder, each with the
same steps and its plans besides those before; one that the time cuts short leaves what is finished.
"""

import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from trainers.plans import sizes, stages_of
from trainers.runs.workdir import RECORD_FILE, REPORT_FILE, REPORT_FOLDER, RUN_FILE

CURVES = "curves.json"
TRIAL_STEPS = 50
TRIAL = tuple(f"--{name}={TRIAL_STEPS}" for name in ("steps", "eval_every", "checkpoint_every"))
# Steps of a stage, by name or size letter, over those of a small model: as the size `tiny` has it.
STEPS = {"S": 1.0, "M": 0.8, "baseline": 1.2}
# Shares of the time that is left: for training; of what a stage cost besides its steps in the
# trial, which compiled everything.
_USED, _OVERHEAD = 0.8, 0.6
_STOPPED = 75


def run(size, results, left, data_dir=None):
    """Trains the plans of a size and writes what each stage reached, curves and report.

    Args:
        size, results, left: as in `benchmarks.gpu.steps.run`.
        data_dir: folder of prepared tokens; without it they are prepared first.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data_dir = data_dir or prepare(size, folder)
        flags = (*size.pretrain, f"--data_dir={data_dir}")
        costs = trial(size, folder / "trial", flags, left)
        results.note("trial", f"{TRIAL_STEPS} steps", **costs)
        plans, steps = plan(size, costs, left())
        try:
            for names in itertools.accumulate(plans, "{},{}".format):
                if not train(names, folder / "run", (*flags, *step_flags(steps)), left):
                    results.note(names, "stopped by the time")
                    break
        finally:
            bring_back(folder / "run", results)


def prepare(size, folder):
    """Prepares the tokens of the corpus `docs`, and returns their folder."""
    named = dict(flag.removeprefix("--").split("=") for flag in size.pretrain)
    chosen = sizes.get_size(named["size"])
    flags = [
        f"--vocabulary_pieces={chosen.vocabulary_pieces}",
        f"--num_sentinels={chosen.num_sentinels}",
        f"--data_dir={folder / 'tokens'}",
    ]
    printed = _call("trainers.prepare", flags, stdout=subprocess.PIPE).stdout
    return printed.decode().splitlines()[-1]


def trial(size, folder, flags, left):
    """Trains a small and a fused model for a few steps.

    Returns:
        Seconds of a step of each size letter, and of a stage besides its steps.
    """
    start = time.perf_counter()
    if not train("self_fusion", folder, (*flags, *TRIAL), left):
        raise TimeoutError("expected a trial that ends in time. Give more --minutes")
    seconds = time.perf_counter() - start
    records = [record(folder, name) for name in ("small_0", "self_fusion")]
    steps = {r["size"]: r["device_seconds"] / r["steps"] for r in records}
    trained = sum(r["device_seconds"] for r in records)
    return {**steps, "stage": (seconds - trained) / len(records)}


def plan(size, costs, seconds):
    """Returns the commands' plans that fit the seconds, and the steps of a small model.

    The first command is always among them; the others are where that leaves it at least a third of
    the steps that it could have alone.
    """
    alone = _fitting(size.plans[:1], costs, seconds)
    together = _fitting(size.plans, costs, seconds)
    plans, steps = (size.plans, together) if together >= alone / 3 else (size.plans[:1], alone)
    return plans, max(10, min(size.most_steps, int(steps)))


def _fitting(plans, costs, seconds):
    """Steps of a small model with which the stages of plans take so many seconds."""
    stages = stages_of(",".join(plans).split(","))
    overhead = _OVERHEAD * costs["stage"] * len(stages)
    per_step = sum(_share(stage.name, stage.size) * costs[stage.size] for stage in stages)
    return (_USED * seconds - overhead) / per_step


def _share(name, letter):
    return STEPS.get(name, STEPS[letter])


def step_flags(steps):
    """Returns the flags of a run in which a small model has so many steps."""
    counts = {name: max(1, round(share * steps)) for name, share in STEPS.items()}
    named = ",".join(f"{name}:{count}" for name, count in counts.items())
    every = max(1, steps // 10)
    return (f"--steps={named}", f"--eval_every={every}", f"--checkpoint_every={2 * steps}")


def train(plans, folder, flags, left):
    """Runs `trainers.pretrain`; returns whether it ended in time."""
    seconds = max(1, left() - 10)
    flags = [f"--plan={plans}", f"--workdir={folder}", f"--max_seconds={seconds:.0f}", *flags]
    return _call("trainers.pretrain", [*flags, "--progress=false"]).returncode != _STOPPED


def _call(program, flags, **options):
    command = [sys.executable, "-m", program, *flags]
    print(" ".join(command), flush=True)
    process = subprocess.run(command, **options)
    if process.returncode not in (0, _STOPPED):
        raise ChildProcessError(f"{program} ended with code {process.returncode}")
    return process


def record(folder, name):
    """Returns the record of a finished stage."""
    return json.loads((folder / name / RECORD_FILE).read_text(encoding="utf-8"))


def bring_back(folder, results):
    """Writes what each finished stage reached; copies the report, and all curves."""
    if not (folder / RUN_FILE).exists():
        return
    curves = {}
    for path in sorted(folder.glob(f"*/{RECORD_FILE}"), key=lambda path: path.stat().st_mtime):
        stage = record(folder, path.parent.name)
        curves[stage["name"]] = stage["curve"]
        facts = {name: stage[name] for name in ("steps", "loss_per_token", "device_seconds")}
        facts["TFLOP"] = stage["flops"] / 1e12
        results.add(stage["name"], [stage["accuracy"]], "% accuracy", **facts)
    run_file = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    written = json.dumps({"run": run_file, "curves": curves})
    (results.folder / CURVES).write_text(written, encoding="utf-8")
    _call("trainers.report", [f"--workdir={folder}"])
    shutil.copy(folder / REPORT_FOLDER / REPORT_FILE, results.folder / REPORT_FILE)
