"""Reads a work folder: its settings and what its stages recorded.

A finished stage has `record.json`. Of one that still runs, `stage.json` says what it is and the
evaluation lines of `metrics.jsonl` how far it has come. Nothing here interprets or compares.
"""

import dataclasses
from pathlib import Path

from trainers.errors import UserError
from trainers.files import parse_json, read_json
from trainers.plans.graph import SIZE_LETTERS
from trainers.runs import kinds
from trainers.runs.workdir import METRICS_FILE, RECORD_FILE, RUN_FILE, STAGE_FILE

FORMAT = 1
"""Version of the form of `record.json` and `results.json` that this code reads and writes."""

FINISHED = "finished"
RUNNING = "running"

CONTINUED = "continued"
"""The start of a stage that takes over the whole state of another one."""

STACKED = "stacked"
"""The start of a stage whose layers are those of another one, several times."""

RESTARTED = "restarted"
"""The start of a stage that takes over the model of another one, and nothing else."""


_COSTS = ("tokens", "flops", "device_seconds")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation batches."""

    step: float  # optimizer steps of this stage so far
    tokens: float  # target and input tokens of this stage so far
    flops: float  # floating-point operations of this stage so far
    device_seconds: float  # seconds times devices of this stage so far
    loss_per_token: float | None  # nats; None where it was not a finite number
    accuracy: float | None  # per cent; None where it was not a finite number
    loss: float | None = None  # nats, summed over a batch; None where it was not recorded
    # Loss per token and accuracy on further validation sets: name to {field: number}.
    validations: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StageHistory:
    """One stage: what it is and what it reached; its costs are without those of its sources.

    The others are the fields of `record.json`; what a running stage has not reached is None.
    """

    name: str
    size: str
    init: str
    sources: tuple[str, ...]
    steps: int
    parameters: int
    tokens: float | None
    flops: float | None
    device_seconds: float | None
    loss: float | None
    loss_per_token: float | None
    accuracy: float | None
    curve: tuple[Evaluation, ...]
    flops_method: str = ""
    learning_rate: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    # The step of each source's checkpoint that it was fused from.
    source_steps: dict = dataclasses.field(default_factory=dict)
    repeat: int = 1  # number of the repeat that it belongs to, from 1
    repeat_of: str = ""  # its name in the first repeat; empty if that is `name`
    settings: dict = dataclasses.field(default_factory=dict)
    # How many times its steps, all that it is to train, go through each of its texts, by their
    # names.
    text_passes: dict = dataclasses.field(default_factory=dict)
    # `FINISHED` or `RUNNING`; a running stage's numbers are those of its last evaluation.
    status: str = FINISHED
    planned_steps: int = 0  # the steps that it is to train in all

    @property
    def finished(self):
        """True once the stage has written its record."""
        return self.status == FINISHED

    @property
    def fused(self):
        """True if its sources' weights lie side by side in it."""
        return bool(self.sources) and self.init not in (CONTINUED, STACKED, RESTARTED)

    @property
    def base(self):
        """Name that the stage has in the first repeat."""
        return self.repeat_of or self.name

    def to_dict(self):
        """The stage as an element of `results.json`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class RunHistory:
    """A work folder: `stages` by name, each after its sources, and the content of run.json, flat.

    Of `settings` reports read, where they are there: corpus, corpus_path, tuning (a text: which
    sweep chose the learning rates), command, versions (name to number), experiments.
    """

    workdir: Path
    stages: dict[str, StageHistory]
    settings: dict

    def repeats_of(self, name):
        """All repeats of a stage, the first one first; each has the next seed."""
        stages = [stage for stage in self.stages.values() if stage.base == name]
        return sorted(stages, key=lambda stage: stage.repeat)

    def experiment(self, plan):
        """The "points" and "facts" of a plan in run.json; empty where it was not asked for."""
        return (self.settings.get("experiments") or {}).get(plan) or {}

    def varied(self, plans):
        """Names, in the first repeat, of the stages that only serve plans which vary another one.

        A stage that is a point of any other plan, or its last stage, is not among them.

        Args:
            plans: names of the plans that vary something.
        """
        experiments = self.settings.get("experiments") or {}
        points = {name: set(plan.get("points") or ()) for name, plan in experiments.items()}
        of_others = {name for plan in points.keys() - {*plans} for name in points[plan]}
        of_others |= {experiments[plan].get("final") for plan in points.keys() - {*plans}}
        return set().union(*(points.get(plan, ()) for plan in plans)) - of_others

    def from_its_start(self, stage, inits=(CONTINUED,)):
        """Returns a stage that trains another one's model further as if both were one.

        Others are returned as they are, as is one whose source has no cost yet.

        Args:
            stage: the stage.
            inits: the starts of stages that are one with their source.
        """
        source = self.stages.get(stage.sources[0]) if stage.init in inits else None
        first = source and self.from_its_start(source, inits)
        if first is None or None in (getattr(first, name) for name in _COSTS):
            return stage
        # What the source did after the step from which it was taken is left out.
        left = source.steps - stage.source_steps.get(source.name, source.steps)
        share = left / source.steps if left else 0.0
        before = {name: getattr(first, name) - share * getattr(source, name) for name in _COSTS}
        before["step"] = first.steps - left
        curve = [point for point in first.curve if point.step <= before["step"]]
        for point in stage.curve:
            sums = {name: getattr(point, name) + value for name, value in before.items()}
            if not curve or sums["step"] > curve[-1].step:
                curve.append(dataclasses.replace(point, **sums))
        own = {name: getattr(stage, name) for name in _COSTS}
        costs = {n: None if cost is None else cost + before[n] for n, cost in own.items()}
        steps = {"steps": stage.steps, "planned_steps": stage.planned_steps}
        steps = {name: before["step"] + count for name, count in steps.items()}
        rate = stage.learning_rate
        return dataclasses.replace(first, curve=tuple(curve), learning_rate=rate, **steps, **costs)

    @property
    def repeat_count(self):
        """Number of repeats of the most repeated stage."""
        return max((stage.repeat for stage in self.stages.values()), default=1)


def read_run(workdir):
    """Reads every stage of a work folder.

    Raises:
        UserError: no such folder, no stage in it, or a file in it that cannot be read.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        expected = "the folder of a run (trainers.pretrain writes one)"
        raise UserError(expected, f"workdir={str(workdir)!r}, which is no folder", "Check the path")
    stages = {}
    for folder in _stage_folders(workdir):
        is_finished = (folder / RECORD_FILE).exists()
        stages[folder.name] = _finished_stage(folder) if is_finished else _running_stage(folder)
    if not stages:
        raise UserError(
            f"a folder with a stage (STAGE/{RECORD_FILE} or STAGE/{STAGE_FILE})",
            f"workdir={str(workdir)!r}, which has none",
            "Run trainers.pretrain with this --workdir first",
        )
    return RunHistory(workdir, _sources_first(stages, workdir), _settings(workdir))


