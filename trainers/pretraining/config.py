"""What a pretraining run is asked for, checked as a whole before anything is read or written."""

import dataclasses
import functools
import os
from collections.abc import Mapping

from trainers.engines.devices import Devices
from trainers.errors import UserError
from trainers.plans import (
    Basis,
    Plan,
    get_plan,
    merge,
    read_plan,
    settings,
    sizes,
    stages_of,
    tuning,
)
from trainers.plans.costs import step_cost
from trainers.plans.generated import steps_to_keep
from trainers.plans.graph import Stage, fused_steps, repeated
from trainers.plans.options import READERS, PlanOptions
from trainers.plans.settings import StageSettings
from trainers.training.config import ON_NAN

CORPORA = ("docs", "text", "c4")
# Other values of these settings are not those that a size's sweep was made for.
_SWEPT = (
    "steps",
    "warmup_steps",
    "learning_rate_offset",
    "learning_rate_scale",
    "optimizer",
    "dropout",
)


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """What a run was asked for; checks itself.

    Args:
        plan: names of plans.
        size: "tiny", "table8" or "table9".
        workdir: the run's folder.
        plan_options: a plan of the user's own, repeats, and what plans are made from.
        stage: name of the only stage to train, or None for all.
        corpus: "docs", "text" or "c4".
        corpus_path: files of the corpus (a pattern), or where TFDS keeps it.
        vocabulary: a SentencePiece model to use; None trains one on the corpus.
        data_dir: folder of tokens that are prepared already; None prepares them in the workdir.
        batch_size: sequences a batch; None takes the size's.
        input_length: tokens that the encoder sees; None takes the size's.
        eval_batches: batches of the validation set; None takes the size's.
        devices: what it is trained on.
        stage_flags: setting to what `settings.parse` found in its flag.
        tuning: which sweep chose the learning rates, for the report; None takes what the size
            says, unless flags change what that sweep was made for.
        keep_every: checkpoints whose step is a multiple of it stay; None keeps the newest two and
            the best.
        theory_every: steps between measurements of the theory in fused stages; None for none.
        on_nan: "stop" or "skip", at a loss that is not finite.
        progress: whether to show progress bars.
        command: the command that was given, for the report.
        tuned: what the plan `tune` has found in the run's folder; see `trainers.runs.sweep.read`.

    Raises:
        UserError: a value is unknown or does not go with the others.
    """

    plan: tuple[str, ...]
    size: str
    workdir: str
    plan_options: PlanOptions = PlanOptions()
    stage: str | None = None
    corpus: str = "docs"
    corpus_path: str | None = None
    vocabulary: str | None = None
    data_dir: str | None = None
    batch_size: int | None = None
    input_length: int | None = None
    eval_batches: int | None = None
    devices: Devices = Devices()
    stage_flags: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    tuning: str | None = None
    keep_every: int | None = None
    theory_every: int | None = None
    on_nan: str = "stop"
    progress: bool = True
    command: str = ""
    tuned: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        size = sizes.get_size(self.size)
        for name in ("batch_size", "input_length", "eval_batches"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(size, name))
            elif getattr(self, name) < 1:
                raise UserError(
                    f"Expected --{name} to be at least 1. Received: {name}={getattr(self, name)}. "
                    "Give a larger number, or leave it out for the size's own."
                )
        if not self.workdir:
            raise UserError(
                "Expected --workdir to name the folder of the run. Received: workdir=''. "
                "Add --workdir=FOLDER."
            )
        _check_choice("corpus", self.corpus, CORPORA)
        _check_choice("on_nan", self.on_nan, ON_NAN)
        for name in ("keep_every", "theory_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(
                    f"Expected --{name} to be at least 1. Received: {name}={value}. "
                    "Give a larger number, or leave it out."
                )
        _check_files(self)
        names = [stage.name for stage in self.stages]
        if self.stage is not None and self.stage not in names:
            raise UserError(
                f"Expected --stage to be one of the plan's stages ({', '.join(names)}). "
                f"Received: stage={self.stage!r}. Choose one of them, or add its --plan."
            )
        _check_options(self)
        settings.check_names(self.stage_flags, self.stages, size)
        for stage in self.stages:
            settings.resolve(stage, size, self.stage_flags)
        _check_continued(self)
        _check_fused_steps(self)

    @functools.cached_property
    def plans(self) -> tuple[Plan, ...]:
        """The plans that were asked for: known ones, then that of the user's file."""
        file = self.plan_options.plan_file
        if not self.plan and not file:
            stages_of(())
        own = (read_plan(file),) if file else ()
        return (*(get_plan(name, self._basis) for name in self.plan), *own)

    @property
    def _basis(self) -> Basis:
        size = sizes.get_size(self.size)
        cost = functools.partial(
            step_cost,
            size=size,
            options=self.plan_options,
            batch_size=self.batch_size,
            input_length=self.input_length,
            data_dir=self.data_dir,
            vocabulary=self.vocabulary,
        )
        return Basis(size, cost, self.stage_flags, self.plan_options, self.tuned)

    @property
    def fused_at(self) -> dict[str, list[int]]:
        """Stage to the steps whose checkpoints stay: others are fused from them, now or later."""
        found = fused_steps(self.stages)
        later = steps_to_keep(self._basis)
        for plan in self.plans:
            for name, steps in plan.keep.items():
                later[name] = sorted({*later.get(name, ()), *(step for step in steps if step)})
        for stage in self.stages:
            if stage.base in later:
                found[stage.name] = sorted({*found.get(stage.name, ()), *later[stage.base]})
        return found

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages of the plans, sources first, repeat after repeat; a sweep is not repeated."""
        once = [plan for plan in self.plans if plan.name == tuning.NAME]
        sweep = {s.name for plan in once for s in plan.stages if s.name in plan.points}
        stages = repeated(merge(self.plans), self.plan_options.repeats)
        return tuple(s for s in stages if s.repeat == 1 or s.base not in sweep)

    @property
    def wanted(self) -> tuple[Stage, ...]:
        """The stages to train."""
        return tuple(s for s in self.stages if self.stage in (None, s.name))

    def settings_of(self, stage: Stage) -> StageSettings:
        """Settings of a stage; one that goes on has those of its source, but for its periods."""
        size = sizes.get_size(self.size)
        found = settings.resolve(stage, size, self.stage_flags, self.tuned)
        if not stage.is_continued:
            return found
        source = next(other for other in self.stages if other.name == stage.sources[0])
        own = {name: getattr(found, name) for name in StageSettings.OF_CONTINUED}
        return dataclasses.replace(self.settings_of(source), **own)

    @property
    def tuned_by(self) -> str:
        """Which sweep chose the learning rates; empty where none did."""
        if self.tuning is not None:
            return self.tuning
        if self.tuned:
            return self._swept()
        size = sizes.get_size(self.size)
        changed = [name for name in _SWEPT if name in self.stage_flags]
        changed += [
            n for n in ("batch_size", "input_length") if getattr(self, n) != getattr(size, n)
        ]
        # Sweeps were made for the arms of Table 1; other plans are other experiments.
        swept = {stage.name for stage in stages_of(["table1"])}
        changed += [stage.name for stage in self.stages if stage.base not in swept]
        return "" if changed else size.tuning

    def _swept(self) -> str:
        """What the plan `tune` did, in words; empty where flags overrule it."""
        if not {*_SWEPT}.isdisjoint({*self.stage_flags} - {"steps"}):
            return ""
        found = self.tuned["warmup_steps"]
        return (
            "successive halving on this text, seed 0 (plan tune), chose warm-up and scale of "
            f"{', '.join(found)} and of stages like them; other stages have defaults of the size, "
            "that no sweep chose"
        )

    def identity(self) -> dict:
        """What makes the run what it is, apart from its tokens; plans may be added to a run."""
        return {
            "size": self.size,
            "batch_size": self.batch_size,
            "input_length": self.input_length,
            "eval_batches": self.eval_batches,
        }


def _check_options(config: PretrainConfig):
    """Refuses lists for plans that are not asked for."""
    for name, plan in READERS.items():
        value = getattr(config.plan_options, name)
        if value is not None and plan not in config.plan:
            raise UserError(
                f"Expected --{name} with --plan={plan}. Received: {name}={value}, "
                f"plan={','.join(config.plan)!r}. Add the plan, or leave out --{name}."
            )


def _check_continued(config: PretrainConfig):
    """Refuses settings of stages that have those of their source."""
    for stage in config.stages:
        if not stage.is_continued:
            continue
        named = [
            name
            for name, values in config.stage_flags.items()
            if not {stage.name, stage.base}.isdisjoint(values)
        ]
        for name in (*named, *stage.settings):
            if name not in StageSettings.OF_CONTINUED:
                raise UserError(
                    f"Expected only {', '.join(StageSettings.OF_CONTINUED)} of its own for stage "
                    f"{stage.name!r}, which goes on as {stage.sources[0]!r} ended. Received: "
                    f"{name}. Set it for {stage.sources[0]!r}."
                )


def _check_fused_steps(config: PretrainConfig):
    """Finds checkpoints that stages are to be fused from but that are never written."""
    fused_at = fused_steps(config.stages)
    for stage in config.stages:
        found = config.settings_of(stage)
        for step in fused_at.get(stage.name, ()):
            if step > found.steps or (step % found.checkpoint_every and step < found.steps):
                raise UserError(
                    f"Expected fusions from {stage.name!r} at multiples of its checkpoint_every="
                    f"{found.checkpoint_every} up to its {found.steps} steps. Received: step={step}"
                    f". Change the step, or give --checkpoint_every={stage.name}:STEPS."
                )


def _check_choice(name: str, value: str, known: tuple[str, ...]):
    if value not in known:
        raise UserError(
            f"Expected --{name} to be one of {', '.join(known)}. "
            f"Received: {name}={value!r}. Choose one of these."
        )


def _check_files(config: PretrainConfig):
    if config.corpus == "text" and not config.corpus_path and not config.data_dir:
        raise UserError(
            "Expected --corpus_path=FILES with --corpus=text. Received: corpus_path=None. "
            "Name a file or a quoted pattern such as 'texts/*.txt'."
        )
    if config.vocabulary and not os.path.isfile(config.vocabulary):
        raise UserError(
            "Expected --vocabulary to be a SentencePiece model. "
            f"Received: vocabulary={config.vocabulary!r}, which is no file. Check the path."
        )
    if config.data_dir and not os.path.isdir(config.data_dir):
        raise UserError(
            "Expected --data_dir to be a folder that trainers.prepare wrote. "
            f"Received: data_dir={config.data_dir!r}, which is no folder. Check the path."
        )
