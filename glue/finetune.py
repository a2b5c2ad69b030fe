"""Fine-tunes a pretrained model on GLUE, evaluates it as T5 does, and records its scores.

    python -m glue.finetune --checkpoint=W/self_fusion --tasks=cola,rte --data_dir=DIR --workdir=G

fine-tunes the model on each task for itself, evaluates every checkpoint on the validation set by
greedy generation, takes the best one of each task, and predicts the test sets with it
(G/RUN/submission, in the benchmark's format). `--tasks=mixture` trains one model on all tasks,
drawn by their train sizes, and takes the best checkpoint of each task. The checkpoint may be that
of a stage, of any of its steps, or what `trainers.fuse` wrote: a model that was never trained
after its fusion. `--synthetic` needs no data: its tasks are made by rules, and are no GLUE tasks.

`--pretrained=W` in place of the checkpoint takes every model that `trainers.pretrain --plan=table5`
has kept in W: the experiment of Table 5.

Lengths, batch, steps and checkpoint period are T5's for models of its sizes, and smaller for tiny
ones (--help has both). `--repeats=3` does everything with three seeds. Several models may share G;
`python -m glue.report --workdir=G` then has the tables.

    G/RUN/model.json                    which model, and with which settings; RUN is MODEL-STEPS-rN
    G/RUN/TASK or G/RUN/mixture         metrics.jsonl, tensorboard/, checkpoints/ of the training
    G/RUN/TASK/evaluations/             what each checkpoint has predicted
    G/RUN/TASK/result.json              the best one's scores (glue/results.py)

The command can be stopped and given again, as with trainers.pretrain: what is finished is kept,
and what was started goes on exactly. Of the checkpoints only the best ones stay in the end.
"""

import contextlib
import dataclasses
import pathlib
import shlex
import sys

from absl import flags

from glue import data, results
from glue.finetuning import evaluation, greedy, units
from glue.finetuning.config import FinetuneConfig, config_from_flags, define_flags
from glue.finetuning.evaluation import Evaluation, steps_of, test_inputs
from glue.finetuning.pretrained import Pretrained, of_plan, open_pretrained
from glue.finetuning.units import Unit
from keras_fusion.optimizers import Adafactor
from trainers import checkpoints, programs, stopping
from trainers.engines.base import StepOptions
from trainers.engines.devices import EngineFactory, engine_factory
from trainers.engines.flops import step_flops
from trainers.files import read_json
from trainers.runs import locks
from trainers.runs.workdir import Workdir
from trainers.training import loop
from trainers.training.config import StepCosts
from trainers.versions import installed_versions

# What keeps a results folder from the folder of a pretraining run.
_SETTINGS = {"kind": "fine-tuning"}


@dataclasses.dataclass(frozen=True)
class _Repeat:
    """One model with one seed: a RUN of the results folder."""

    config: FinetuneConfig
    pretrained: Pretrained
    number: int

    @property
    def name(self) -> str:
        return f"{self.pretrained.model}-{self.pretrained.steps}-r{self.number}"

    @property
    def seed(self) -> int:
        return self.config.seed + self.number

    @property
    def folder(self) -> pathlib.Path:
        return pathlib.Path(self.config.workdir) / self.name

    def is_finished(self, unit: Unit) -> bool:
        return all((self.folder / task / results.RESULT_FILE).exists() for task in unit.tasks)

    def check(self, unit: Unit) -> None:
        """Raises a `UserError` where its folder is of another fine-tuning."""
        self._write_model(check_only=True)
        Workdir(self.folder).check_stage(unit.name, unit.identity)

    def start(self, unit: Unit) -> None:
        """Says in its folder what it is."""
        with locks.run_files(self.config.workdir):
            self._write_model()
        Workdir(self.folder).start_stage(unit.name, unit.identity, {})

    def _write_model(self, check_only: bool = False) -> None:
        results.write_model(
            self.config.workdir,
            self.name,
            model=self.pretrained.model,
            stage=self.pretrained.stage,
            pretrain_steps=self.pretrained.steps,
            stage_steps=self.pretrained.checkpoint.step,
            repeat=self.number,
            seed=self.seed,
            mixture=self.config.is_mixture,
            **self.pretrained.identity,
            **self.config.identity(),
            command=self.config.command,
            check_only=check_only,
        )