def is_empty(workdir):
    """Returns whether a folder has no stage yet, which is why `read_run` would refuse it."""
    workdir = Path(workdir)
    return workdir.is_dir() and not _stage_folders(workdir)


def _stage_folders(workdir):
    files = (RECORD_FILE, STAGE_FILE)
    folders = sorted(workdir.iterdir())
    return [folder for folder in folders if any((folder / name).exists() for name in files)]


_TOTALS = dict.fromkeys(
    ("tokens", "flops", "device_seconds", "loss", "loss_per_token", "accuracy"), kinds.NUMBER
)
# What stage.json and record.json say of a stage.
_STAGE = {
    **dict.fromkeys(("name", "size", "init", "repeat_of", "flops_method"), kinds.TEXT),
    **dict.fromkeys(("steps", "parameters", "seed", "repeat"), kinds.COUNT),
    **{"learning_rate": kinds.SCHEDULE, "settings": kinds.OBJECT, "text_passes": kinds.COUNTS},
    **{"sources": kinds.NAMES, "source_steps": kinds.STEPS},
}
_EVALUATION = dict.fromkeys(("step", "tokens", "flops", "device_seconds"), kinds.FINITE)
_EVALUATION |= dict.fromkeys(("loss_per_token", "accuracy"), kinds.NUMBER)
# Of run.json, what reports read.
_RUN = {
    **dict.fromkeys(("corpus", "corpus_path", "corpus_note", "objective"), kinds.TEXT_OR_NULL),
    **dict.fromkeys(("tuning", "command"), kinds.TEXT_OR_NULL),
    **dict.fromkeys(("corpus_unknown", "noise_density", "mean_span_length"), kinds.NUMBER),
    **{"versions": kinds.OBJECT, "experiments": kinds.EXPERIMENTS, "second_text": kinds.OBJECT},
}


