"""Fine-tunes pretrained models on their tasks: repeat after repeat, unit after unit."""

import contextlib
import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Callable, Sequence

from glue import data, results
from glue.finetuning import evaluation, greedy, units
from glue.finetuning.config import FinetuneConfig
from glue.finetuning.evaluation import Evaluator, steps_of, test_inputs
from glue.finetuning.pretrained import Pretrained, of_plan, open_pretrained
from glue.finetuning.units import Unit
from keras_fusion.optimizers import Adafactor
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER, Keep
from trainers.engines import hosts
from trainers.engines.base import StepOptions
from trainers.engines.devices import EngineFactory, engine_factory
from trainers.engines.flops import planned_step_flops, step_flops
from trainers.files import read_json
from trainers.pretraining.outlook import Outlook, Work, expected_speed
from trainers.runs import locks, shared
from trainers.runs.state import RunState
from trainers.runs.workdir import Workdir
from trainers.training import loop
from trainers.training.config import StageJob, StepCosts, TrainConfig, TrainResult, Watch
from trainers.training.hparams import HParams
from trainers.versions import installed_versions

# Tells a results folder from the folder of a pretraining run.
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

    def unfinished(self, unit: Unit) -> list[str]:
        """The tasks of a unit that have no result."""
        return [
            task for task in unit.tasks if not (self.folder / task / results.RESULT_FILE).exists()
        ]

    def label(self, unit: Unit) -> str:
        """Name of the fine-tuning on a unit, among all of a command."""
        return f"{self.name} {unit.name}"

    def work(self, unit: Unit) -> Work:
        """Steps of the fine-tuning on a unit, and the FLOPs of each; of packed rows a bound."""
        config = self.config
        lengths = (config.batch_size, config.input_length, config.target_length)
        step = max(checkpoints.steps(self.folder / unit.name / CHECKPOINT_FOLDER), default=0)
        return Work(
            self.pretrained.model,
            _flops(self.pretrained.config, lengths),
            config.steps,
            min(step, config.steps) if self.unfinished(unit) else config.steps,
            is_bound=config.packed,
        )

    def check(self, unit: Unit) -> None:
        """Raises a `UserError` where its folder is of another fine-tuning."""
        self._write_model(check_only=True)
        RunState(self.folder).check_stage(unit.name, unit.identity)

    def start(self, unit: Unit) -> None:
        """Records in its folder what it is."""
        with locks.run_files(self.config.workdir):
            self._write_model()
        RunState(self.folder).start_stage(unit.name, unit.identity, {})

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


@functools.cache
def _flops(config, lengths: tuple[int, int, int]) -> float:
    return planned_step_flops(config, *lengths)


class _Finetuning:
    """Fine-tunes pretrained models: what all repeats and tasks share."""

    def __init__(self, config: FinetuneConfig, engines: EngineFactory, outlook: Outlook):
        self.config = config
        self.engines = engines
        self.outlook = outlook
        self._generators = {}

    def run(self, repeat: _Repeat, unit: Unit) -> None:
        """Trains and evaluates what is not finished of a unit."""
        engine = self.engines(StepOptions(None, self.config.devices.microbatches))
        if not repeat.unfinished(unit):
            if engine.is_chief:
                print(f"{repeat.name} {unit.name} was finished.", flush=True)
        else:
            if engine.is_chief:
                repeat.start(unit)
            self.outlook.begin(repeat.label(unit))
            trained = self._train(engine, repeat, unit)
            self.outlook.end(repeat.label(unit))
            if engine.is_chief:
                self._evaluate(repeat, unit, trained, engine.num_devices)
            # No host continues before the results are there.
            engine.agree(False)
        if engine.is_chief:
            paths = (repeat.folder / task / results.RESULT_FILE for task in unit.tasks)
            best = {read_json(path)["best_step"] for path in paths}
            evaluation.tidy(repeat.folder / unit.name / CHECKPOINT_FOLDER, best)

    def _train(self, engine, repeat: _Repeat, unit: Unit) -> TrainResult:
        config = self.config
        with engine.scope():
            model = repeat.pretrained.build(repeat.seed, config.dtype)
            optimizer = Adafactor(config.learning_rate)
        batches = unit.batches(config, repeat.seed, engine.num_devices)
        validation = unit.validation_batches(config)
        rows = batches.examples
        flops = step_flops(model, batches.batch_size, rows.input_length, rows.target_length)
        job = StageJob(
            engine=engine,
            model=model,
            optimizer=optimizer,
            batches=batches,
            validation=validation,
            costs=StepCosts(batches.tokens_per_batch, flops.total),
            settings={"model": model.config.to_dict(), "finetuning": config.identity()},
        )
        periods = TrainConfig(
            steps=config.steps,
            eval_every=config.checkpoint_every,
            eval_batches=len(validation),
            checkpoint_every=config.checkpoint_every,
            steps_per_call=config.steps_per_call,
            keep=Keep(1, best=False, every=config.checkpoint_every),
        )
        watch = Watch(
            label=repeat.label(unit),
            progress=config.progress,
            outlook=functools.partial(self.outlook.took, repeat.label(unit)),
            hparams=_hparams(repeat, unit),
        )
        return loop.train(job, periods, repeat.folder / unit.name, watch)

    def _evaluate(self, repeat: _Repeat, unit: Unit, trained: TrainResult, devices: int) -> None:
        config = self.config
        evaluator = Evaluator(repeat.folder, unit, *self._generator(repeat.pretrained))
        steps = steps_of(config.checkpoint_every, trained.steps)
        tasks = repeat.unfinished(unit)
        # Checkpoint after checkpoint, so that each is read once for all tasks of a mixture.
        for step in steps:
            for task in tasks:
                evaluator.evaluate(task, step)
        for task in tasks:
            evaluator.finish(
                task,
                steps,
                test_inputs(task, config.data_dir) if config.submission else {},
                trained_on=list(unit.tasks),
                device_seconds=trained.device_seconds,
                devices=devices,
                inputs_cut=unit.train.cut,
            )

    def _generator(self, pretrained: Pretrained) -> tuple[object, Callable]:
        """A model that takes the checkpoints' weights, and the function that generates with it.

        One for all pretrained models of an architecture, as it takes long to compile.
        """
        if pretrained.config not in self._generators:
            config = self.config
            model = pretrained.build(0, config.dtype)
            lengths = (config.batch_size, config.input_length, config.target_length)
            predict = greedy.predictor(model, pretrained.vocabulary, *lengths)
            self._generators[pretrained.config] = model, predict
        return self._generators[pretrained.config]


