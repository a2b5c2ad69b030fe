"""Reads a work folder: its settings and what its stages recorded.

A finished stage has `record.json`. Of one that still runs, `stage.json` says what it is and the
evaluation lines of `metrics.jsonl` how far it has come. Nothing here interprets or compares.
"""

import dataclasses
import json
import math
from pathlib import Path

from trainers.errors import UserError

FORMAT = 1
"""Version of the form of `record.json` and `results.json` that this code reads and writes."""

FINISHED = "finished"
RUNNING = "running"

CONTINUED = "continued"
"""How a stage starts that takes over the whole state of another one."""

_STAGE_FIELDS = ("size", "init", "sources")
_RECORD_FIELDS = (
    "name",
    *_STAGE_FIELDS,
    "steps",
    "parameters",
    "tokens",
    "flops",
    "device_seconds",
    "loss",
    "loss_per_token",
    "accuracy",
    "curve",
)
_POINT_FIELDS = ("step", "tokens", "flops", "device_seconds", "loss_per_token", "accuracy")
_TOTALS = ("tokens", "flops", "device_seconds", "loss", "loss_per_token", "accuracy")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation batches.

    Args:
        step: optimizer steps of this stage so far.
        tokens: target and input tokens of this stage so far.
        flops: floating-point operations of this stage so far.
        device_seconds: seconds times devices of this stage so far.
        loss_per_token: nats; None where it was not a finite number.
        accuracy: per cent; None where it was not a finite number.
        loss: nats, summed over a batch; None where it was not recorded.
    """

    step: float
    tokens: float
    flops: float
    device_seconds: float
    loss_per_token: float | None
    accuracy: float | None
    loss: float | None = None


@dataclasses.dataclass(frozen=True)
class StageHistory:
    """What one stage is and what it has come to; its costs are its own, without its sources'.

    Args:
        status: `FINISHED` or `RUNNING`; a running stage's figures are those of its last evaluation.
        planned_steps: the steps that it is to train in all, where they are known.
        source_steps: the step of each source's checkpoint that it was fused from.
        repeat, repeat_of: which repeat of which stage it is, from 1.
    The others are the fields of `record.json`; what a running stage has not recorded is None.
    """

    name: str
    size: str
    init: str
    sources: tuple[str, ...]
    steps: int
    parameters: int | None
    tokens: float | None
    flops: float | None
    device_seconds: float | None
    loss: float | None
    loss_per_token: float | None
    accuracy: float | None
    curve: tuple[Evaluation, ...]
    flops_method: str | None = None
    learning_rate: dict | None = None
    seed: int | None = None
    status: str = FINISHED
    planned_steps: int | None = None
    source_steps: dict = dataclasses.field(default_factory=dict)
    repeat: int = 1
    repeat_of: str = ""

    @property
    def finished(self):
        """Whether the stage has written its record."""
        return self.status == FINISHED

    @property
    def base(self):
        """Name that the stage has in the first repeat."""
        return self.repeat_of or self.name

    def to_dict(self):
        """The stage as an element of `results.json`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class RunHistory:
    """A work folder: `stages` by name, each after its sources, and what run.json says, flat.

    Of `settings` the report reads, each if it is there: corpus and corpus_path, tuning (a text:
    which sweep chose the learning rates), command, versions (name to number).
    """

    workdir: Path
    stages: dict[str, StageHistory]
    settings: dict

    def repeats_of(self, name):
        """All repeats of a stage, the first one first: a repeat is a run with the next seed."""
        stages = [stage for stage in self.stages.values() if stage.base == name]
        return sorted(stages, key=lambda stage: stage.repeat)

    @property
    def repeat_count(self):
        """Number of repeats of the most repeated stage."""
        return max((stage.repeat for stage in self.stages.values()), default=1)