def _settings(workdir):
    """The content of run.json, flat; empty without one."""
    path = workdir / RUN_FILE
    content = _read_object(path) if path.exists() else {}
    do = "Restore the file, or start in a new folder"
    kinds.check(content, {"settings": kinds.OBJECT}, path, do)
    settings = content.pop("settings", {}) | content
    kinds.check(settings, _RUN, path, do)
    return settings


def _finished_stage(folder):
    path = folder / RECORD_FILE
    record = _read_object(path)
    fields = kinds.read(record, _STAGE | _TOTALS | {"curve": kinds.EVALUATIONS}, path)
    if fields["name"] != folder.name:
        raise UserError(
            f"{path} to record the stage of its folder, {folder.name!r}",
            f"name={fields['name']!r}",
            "Rename the folder back, or remove it",
        )
    curve = enumerate(fields.pop("curve"))
    return StageHistory(
        **fields,
        curve=tuple(_evaluation(entry, f"{path}, curve[{i}]") for i, entry in curve),
        planned_steps=fields["steps"],
    )


def _running_stage(folder):
    path = folder / STAGE_FILE
    fields = kinds.read(_read_object(path) | {"name": folder.name}, _STAGE, path)
    curve = _evaluations(folder / METRICS_FILE)
    last = curve[-1] if curve else None
    fields |= {name: getattr(last, name, None) for name in _TOTALS}
    fields |= {"planned_steps": fields["steps"], "steps": last.step if last else 0}
    return StageHistory(**fields, curve=curve, status=RUNNING)


def _evaluations(path):
    """The evaluation lines of a metrics file; a stage that was resumed wrote some steps twice."""
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    curve = []
    # What follows the last line break is empty, or a line that is being written right now.
    for number, line in enumerate(lines[:-1], start=1):
        where = f"{path}, line {number}"
        try:
            entry = parse_json(line.encode(), constant=float)
        except ValueError:
            entry = line
        if not isinstance(entry, dict):
            raise UserError(
                f"a JSON object in {where}",
                repr(line[:40]),
                "Remove the damaged file and run its stage again",
            )
        if entry.get("kind") == "eval":
            point = _evaluation(entry, where)
            while curve and curve[-1].step >= point.step:
                curve.pop()
            curve.append(point)
    return tuple(curve)


def _evaluation(entry, where):
    if not isinstance(entry, dict):
        raise UserError(
            f"an evaluation with the fields {', '.join(_EVALUATION)} in {where}",
            repr(entry),
            "Run the stage again in an empty folder",
        )
    entry = {"loss": None, "validations": {}} | entry
    optional = {"loss": kinds.NUMBER, "validations": kinds.VALIDATIONS}
    return Evaluation(**kinds.read(entry, _EVALUATION | optional, where))


def _read_object(path):
    content = read_json(path)
    version = content.get("format", FORMAT)
    if version != FORMAT:
        raise UserError(
            f"format {FORMAT} in {path}",
            f"format={version!r}",
            "Make the report with the version of the project that wrote it",
        )
    return content


def _sources_first(stages, workdir):
    """Orders stages by their depth in the graph, then size and name; refuses a cycle."""
    depths = {}

    def depth(name, below):
        if name in below:
            raise UserError(
                "stages that are fused from earlier ones",
                f"sources={' <- '.join((*below, name))}, a cycle, in {workdir}",
                "Remove the stage that does not belong to this run",
            )
        if name not in depths:
            sources = stages[name].sources if name in stages else ()
            depths[name] = 1 + max((depth(source, (*below, name)) for source in sources), default=0)
        return depths[name]

    def place(stage):
        return depth(stage.name, ()), "".join(SIZE_LETTERS).find(stage.size), stage.name

    return {stage.name: stage for stage in sorted(stages.values(), key=place)}
