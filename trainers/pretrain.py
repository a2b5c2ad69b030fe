"""Trains the stages of one or more plans, and writes the report.

    python -m trainers.pretrain --plan=baseline,self_fusion --size=tiny --corpus=docs --workdir=W

trains, at tiny size, a baseline of size M from random weights, a small model of size S, and its
self-fusion of size M: about seven minutes on two processor cores, to about 46 and 50 % token
accuracy (docs/demo.md); the report is W/report/report.html. At `--size=table8` the same command is
the experiment of the paper's Tables 1 and 2 (batches of 256 x 512 tokens, one million steps a
stage: for accelerators).

The command can be stopped and given again: finished stages are kept, a started one goes on from
its newest checkpoint; after SIGTERM or Ctrl-C it loses nothing (exit codes: trainers/programs.py).
`--stage=NAME` trains one stage alone, so that stages can run on different machines that share W.
`--plan=table1,figure2,offsets,zero_blocks,when_to_fuse` are the experiments of the paper
(trainers/plans), `--plan_file=FILE.json` trains a plan of your own (trainers/plans/files.py has its
form), and `--repeats=3` trains everything with three seeds: STAGE, STAGE_r2, STAGE_r3.
`--plan=tune` finds learning rates for the arms of table1 first; plans in the same command, or later
in the same workdir, take them. `--theory_every=N` logs the Lie bracket of fused stages.
Settings of stages are written NAME:VALUE[,NAME:VALUE], NAME a stage or a size:
`--steps=S:3000,M:4000 --learning_rate_offset=self_fusion:-500`.

Devices: with TensorFlow `--strategy` (GPUs, hosts, TPUs; data parallel), with KERAS_BACKEND=jax
`--mesh_shape` and `--layout` (model parallel). docs/scaling.md has the commands.
"""

import dataclasses
import pathlib
import shlex
import sys

from absl import flags

from trainers import plans, programs, reports, stopping
from trainers.engines.devices import STRATEGIES, Devices
from trainers.engines.mesh import T5_LAYOUT
from trainers.plans import settings, sizes
from trainers.plans.options import PlanOptions
from trainers.plans.tuning import ARMS
from trainers.pretraining import run
from trainers.pretraining.config import CORPORA, PretrainConfig
from trainers.runs.workdir import Workdir

_NAMED_FLAGS = {
    "steps": "training steps",
    "warmup_steps": "steps k of constant learning rate in scale / sqrt(max(n + offset, k))",
    "learning_rate_offset": "offset in that schedule; negative holds the maximum for longer",
    "learning_rate_scale": "scale in that schedule",
    "optimizer": "adafactor or adamw",
    "dropout": "dropout rate",
    "noise": "noise of a fusion: standard deviation over the RMS of the source weight",
    "noise_kind": "gaussian (off the diagonal) or balanced",
    "norm": "norm of a self-fused stage: rule or property",
    "seed": "seed; one for the run, NAME:VALUE for a stage's own",
    "clip_norm": "largest global norm of the gradients",
    "dtype": "float32 or mixed_bfloat16",
    "eval_every": "steps between evaluations",
    "checkpoint_every": "steps between checkpoints",
    "steps_per_call": "training steps in one call of the device",
}

