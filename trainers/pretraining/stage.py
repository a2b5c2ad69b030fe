"""Trains one stage of a plan: builds, fuses or resumes its model, calls the loop, records.

The identity of a stage (its node of the plan, its settings, its model) is written to stage.json
when it starts and compared whenever it is asked for again: a finished stage is not trained again, a
started one resumes, and one with other settings is refused.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import keras_fusion as kf
from trainers import checkpoints
from trainers.checkpoints import Keep
from trainers.checkpoints.models import (
    find_checkpoint,
    fused_weights,
    read_config,
    stacked_weights,
)
from trainers.data import manifest
from trainers.data.batches import PretrainingBatches
from trainers.engines.base import Engine, StepOptions
from trainers.engines.devices import EngineFactory
from trainers.engines.flops import step_flops
from trainers.plans import sizes
from trainers.plans.graph import Stage
from trainers.plans.settings import TEXT_NAMES, TEXTS, StageSettings, takes_second
from trainers.plans.sizes import Size
from trainers.plans.widths import model_fields
from trainers.pretraining import starts, theory_monitor
from trainers.pretraining.config import PretrainConfig
from trainers.pretraining.outlook import Outlook
from trainers.programs import options_of
from trainers.runs import passes
from trainers.runs import record as records
from trainers.runs.sources import check_sources, checkpoint_folder
from trainers.runs.state import RunState
from trainers.runs.workdir import PARAMETERS_FILE
from trainers.training import loop, optimizers, parameters
from trainers.training.config import Measurement, StageJob, StepCosts, TrainConfig, Watch
from trainers.training.hparams import HParams

# The validation set is the same for every stage and every run on the same tokens.
VALIDATION_SEED = 0


@dataclasses.dataclass(frozen=True)
class Run:
    """Facts that all stages of a run share."""

    config: PretrainConfig
    workdir: RunState
    texts: Sequence[pathlib.Path]  # folders of the prepared tokens: of the first text, the second
    vocabulary_size: int  # rows of the embedding
    make_engine: EngineFactory
    is_chief: bool = True  # whether this process is the one that writes and prints
    outlook: Outlook | None = None  # of all stages of the command

    def model_config(self, letter: str, dropout: float = 0.0) -> "kf.models.T5Config":
        """Configuration of the model under a letter of the size, before any fusion."""
        size = sizes.get_size(self.config.size)
        return model_config(size, letter, self.vocabulary_size, dropout)

    def stage_config(self, stage: Stage, dropout: float = 0.0) -> "kf.models.T5Config":
        """Configuration of a stage's model, groups and blocks of its fusion aside."""
        letters = sizes.get_size(self.config.size).models
        configs = {letter: self.model_config(letter, dropout).to_dict() for letter in letters}
        stages = {planned.name: planned for planned in self.config.stages}
        between = self.config.growths, self.config.resized
        fields = model_fields(stage, stages, configs, *between)
        return kf.models.T5Config.from_dict(fields)

    def lengths(self, stage: Stage) -> tuple[int, int]:
        """Tokens of a sequence that encoder and decoder of a stage see in training."""
        own_length = self.config.settings[stage.name].training_length
        task = self.config.task
        return task.lengths(task.raw_length(own_length or self.config.input_length))

    def batches(
        self,
        split: str,
        seed: int,
        first: int = 0,
        rows: slice | None = None,
        text: str | None = None,
        training_length: int | None = None,
    ) -> PretrainingBatches:
        """The batches of a split, from the one with index `first`; of each these rows, or all.

        Text and length are as settings of stages have them; None takes those of the run.
        """
        folders = [self.texts[index] for index in TEXTS[text or "first"]]
        lengths = (self.config.batch_size, training_length or self.config.input_length)
        how = {"seed": seed, "first": first, "objective": self.config.task, "rows": rows}
        return PretrainingBatches(folders, split, *lengths, **how)


def model_config(
    size: Size, letter: str, vocabulary_size: int, dropout: float = 0.0
) -> "kf.models.T5Config":
    """Configuration of the model that a size has under a letter, before any fusion."""
    return kf.models.T5Config.from_size(
        size.models[letter], vocabulary_size=vocabulary_size, dropout=dropout
    )


