"""Configuration of a pretraining run, checked as a whole before anything is read or written."""

import dataclasses
import functools
from collections.abc import Mapping

from trainers.data.config import CORPORA
from trainers.data.objectives import Objective
from trainers.engines.devices import Devices
from trainers.errors import UserError
from trainers.plans import (
    NAMES,
    Basis,
    Plan,
    gains,
    get_plan,
    merge,
    read_plan,
    settings,
    sizes,
    stages_of,
    tuning,
)
from trainers.plans.costs import parameters, step_cost
from trainers.plans.generated import steps_to_keep
from trainers.plans.graph import Stage, fused_steps, repeated
from trainers.plans.options import PlanOptions
from trainers.plans.settings import StageSettings
from trainers.pretraining import checks
from trainers.programs import check_options, option, options
from trainers.runs import screening
from trainers.runs.state import RunState
from trainers.storage import Kind
from trainers.training.config import ON_NAN
from trainers.training.profile import ProfileWindow

# Fields that are those of the size where they are None.
_SIZES = ("batch_size", "input_length", "eval_batches")
# Other values of these settings are not those that a sweep was made for.
_SWEPT = {
    *("warmup_steps", "learning_rate_offset", "learning_rate_scale", "decay_steps"),
    *("optimizer", "dropout"),
}


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Configuration of a pretraining run; checks itself.

    Batch and lengths that are None become those of the size.

    Attributes:
        stage_flags: setting to what `settings.parse` reads in its flag.
        command: the command that was given, for the report.
        tuned: what the plan `tune` has found in the run's folder; see `trainers.runs.sweep.read`.
    """

    plan: tuple[str, ...] = option((), f"Plans, comma-separated: {', '.join(NAMES)}.", group="Run")
    size: str = option("tiny", "What S, M, L are.", choices=sizes.SIZES)
    workdir: str = option("", "Folder of the run.", required="FOLDER", place=Kind.RUN)
    stage: str | None = option(None, "Train this stage alone; needs its sources finished.")
    progress: bool = option(True, "Show progress bars.")
    plan_options: PlanOptions = options(PlanOptions)
    corpus: str = option("docs", "Text to train on.", choices=CORPORA, group="Text")
    corpus_path: str | None = option(
        None, "Files of the corpus: a path or quoted pattern.", place=Kind.FILES
    )
    vocabulary: str | None = option(
        None,
        "SentencePiece model; without it one is trained on the corpus.",
        place=Kind.FILE,
    )
    data_dir: str | None = option(
        None,
        "Tokens of trainers.prepare; without them they are prepared in the workdir.",
        place=Kind.TOKENS,
    )
    second_corpus_path: str | None = option(
        None,
        "Files of a second text, for stages with --text=second or both; it takes the vocabulary "
        "of the first.",
        place=Kind.FILES,
    )
    second_data_dir: str | None = option(
        None, "Its tokens, prepared with the vocabulary of the first.", place=Kind.TOKENS
    )
    batch_size: int | None = option(
        None, "Sequences per batch; without it the size's.", at_least=1, group="Training"
    )
    input_length: int | None = option(
        None, "Tokens of a sequence that the encoder sees; without it the size's.", at_least=3
    )
    eval_batches: int | None = option(
        None, "Batches of the fixed validation set; without it the size's.", at_least=1
    )
    task: Objective = options(Objective)
    keep_every: int | None = option(
        None, "Keep checkpoints at multiples of it, besides the newest and the best.", at_least=1
    )
    checkpoint_minutes: float | None = option(
        None, "Minutes between checkpoints, besides those by the step.", above=0
    )
    max_seconds: float | None = option(
        None, "Save and end with code 75 after so many seconds, in time for a limit.", above=0
    )
    profile: ProfileWindow | None = option(
        None,
        "STEP:COUNT: profile so many steps after that step of each stage, for TensorBoard.",
        parse=ProfileWindow.parse,
    )
    theory_every: int | None = option(
        None,
        "Log the bracket and the modified loss of section 4 every N steps of fused stages.",
        at_least=1,
    )
    on_nan: str = option(
        "stop", "At a loss that is not finite: stop, or skip the batch.", choices=ON_NAN
    )
    tuning: str | None = option(
        None, "The sweep that chose the learning rates, in words; for the report."
    )
    stage_flags: Mapping[str, Mapping[str, object]] = options(
        StageSettings, parse=settings.parse, form=settings.FORM
    )
    devices: Devices = options(Devices)
    command: str = ""
    tuned: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        size = sizes.get_size(self.size)
        check_options(self)
        for name in _SIZES:
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(size, name))
        if self.task.objective is None:
            task = dataclasses.replace(self.task, objective=size.objective)
            object.__setattr__(self, "task", task)
        checks.check_files(self)
        names = [stage.name for stage in self.stages]
        if self.stage is not None and self.stage not in names:
            raise UserError(
                f"--stage to be one of the plan's stages ({', '.join(names)})",
                f"stage={self.stage!r}",
                "Choose one of them, or add its --plan",
            )
        checks.check_plans(self)
        others = [stage for plan in self.plans for stage in plan.made_from]
        settings.check_names(self.stage_flags, (*self.stages, *others), size)
        checks.check_stages(self)
        if self.profile:
            steps = {stage.name: self.settings[stage.name].steps for stage in self.wanted}
            self.profile.check(steps, self.devices.parallel_stages)

    @functools.cached_property
    def plans(self) -> tuple[Plan, ...]:
        """The plans that were asked for: known ones, then that of the user's file."""
        file = self.plan_options.plan_file
        if not self.plan and not file:
            stages_of(())
        from_file = (read_plan(file),) if file else ()
        return (*(get_plan(name, self._basis) for name in self.plan), *from_file)

    @property
    def _basis(self) -> Basis:
        size = sizes.get_size(self.size)
        text = {"data_dir": self.data_dir, "vocabulary": self.vocabulary}
        cost = functools.partial(
            step_cost,
            size=size,
            options=self.plan_options,
            batch_size=self.batch_size,
            input_length=self.input_length,
            objective=self.task,
            **text,
        )
        return Basis(
            size,
            cost,
            self.stage_flags,
            self.plan_options,
            self.tuned,
            functools.partial(parameters, size=size, **text),
            self.input_length,
            self._finalists,
        )

    @functools.cached_property
    def _finalists(self) -> tuple[str, ...]:
        if self.plan_options.gains_arms != (gains.BEST,):
            return ()
        return screening.finalists(RunState(self.workdir))

    @functools.cached_property
    def fused_at(self) -> dict[str, list[int]]:
        """Stage to the steps whose checkpoints stay: others are fused from them, now or later."""
        steps = fused_steps(self.stages)
        later = steps_to_keep(self._basis)
        for plan in self.plans:
            for name, kept in plan.keep.items():
                later[name] = sorted({*later.get(name, ()), *filter(None, kept)})
        for stage in self.stages:
            if stage.base in later:
                steps[stage.name] = sorted({*steps.get(stage.name, ()), *later[stage.base]})
        return steps

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages of the plans, sources first, repeat after repeat.

        A sweep is not repeated, and the plan `gains` has the seeds that it wants.
        """
        stages = merge(self.plans)
        once = {
            stage.name
            for plan in self.plans
            for stage in plan.stages
            if plan.name == gains.NAME or (plan.name == tuning.NAME and stage.name in plan.points)
        }
        again = [stage for stage in stages if stage.name not in once]
        return (*stages, *repeated(again, self.plan_options.repeats)[len(again) :])

    @property
    def wanted(self) -> tuple[Stage, ...]:
        """The stages to train."""
        return tuple(s for s in self.stages if self.stage in (None, s.name))

    @functools.cached_property
    def settings(self) -> dict[str, StageSettings]:
        """Settings of all stages; a continued one has those of its source, its own periods."""
        size = sizes.get_size(self.size)
        resolved = {}
        for stage in self.stages:
            stage_settings = settings.resolve(stage, size, self.stage_flags, self.tuned)
            if stage.is_continued:
                periods = {
                    name: getattr(stage_settings, name) for name in StageSettings.OF_CONTINUED
                }
                stage_settings = dataclasses.replace(resolved[stage.sources[0]], **periods)
            resolved[stage.name] = stage_settings
        return resolved

    @functools.cached_property
    def growths(self) -> dict[str, tuple[str, ...]]:
        """Stage to the axes along which it grows, where these are not all."""
        fused = [stage.name for stage in self.stages if stage.is_fused]
        grown = {name: self.settings[name] for name in fused}
        return {name: s.growing for name, s in grown.items() if s.grow not in (None, "all")}

    @property
    def resized(self) -> dict[str, Mapping[str, float]]:
        """Stage to what fields of its size are multiplied by, where any are."""
        scratch = [stage.name for stage in self.stages if not stage.sources]
        times = {name: self.settings[name].times for name in scratch}
        return {name: factors for name, factors in times.items() if factors}

    @property
    def tuned_by(self) -> str:
        """The sweep that chose the learning rates, in words; empty where none did."""
        if self.tuning is not None:
            return self.tuning
        if any(plan.name == gains.NAME for plan in self.plans):
            return "plan gains chose those of each arm at each budget, on the first seed"
        if self.tuned:
            return self._swept()
        return ""

    def _swept(self) -> str:
        """Work of the plan `tune`, in words; empty where flags overrule it."""
        if not _SWEPT.isdisjoint(self.stage_flags):
            return ""
        arms = ", ".join(self.tuned["warmup_steps"])
        return (
            "successive halving on this text, seed 0 (plan tune), chose warm-up and scale of "
            f"{arms} and of stages like them; other stages have defaults of the size, "
            "that no sweep chose"
        )

    def identity(self) -> dict:
        """Returns the identity of the run, tokens aside; plans may be added to a run."""
        sizes = {name: getattr(self, name) for name in ("size", *_SIZES)}
        return sizes | dataclasses.asdict(self.task)