# How a flag is declared, its name, default, and what --help says of it.
_FLAGS = (
    (flags.DEFINE_list, "plan", None, f"Plans, comma-separated: {', '.join(plans.NAMES)}."),
    (
        flags.DEFINE_string,
        "plan_file",
        None,
        'JSON file with a plan of your own: {"name": "mine", "stages": [{"name": "a", "size": "S"},'
        ' {"name": "b", "size": "M", "init": "self_fusion", "sources": ["a"], "copies": 2}]}; '
        "trainers/plans/files.py has all fields.",
    ),
    (flags.DEFINE_integer, "repeats", 1, "Train all with so many seeds: STAGE, STAGE_r2, …"),
    (flags.DEFINE_string, "offsets", None, "Plan offsets: steps, such as --offsets=-100,0,100."),
    (flags.DEFINE_string, "sigmas", None, "Plan zero_blocks: standard deviations of the noise."),
    (flags.DEFINE_string, "fuse_at", None, "Plan when_to_fuse: steps of the small model."),
    (
        flags.DEFINE_string,
        "budgets",
        None,
        "Plan when_to_fuse: FLOPs; device-seconds with --step_seconds.",
    ),
    (
        flags.DEFINE_string,
        "step_seconds",
        None,
        "Plan when_to_fuse: device-seconds of a step, such as S:0.025,M:0.058.",
    ),
    (flags.DEFINE_string, "tune_arms", None, f"Plan tune: stages; default {','.join(ARMS)}."),
    (flags.DEFINE_string, "tune_warmups", None, "Plan tune: multiples of each arm's warm-up."),
    (flags.DEFINE_string, "tune_scales", None, "Plan tune: multiples of each arm's scale."),
    (flags.DEFINE_integer, "tune_steps", None, "Plan tune: steps of a big arm's first rung."),
    (flags.DEFINE_string, "size", "tiny", f"What S, M, L are: {', '.join(sizes.SIZES)}."),
    (flags.DEFINE_string, "workdir", None, "Folder of the run."),
    (flags.DEFINE_string, "stage", None, "Train this stage alone; needs its sources finished."),
    (flags.DEFINE_string, "corpus", "docs", f"Text to train on: {', '.join(CORPORA)}."),
    (flags.DEFINE_string, "corpus_path", None, "Files of the corpus: a path or quoted pattern."),
    (flags.DEFINE_string, "vocabulary", None, "SentencePiece model; by default one is trained."),
    (flags.DEFINE_string, "data_dir", None, "Tokens of trainers.prepare; else prepared here."),
    (flags.DEFINE_integer, "batch_size", None, "Sequences a batch."),
    (flags.DEFINE_integer, "input_length", None, "Tokens of a sequence that the encoder sees."),
    (flags.DEFINE_integer, "eval_batches", None, "Batches of the fixed validation set."),
    (flags.DEFINE_string, "strategy", "auto", f"TensorFlow: {', '.join(STRATEGIES)}."),
    (flags.DEFINE_string, "tpu", None, "TPU of --strategy=tpu: its name, or local."),
    (flags.DEFINE_string, "mesh_shape", None, "JAX: name:size pairs, such as batch:2,model:2."),
    (flags.DEFINE_string, "layout", None, f"JAX: axis:mesh dimension pairs; default {T5_LAYOUT}."),
    (flags.DEFINE_integer, "microbatches", 1, "Parts that a device's batch is cut into."),
    (flags.DEFINE_bool, "parallel_stages", False, "JAX: train independent stages side by side."),
    (flags.DEFINE_string, "tuning", None, "Which sweep chose the learning rates; for the report."),
    (flags.DEFINE_integer, "keep_every", None, "Checkpoints at multiples of it stay for ever."),
    (
        flags.DEFINE_integer,
        "theory_every",
        None,
        "Log the bracket and the modified loss of section 4 every N steps of fused stages.",
    ),
    (
        flags.DEFINE_string,
        "on_nan",
        "stop",
        "At a loss that is not finite: stop, or skip (a batch).",
    ),
    (flags.DEFINE_bool, "progress", True, "Show progress bars."),
    *(
        (flags.DEFINE_string, name, None, f"{text}: VALUE or NAME:VALUE[,NAME:VALUE]")
        for name, text in _NAMED_FLAGS.items()
    ),
)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares this binary's flags in `values`."""
    for define, name, default, text in _FLAGS:
        define(name, default, text, flag_values=values)


def config_from_flags(values: flags.FlagValues, command: str = "") -> PretrainConfig:
    """Reads the flags into the configuration; `command` is what the report says was typed.

    Raises:
        UserError: a flag cannot be read, or the configuration refuses itself.
    """
    given = {
        name: settings.parse(name, values[name].value)
        for name in _NAMED_FLAGS
        if values[name].value is not None
    }
    fields = [f.name for f in dataclasses.fields(PretrainConfig)]
    computed = ("stage_flags", "command", "devices", "plan_options", "tuned")
    plain = {name: values[name].value for name in fields if name not in computed}
    devices = {field.name: values[field.name].value for field in dataclasses.fields(Devices)}
    options = {field.name: values[field.name].value for field in dataclasses.fields(PlanOptions)}
    plain["plan"] = tuple(name.strip() for name in plain["plan"] or () if name.strip())
    plain["workdir"] = plain["workdir"] or ""
    return PretrainConfig(
        **plain,
        plan_options=PlanOptions.from_texts(**options),
        devices=Devices(**devices),
        stage_flags=given,
        command=command,
    )


def pretrain(config: PretrainConfig) -> pathlib.Path:
    """Trains what the configuration asks for and writes the report.

    Args:
        config: the run.

    Returns:
        The report's file.

    Raises:
        UserError: as for `trainers.pretraining.run.train`.
    """
    workdir = Workdir(config.workdir)
    if not run.train(config):
        return workdir.report_dir / "report.html"
    report = reports.write_report(workdir.path)
    print(f"Report: {report}")
    return report


def main(argv):
    """Reads the flags, and trains."""
    del argv
    command = shlex.join(["python", "-m", "trainers.pretrain", *sys.argv[1:]])
    with stopping.handled():
        pretrain(config_from_flags(flags.FLAGS, command))


if __name__ == "__main__":
    define_flags()
    programs.run(main)