def identity(stage: Stage, settings: StageSettings, run: Run) -> dict:
    """Returns the identity of a stage, flat: two runs of the stage compare by it."""
    model = run.stage_config(stage, settings.dropout).to_dict()
    optional = {
        "source_steps": dict(stage.source_steps),
        "until": stage.until,
        "validations": {name: dict(of) for name, of in stage.validations.items()},
    }
    if takes_second(stage, settings):
        optional["second_text"] = manifest.read(run.texts[1])["config_sha256"][:12]
    optional = {name: value for name, value in optional.items() if value}
    return {
        "size": stage.size,
        "init": stage.init,
        "sources": list(stage.sources),
        "copies": stage.copies,
        **optional,
        **settings.identity(),
        **{f"model.{name}": value for name, value in model.items()},
    }


def run_stage(stage: Stage, settings: StageSettings, run: Run) -> dict:
    """Trains a stage of a plan unless it is finished, and returns its record.

    Raises:
        UserError: it was started with other settings, a source is not finished, or training
            came to a loss that is not finite.
        Stopped: a signal came; what was reached is saved.
    """
    stage_identity = identity(stage, settings, run)
    run.workdir.check_stage(stage.name, stage_identity)
    record = run.workdir.record(stage.name)
    if record is not None:
        return record
    check_sources(stage, run.workdir)
    engine = run.make_engine(StepOptions(settings.clip_norm, run.config.devices.microbatches))
    start = starts.start_of(stage, settings, run.workdir)
    with engine.scope():
        model, source_steps = make_model(stage, settings, run, engine)
        optimizer = optimizers.OPTIMIZERS[settings.optimizer](starts.learning_rate(settings, start))
    rows = engine.rows(run.config.batch_size)
    data = {"text": settings.text, "training_length": settings.training_length}
    batches = run.batches("train", settings.seed, start.first_batch, rows, **data)
    flops = step_flops(model, run.config.batch_size, batches.input_length, batches.target_length)
    facts = records.describe(stage, settings, model, flops)
    facts |= {"source_steps": source_steps, **start.to_dict()}
    facts["text_passes"] = _text_passes(batches, settings, settings.steps)
    facts["learning_rate"]["offset"] += start.schedule_step
    if engine.is_chief:
        details = facts | {"model": model.config.to_dict(), "plan": stage.to_dict()}
        run.workdir.start_stage(stage.name, stage_identity, details)
    job = StageJob(
        engine=engine,
        model=model,
        optimizer=optimizer,
        batches=batches,
        validation=run.batches("validation", VALIDATION_SEED, rows=rows),
        validations={
            name: run.batches("validation", VALIDATION_SEED, rows=rows, **of)
            for name, of in stage.validations.items()
        },
        costs=StepCosts(batches.tokens_per_batch, flops.total),
        settings={
            "model": model.config.to_dict(),
            "stage": stage_identity,
            "vocabulary": batches.manifest["vocabulary"]["sha256"],
        },
        initial=start.state,
        initial_is_partial=start.is_partial,
    )
    folder = run.workdir.stage_dir(stage.name)
    watch = Watch(
        monitors=_monitors(model, engine),
        measurements=_measurements(stage, settings, run, optimizer),
        progress=run.config.progress,
        hparams=_hparams(stage, settings, run.config),
        profile=run.config.profile,
        started=functools.partial(_show_start, stage, facts, model, engine, run.workdir),
        outlook=run.outlook and functools.partial(run.outlook.took, stage.name),
    )
    result = loop.train(job, _train_config(stage, settings, run), folder, watch)
    if engine.is_chief:
        facts["text_passes"] = _text_passes(batches, settings, result.steps)
        run.workdir.write_record(stage.name, facts | records.reached(result, engine))
    # Every host waits until the record is there: the next stage asks for it.
    engine.agree(False)
    return run.workdir.record(stage.name)


