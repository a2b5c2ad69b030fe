"""Trains the stages of one or more plans, and writes the report.

    python -m trainers.pretrain --plan=baseline,self_fusion --size=tiny --corpus=docs --workdir=W

trains, at tiny size, a baseline of size M from random weights, a small model of size S, and its
self-fusion of size M: about seven minutes on two processor cores, to about 46 and 50 % token
accuracy (docs/demo.md); the report is W/report/report.html. At `--size=table8` the same command is
the experiment of the paper's Tables 1 and 2 (batches of 256 x 512 tokens, one million steps a
stage: for accelerators).

The command can be stopped and given again: finished stages are kept, a started one goes on from
its newest checkpoint. `--stage=NAME` trains one stage alone, so that stages can run on different
machines that share W. Settings of stages are written NAME:VALUE[,NAME:VALUE], NAME a stage or a
size: `--steps=S:3000,M:4000 --learning_rate_offset=self_fusion:-500`.
"""

import dataclasses
import pathlib
import shlex
import sys
import time
from collections.abc import Callable

import keras
from absl import flags

import keras_fusion as kf
from trainers import errors, graphs, plans, reports, settings, sizes, stages
from trainers.data import manifest
from trainers.data.batches import PretrainingBatches
from trainers.data.config import DataConfig
from trainers.data.prepare import prepare
from trainers.engines.base import Engine
from trainers.errors import UserError
from trainers.graphs import Stage
from trainers.pretrain_config import CORPORA, STRATEGIES, PretrainConfig
from trainers.settings import StageSettings
from trainers.sizes import Size
from trainers.versions import installed_versions
from trainers.workdir import Workdir

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
    "eval_every": "steps between evaluations",
    "checkpoint_every": "steps between checkpoints",
    "steps_per_call": "training steps in one call of the device",
}


def pretrain(config: PretrainConfig) -> pathlib.Path:
    """Trains what the configuration asks for and writes the report.

    Args:
        config: the run.

    Returns:
        The report's file.

    Raises:
        UserError: something cannot be used as asked; nothing that existed was changed.
    """
    size = sizes.get_size(config.size)
    _check_plan(config, size)
    workdir = Workdir(config.workdir)
    workdir.check(config.identity())
    if config.stage is not None:
        stages.check_sources(*config.wanted, workdir)
    make_engine = engines_of(config.strategy)
    data_dir = _data(config, size)
    run = _run(config, size, workdir, data_dir, make_engine)
    for stage in config.wanted:
        workdir.check_stage(stage.name, stages.identity(stage, config.settings_of(stage), run))
    workdir.open(
        config.identity() | fingerprints(data_dir),
        config.plan,
        tuning=config.tuned_by,
        command=config.command,
        versions=installed_versions(),
        **_corpus(data_dir),
    )
    _print_plan(config, run)
    for stage in config.wanted:
        _train(stage, config.settings_of(stage), run)
    report = reports.write_report(workdir.path)
    print(f"Report: {report}")
    return report


def _check_plan(config: PretrainConfig, size: Size):
    """Finds widths that do not add up before any text is read."""
    letters = {
        letter: stages.model_config(size, letter, vocabulary_size=128).to_dict()
        for letter in size.models
    }
    graphs.check_widths(config.stages, letters)


def _data(config: PretrainConfig, size: Size) -> pathlib.Path:
    if config.data_dir:
        _check_vocabulary(config)
        return pathlib.Path(config.data_dir)
    return pathlib.Path(
        prepare(
            DataConfig(
                corpus=config.corpus,
                corpus_path=config.corpus_path,
                vocabulary_path=config.vocabulary,
                vocabulary_pieces=size.vocabulary_pieces,
                num_sentinels=size.num_sentinels,
                root=str(pathlib.Path(config.workdir) / "data"),
            )
        )
    )


def _check_vocabulary(config: PretrainConfig):
    """Compares a vocabulary that was named with that of the tokens that were named."""
    facts = manifest.read(config.data_dir)["vocabulary"]
    if config.vocabulary and manifest.sha256_of(pathlib.Path(config.vocabulary)) != facts["sha256"]:
        raise UserError(
            f"Expected the vocabulary that the tokens in {config.data_dir!r} were made with. "
            f"Received: vocabulary={config.vocabulary!r}, another one. Leave out --vocabulary, or "
            "leave out --data_dir to tokenise anew."
        )