class _Finetuning:
    """Fine-tunes pretrained models: what all repeats and tasks share."""

    def __init__(self, config: FinetuneConfig, engines: EngineFactory):
        self.config = config
        self.engines = engines
        self._generators = {}

    def _generator(self, pretrained: Pretrained):
        """A model that the checkpoints' weights are put into, and what generates with it.

        One for all pretrained models of an architecture, as it takes long to compile.
        """
        if pretrained.config not in self._generators:
            config = self.config
            model = pretrained.build(0, config.dtype)
            lengths = (config.batch_size, config.input_length, config.target_length)
            predict = greedy.predictor(model, pretrained.vocabulary, *lengths)
            self._generators[pretrained.config] = model, predict
        return self._generators[pretrained.config]

    def run(self, repeat: _Repeat, unit: Unit) -> None:
        """Trains and evaluates, or finds what is done of it."""
        engine = self.engines(StepOptions(None, self.config.devices.microbatches))
        if repeat.is_finished(unit):
            if engine.is_chief:
                print(f"{repeat.name} {unit.name} was finished.", flush=True)
        else:
            if engine.is_chief:
                repeat.start(unit)
            trained = self._train(engine, repeat, unit)
            if engine.is_chief:
                self._evaluate(repeat, unit, trained, engine.num_devices)
            # No host goes on before the results are there.
            engine.agree(False)
        if engine.is_chief:
            found = (repeat.folder / task / results.RESULT_FILE for task in unit.tasks)
            best = {read_json(path)["best_step"] for path in found}
            evaluation.tidy(repeat.folder / unit.name / checkpoints.CHECKPOINT_FOLDER, best)

    def _train(self, engine, repeat: _Repeat, unit: Unit) -> loop.TrainResult:
        config = self.config
        with engine.scope():
            model = repeat.pretrained.build(repeat.seed, config.dtype)
            optimizer = Adafactor(config.learning_rate)
        batches = unit.batches(config, repeat.seed, engine.num_devices)
        validation = unit.validation_batches(config.batch_size, config.eval_batches)
        rows = batches.examples
        flops = step_flops(model, batches.batch_size, rows.input_length, rows.target_length)
        return loop.train(
            engine=engine,
            model=model,
            optimizer=optimizer,
            batches=batches,
            validation=validation,
            config=loop.TrainConfig(
                steps=config.steps,
                eval_every=config.checkpoint_every,
                eval_batches=len(validation),
                checkpoint_every=config.checkpoint_every,
                steps_per_call=config.steps_per_call,
                keep_checkpoints=1,
                keep_best=False,
                keep_every=config.checkpoint_every,
            ),
            folder=repeat.folder / unit.name,
            costs=StepCosts(batches.tokens_per_batch, flops.total),
            settings={"model": model.config.to_dict(), "finetuning": config.identity()},
            name=f"{repeat.name} {unit.name}",
            progress=config.progress,
        )

    def _evaluate(self, repeat: _Repeat, unit: Unit, trained: loop.TrainResult, devices: int):
        config = self.config
        model, predict = self._generator(repeat.pretrained)
        saved = repeat.folder / unit.name / checkpoints.CHECKPOINT_FOLDER
        found = Evaluation(repeat.folder, unit, model, predict, saved)
        steps = steps_of(config.checkpoint_every, trained.steps)
        unfinished = [
            task for task in unit.tasks if not (repeat.folder / task / results.RESULT_FILE).exists()
        ]
        # Checkpoint after checkpoint, so that each is read once for all tasks of a mixture.
        for step in steps:
            for task in unfinished:
                found.run(task, [step])
        for task in unfinished:
            tests = test_inputs(task, config.data_dir) if config.submission else {}
            found.finish(
                task,
                steps,
                tests,
                trained_on=list(unit.tasks),
                device_seconds=trained.device_seconds,
                devices=devices,
                inputs_cut=unit.train.cut,
            )


def finetune(config: FinetuneConfig) -> None:
    """Fine-tunes and evaluates what the configuration asks for.

    Args:
        config: the fine-tuning.

    Raises:
        UserError: something cannot be used as asked, or another process does one of its parts;
            nothing that existed was changed.
    """
    folders = [config.checkpoint] if config.checkpoint else of_plan(config.pretrained)
    models = [open_pretrained(f, config.dropout, config.vocabulary, config.model) for f in folders]
    config = config.resolved(max(model.config.hidden_dim for model in models))
    names, missing = data.available(config.named, config.data_dir)
    for name, reason in missing.items():
        print(f"{name} is left out. {reason}", flush=True)
    workdir = Workdir(config.workdir)
    workdir.check(_SETTINGS)
    # The models of a run have one vocabulary.
    found = units.read(config, names, models[0].vocabulary)
    repeats = [repeat for model in models for repeat in _repeats(config, model)]
    parts = [(repeat, unit) for repeat in repeats for unit in found]
    for repeat, unit in parts:
        repeat.check(unit)
    tuning = _Finetuning(config, engine_factory(config.devices))
    is_chief = tuning.engines(StepOptions()).is_chief
    with _locked(config, parts) if is_chief else contextlib.nullcontext():
        if is_chief:
            _open(workdir, config)
            _print_plan(config, models, found)
        for repeat, unit in parts:
            tuning.run(repeat, unit)
    if is_chief:
        print(f"Tables: python -m glue.report --workdir={shlex.quote(config.workdir)}")


def _repeats(config: FinetuneConfig, pretrained: Pretrained) -> list[_Repeat]:
    """The fine-tunings of a model; those of the next repeat of its stage are counted on."""
    first = config.first_repeat
    if first is None:
        first = pretrained.repeat * config.repeats
    return [_Repeat(config, pretrained, first + index) for index in range(config.repeats)]


def _locked(config: FinetuneConfig, parts) -> contextlib.AbstractContextManager:
    names = [f"{repeat.name}.{unit.name}" for repeat, unit in parts if not repeat.is_finished(unit)]
    return locks.stages(config.workdir, names)


def _open(workdir: Workdir, config: FinetuneConfig) -> None:
    with locks.run_files(workdir.path):
        workdir.open(_SETTINGS, command=config.command, versions=installed_versions())


def _print_plan(config: FinetuneConfig, models: list[Pretrained], found: list[Unit]) -> None:
    for model in models:
        print(f"{model.model} ({model.stage} after {model.checkpoint.step:,} steps)")
    print(
        f"repeats={config.repeats}, each {config.steps:,} steps of {config.batch_size} x "
        f"({config.input_length} + {config.target_length}) tokens on"
    )
    for unit in found:
        print(
            f"  {unit.name}: {len(unit.train):,} examples ({unit.train.cut:,} longer than "
            f"{config.input_length} tokens), {len(unit.validation):,} to validate on",
            flush=True,
        )


def main(argv):
    """Reads the flags, and fine-tunes."""
    del argv
    command = shlex.join(["python", "-m", "glue.finetune", *sys.argv[1:]])
    with stopping.handled():
        finetune(config_from_flags(flags.FLAGS, command))


if __name__ == "__main__":
    define_flags()
    programs.run(main)