def make_model(
    stage: Stage, settings: StageSettings, run: Run, hosts: Engine | None = None
) -> tuple["kf.models.T5", dict[str, int]]:
    """Builds a stage's model: from random weights, or from its sources' checkpoints.

    No source's model is built: a fused weight is computed from the files when it is made, and on
    engines that place weights on a mesh, no more of it than each device holds.
    A stage that has checkpoints, or continues its source, is only built: the loop sets its
    weights. `hosts` is as for `trainers.checkpoints.latest`.

    Returns:
        The model, and for each source the step of the checkpoint that it comes from.
    """
    built = {"seed": settings.seed, "dtype": settings.dtype}
    folder = run.workdir.stage_dir(stage.name)
    if checkpoints.steps(folder / checkpoints.CHECKPOINT_FOLDER):
        started = run.workdir.stage(stage.name)
        config = kf.models.T5Config.from_dict(started["model"])
        return kf.models.T5(config, **built), started["source_steps"]
    if not stage.sources:
        return kf.models.T5(run.stage_config(stage, settings.dropout), **built), {}
    sources = {
        name: find_checkpoint(checkpoint_folder(stage, name, run.workdir), hosts)
        for name in stage.sources
    }
    steps = {name: checkpoint.step for name, checkpoint in sources.items()}
    if stage.is_fused:
        config, weights = fused_weights(
            [sources[name] for name in stage.parents], settings.dropout, **_how_fused(settings)
        )
        return kf.models.T5.from_weights(config, weights, **built), steps
    (checkpoint,) = sources.values()
    if stage.is_continued:
        return kf.models.T5(read_config(checkpoint, settings.dropout), **built), steps
    if stage.is_stacked:
        config, weights = stacked_weights(checkpoint, stage.copies, settings.dropout)
    else:
        config, weights = read_config(checkpoint, settings.dropout), checkpoint.weights
    return kf.models.T5.from_weights(config, weights, **built), steps


def _how_fused(settings: StageSettings) -> dict:
    """Arguments of a fusion; those that a stage's settings do not have stay the operator's."""
    names = ("norm", "noise", "noise_kind", "seed", "fill", "asymmetry")
    how = {name: getattr(settings, name) for name in names}
    how = {name: value for name, value in how.items() if value is not None}
    return how | {"grow": settings.growing}


def _monitors(model, engine: Engine) -> dict[str, Callable]:
    """Measures of a fused model that evaluations log: how much its copies differ."""
    if engine.saves_shards:
        return {}  # No host has all of a weight.
    blocks = model.config.blocks or {}
    alike = blocks and all(len(set(widths)) == 1 for widths in blocks.values())
    return {"symmetry": kf.symmetry} if alike else {}


def _text_passes(
    batches: PretrainingBatches, settings: StageSettings, steps: int
) -> dict[str, float]:
    """Passes of some steps of a stage through each of its texts, by the texts' names."""
    names = (TEXT_NAMES[index] for index in TEXTS[settings.text or "first"])
    return dict(zip(names, batches.passes(steps), strict=True))


def _show_start(stage: Stage, facts: dict, model, engine: Engine, workdir: RunState):
    file = workdir.stage_dir(stage.name) / PARAMETERS_FILE
    lines = [f"{stage.name}: {parameters.write(file, model, engine)} ({PARAMETERS_FILE})."]
    read = passes.passes(
        stage.name, lambda name: facts if name == stage.name else workdir.record(name)
    )
    if max(read.values()) > manifest.MANY_PASSES:
        bound = "up to " if stage.until else ""
        lines.append(
            f"It goes {bound}{passes.in_words(read, bool(stage.sources))}; a model then learns it "
            "by heart: take more text or fewer steps where ends are compared."
        )
    print(*lines, flush=True)


def _hparams(stage: Stage, settings: StageSettings, config: PretrainConfig) -> HParams:
    """Identity of a stage and of its run, as TensorBoard's HPARAMS page lists it."""
    of_stage = {"stage": stage.base, "init": stage.init, "model": stage.size}
    of_run = config.identity()
    types = {name: type(value) for name, value in (of_stage | of_run).items()}
    types |= {name: spec.type for name, spec in options_of(StageSettings).items()}
    return HParams(types, of_stage | of_run | dataclasses.asdict(settings))


def _measurements(
    stage: Stage, settings: StageSettings, run: Run, optimizer
) -> Sequence[Measurement]:
    if not (stage.is_fused and run.config.theory_every):
        return ()
    batch = run.batches("validation", VALIDATION_SEED).batch(0)
    every, dtype = run.config.theory_every, settings.dtype
    return [theory_monitor.measurement(stage, run.workdir, batch, optimizer, every, dtype)]


def _train_config(stage: Stage, settings: StageSettings, run: Run) -> TrainConfig:
    # Steps that have to stay are multiples of their greatest common divisor.
    every = math.gcd(*run.config.fused_at.get(stage.name, ()), run.config.keep_every or 0)
    return TrainConfig(
        steps=settings.steps,
        eval_every=settings.eval_every,
        eval_batches=run.config.eval_batches,
        checkpoint_every=settings.checkpoint_every,
        checkpoint_minutes=run.config.checkpoint_minutes,
        steps_per_call=settings.steps_per_call,
        keep=Keep(every=every or None),
        goal=run.workdir.record(stage.until)["accuracy"] if stage.until else None,
        on_nan=run.config.on_nan,
    )