def fingerprints(data_dir: pathlib.Path) -> dict[str, str]:
    """What tells prepared tokens from others: how their hashes begin."""
    files = manifest.read(data_dir)["files"]
    return {name: file["sha256"][:12] for name, file in files.items()}


def _corpus(data_dir: pathlib.Path) -> dict[str, str]:
    """What the tokens were made of, from their manifest; for the report."""
    found = manifest.read(data_dir)
    files = ", ".join(file["name"] for file in found["corpus"].get("files", ()))
    path = {"corpus_path": files} if files else {}
    return {"corpus": found["config"]["corpus"], **path}


def _run(
    config: PretrainConfig,
    size: Size,
    workdir: Workdir,
    data_dir: pathlib.Path,
    make_engine: Callable[[], Engine],
) -> stages.Run:
    batches = PretrainingBatches(data_dir, "train", config.batch_size, config.input_length, seed=0)
    # Found out now, and not when the first stage is evaluated.
    PretrainingBatches(data_dir, "validation", config.batch_size, config.input_length)
    return stages.Run(
        workdir=workdir,
        size=size,
        data_dir=data_dir,
        vocabulary_size=batches.vocabulary_size,
        batch_size=config.batch_size,
        input_length=config.input_length,
        eval_batches=config.eval_batches,
        make_engine=make_engine,
        progress=config.progress,
    )


def engines_of(strategy: str) -> Callable[[], Engine]:
    """Returns what makes the engines of a run, for a strategy by name.

    All of them share one strategy object: a second one on the same devices would number its
    all-reduces from the start again, and TensorFlow would take them for those of the first.

    Args:
        strategy: "one_device" or "mirrored".

    Raises:
        UserError: Keras runs on a backend that these engines are not for.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "Expected Keras on its tensorflow backend for training. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
        )
    # Imported here, because this module's help and checks need no TensorFlow.
    import tensorflow as tf

    from trainers.engines.tensorflow import TensorFlowEngine

    # Each stage has a model, hence step functions of its own: nothing to warn of.
    tf.get_logger().setLevel("ERROR")
    shared = tf.distribute.MirroredStrategy() if strategy == "mirrored" else None
    return lambda: TensorFlowEngine(shared)


def _print_plan(config: PretrainConfig, run: stages.Run):
    """Prints a line a stage: what it is, what it comes from, how long it trains."""
    rows = [("stage", "size", "model", "parameters", "steps", "starts from")]
    for stage in config.wanted:
        found = config.settings_of(stage)
        rows.append(
            (
                stage.name,
                stage.size,
                run.size.models[stage.size],
                f"{kf.models.parameter_count(run.config(stage.size)):,}",
                f"{found.steps:,}",
                " + ".join(stage.parents) or "random weights",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"Plan {', '.join(config.plan)} at size {config.size}, tokens from {run.data_dir}:")
    for row in rows:
        print("  " + "  ".join(map(str.ljust, row, widths)).rstrip(), flush=True)


def _train(stage: Stage, found: StageSettings, run: stages.Run):
    finished = run.workdir.record(stage.name) is not None
    began = time.monotonic()
    record = stages.run_stage(stage, found, run)
    state = "was finished" if finished else f"took {time.monotonic() - began:.0f} s"
    print(
        f"{stage.name} {state}: {record['steps']:,} steps, accuracy {record['accuracy']:.2f} %, "
        f"loss {record['loss_per_token']:.4f} a token, {record['flops']:.3g} FLOPs.",
        flush=True,
    )


# How a flag is declared, its name, default, and what --help says of it.
_FLAGS = (
    (flags.DEFINE_list, "plan", None, f"Plans, comma-separated: {', '.join(plans.PLANS)}."),
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
    (flags.DEFINE_string, "strategy", "one_device", f"Devices: {', '.join(STRATEGIES)}."),
    (flags.DEFINE_string, "tuning", None, "Which sweep chose the learning rates; for the report."),
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
    plain = {name: values[name].value for name in fields if name not in ("stage_flags", "command")}
    plain["plan"] = tuple(name.strip() for name in plain["plan"] or () if name.strip())
    plain["workdir"] = plain["workdir"] or ""
    return PretrainConfig(**plain, stage_flags=given, command=command)


def main(argv):
    """Reads the flags, and trains."""
    del argv
    command = shlex.join(["python", "-m", "trainers.pretrain", *sys.argv[1:]])
    pretrain(config_from_flags(flags.FLAGS, command))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