def read_run(workdir):
    """Reads every stage of a work folder.

    Args:
        workdir: folder with one folder a stage.

    Returns:
        A `RunHistory`.

    Raises:
        UserError: no such folder, no stage in it, or a file in it that cannot be read.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise UserError(
            "Expected the folder of a run (trainers.pretrain writes one). "
            f"Received: workdir={str(workdir)!r}, which is no folder. Check the path."
        )
    found = [_read_stage(folder) for folder in sorted(workdir.iterdir()) if folder.is_dir()]
    stages = {stage.name: stage for stage in found if stage is not None}
    if not stages:
        raise UserError(
            "Expected a folder with at least one stage (STAGE/record.json or STAGE/stage.json). "
            f"Received: workdir={str(workdir)!r}, which has none. "
            "Run trainers.pretrain with this --workdir first."
        )
    return RunHistory(workdir, _sources_first(stages, workdir), _settings(workdir))


def after(first, point):
    """A point of a stage that goes on, counted from the start of the one before it."""
    added = {"step": first.steps}
    added |= {name: getattr(first, name) for name in ("tokens", "flops", "device_seconds")}
    return dataclasses.replace(
        point, **{name: getattr(point, name) + before for name, before in added.items()}
    )


def _settings(workdir):
    """What run.json says, flat; empty without one."""
    path = workdir / "run.json"
    found = _read_object(path) if path.exists() else {}
    settings = found.pop("settings", None)
    return {**settings, **found} if isinstance(settings, dict) else found


def _read_stage(folder):
    if (folder / "record.json").exists():
        return _finished_stage(folder)
    if (folder / "stage.json").exists():
        return _running_stage(folder)
    return None


def _finished_stage(folder):
    path = folder / "record.json"
    record = _read_object(path)
    _require(record, _RECORD_FIELDS, path)
    if record["name"] != folder.name:
        raise UserError(
            f"Expected {path} to record the stage of its folder, {folder.name!r}. "
            f"Received: name={record['name']!r}. Rename the folder back, or remove it."
        )
    curve = record["curve"]
    if not isinstance(curve, list):
        raise UserError(
            f"Expected {path} to hold a list of evaluations. Received: curve={curve!r}. "
            "Run the stage again in an empty folder."
        )
    return StageHistory(
        name=record["name"],
        size=record["size"],
        init=record["init"],
        sources=_sources(record, path),
        steps=_number(record, "steps", path),
        parameters=_number(record, "parameters", path),
        curve=tuple(_point(point, f"{path}, curve[{i}]") for i, point in enumerate(curve)),
        planned_steps=record["steps"],
        **_what_it_is(record, path),
        **{field: _number(record, field, path) for field in _TOTALS},
    )


def _running_stage(folder):
    path = folder / "stage.json"
    settings = _read_object(path)
    _require(settings, _STAGE_FIELDS, path)
    curve = _evaluations(folder / "metrics.jsonl")
    last = curve[-1] if curve else None
    return StageHistory(
        name=folder.name,
        size=settings["size"],
        init=settings["init"],
        sources=_sources(settings, path),
        steps=last.step if last else 0,
        parameters=settings.get("parameters"),
        curve=curve,
        status=RUNNING,
        planned_steps=settings.get("steps"),
        **_what_it_is(settings, path),
        **{field: getattr(last, field) if last else None for field in _TOTALS},
    )


def _what_it_is(known, path):
    """Fields of a stage that do not change while it trains; those of older runs may be missing."""
    steps = known.get("source_steps") or {}
    if not isinstance(steps, dict) or not all(type(step) is int for step in steps.values()):
        raise UserError(
            f"Expected the steps of a stage's sources in {path}. Received: source_steps={steps!r}. "
            "Run the stage again in an empty folder."
        )
    plain = {name: known.get(name) for name in ("flops_method", "learning_rate", "seed")}
    return plain | {
        "source_steps": steps,
        "repeat": known.get("repeat", 1),
        "repeat_of": known.get("repeat_of", path.parent.name),
    }


def _evaluations(path):
    """The evaluation lines of a metrics file; a stage that was resumed wrote some steps twice."""
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    curve = []
    # What follows the last line break is empty, or a line that is being written right now.
    for number, line in enumerate(lines[:-1], start=1):
        where = f"{path}, line {number}"
        entry = _parse(line, where)
        if entry.get("kind") != "eval":
            continue
        point = _point(entry, where)
        while curve and curve[-1].step >= point.step:
            curve.pop()
        curve.append(point)
    return tuple(curve)


def _point(entry, where):
    if not isinstance(entry, dict):
        raise UserError(
            f"Expected an evaluation with the fields {', '.join(_POINT_FIELDS)} in {where}. "
            f"Received: {entry!r}. Run the stage again in an empty folder."
        )
    _require(entry, _POINT_FIELDS, where)
    fields = {field: _number(entry, field, where) for field in _POINT_FIELDS}
    for field in _POINT_FIELDS[:4]:
        if fields[field] is None:
            raise UserError(
                f"Expected a finite number for {field!r} in {where}. Received: "
                f"{field}={entry[field]!r}. Run the stage again in an empty folder."
            )
    return Evaluation(**fields, loss=_number(entry, "loss", where) if "loss" in entry else None)


def _number(record, field, where):
    """A number of the record; None where it is null or not finite, as when a run diverged."""
    value = record[field]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(
            f"Expected a number for {field!r} in {where}. Received: {field}={value!r}. "
            "Run the stage again in an empty folder."
        )
    return value if math.isfinite(value) else None


def _sources(record, path):
    sources = record["sources"]
    if not isinstance(sources, list) or not all(isinstance(name, str) for name in sources):
        raise UserError(
            f"Expected a list of stage names in {path}. Received: sources={sources!r}. "
            "Run the stage again in an empty folder."
        )
    return tuple(sources)


def _read_object(path):
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Expected a readable JSON file. Received: {path} ({type(error).__name__}). "
            "Check its permissions, or remove its folder and run the stage again."
        ) from error
    record = _parse(text, str(path))
    version = record.get("format", FORMAT)
    if version != FORMAT:
        raise UserError(
            f"Expected format {FORMAT} in {path}. Received: format={version!r}. "
            "Make the report with the version of the project that wrote it."
        )
    return record


def _parse(text, where):
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"Expected JSON in {where}. Received: {text[:40]!r} ({error.msg}). "
            "Remove the damaged file and run its stage again."
        ) from error
    if not isinstance(entry, dict):
        raise UserError(
            f"Expected a JSON object in {where}. Received: {text[:40]!r}. "
            "Remove the damaged file and run its stage again."
        )
    return entry


def _require(record, fields, where):
    missing = [field for field in fields if field not in record]
    if missing:
        raise UserError(
            f"Expected the fields {', '.join(fields)} in {where}. Received: none of the name "
            f"{', '.join(missing)}. Another version wrote it: make the report with that one, or "
            "run the stage again."
        )


def _sources_first(stages, workdir):
    """Orders stages by their depth in the graph, then size and name; refuses a cycle."""
    depths = {}

    def depth(name, below):
        if name in below:
            raise UserError(
                "Expected stages that are fused from earlier ones. Received: "
                f"sources={' <- '.join((*below, name))}, a cycle, in {workdir}. "
                "Remove the stage that does not belong to this run."
            )
        if name not in depths:
            sources = stages[name].sources if name in stages else ()
            depths[name] = 1 + max((depth(source, (*below, name)) for source in sources), default=0)
        return depths[name]

    sizes = "SML"
    order = sorted(
        stages.values(),
        key=lambda stage: (depth(stage.name, ()), sizes.find(str(stage.size)), stage.name),
    )
    return {stage.name: stage for stage in order}