def finetune(config: FinetuneConfig) -> None:
    """Fine-tunes and evaluates what the configuration asks for, or changes nothing if it cannot."""
    folders = [config.checkpoint] if config.checkpoint else of_plan(config.pretrained)
    models = [open_pretrained(f, config.dropout, config.vocabulary, config.model) for f in folders]
    config = config.resolved(max(model.config.hidden_dim for model in models))
    names, missing = data.available(config.named, config.data_dir)
    for name, reason in missing.items():
        print(f"{name} is left out. {reason}", flush=True)
    workdir = Workdir(config.workdir)
    workdir.check(_SETTINGS)
    # TensorFlow's strategy of several hosts has to come before any operation, as of a tokenizer.
    engines = engine_factory(config.devices)
    engine = engines(StepOptions())
    # The models of a run have one vocabulary.
    every = units.read(config, names, models[0].vocabulary)
    parts = [(repeat, unit) for repeat in _repeats(config, models) for unit in every]
    for repeat, unit in parts:
        repeat.check(unit)
    works = {repeat.label(unit): repeat.work(unit) for repeat, unit in parts}
    outlook = Outlook(works, expected_speed())
    tuning = _Finetuning(config, engines, outlook)
    is_chief = engine.is_chief
    hosts.check_command(engine, config)
    with _locked(config, parts) if is_chief else contextlib.nullcontext():
        shared.check_folder(engine, workdir.path)
        if is_chief:
            with locks.run_files(workdir.path):
                workdir.open(_SETTINGS, command=config.command, versions=installed_versions())
            print(
                f"Fine-tuning: {outlook.cost}" + " Evaluations come on top." * bool(outlook.flops)
            )
            _print_plan(config, models, every)
        for repeat, unit in parts:
            tuning.run(repeat, unit)
    if is_chief:
        print(f"Tables: python -m glue.report --workdir={shlex.quote(config.workdir)}")


def _hparams(repeat: _Repeat, unit: Unit) -> HParams:
    """Identity of a fine-tuning, as TensorBoard's HPARAMS page lists it."""
    values = {"unit": unit.name, "model": repeat.pretrained.model, "seed": repeat.seed}
    values |= {"pretrain_steps": repeat.pretrained.steps} | repeat.config.identity()
    return HParams({name: type(value) for name, value in values.items()}, values)


def _repeats(config: FinetuneConfig, models: Sequence[Pretrained]) -> list[_Repeat]:
    """The fine-tunings of each model; a later repeat of its stage has later numbers."""
    repeats = []
    for model in models:
        first = config.first_repeat
        if first is None:
            first = model.repeat * config.repeats
        repeats += [_Repeat(config, model, first + index) for index in range(config.repeats)]
    return repeats


def _locked(config: FinetuneConfig, parts) -> contextlib.AbstractContextManager:
    names = [f"{repeat.name}.{unit.name}" for repeat, unit in parts if repeat.unfinished(unit)]
    return locks.stages(config.workdir, names)


def _print_plan(config: FinetuneConfig, models: Sequence[Pretrained], every: Sequence[Unit]):
    for model in models:
        print(f"{model.model} ({model.stage} after {model.checkpoint.step:,} steps)")
    print(
        f"repeats={config.repeats}, each {config.steps:,} steps of {config.batch_size} x "
        f"({config.input_length} + {config.target_length}) tokens on"
    )
    for unit in every:
        print(
            f"  {unit.name}: {len(unit.train):,} examples ({unit.train.cut:,} longer than "
            f"{config.input_length} tokens), {len(unit.validation):,} to validate on",
            flush=True,
        )
