"""The points of a plan that varies one stage: their stages, logs, panels and comparisons."""

import dataclasses
import statistics

from trainers.reports import numbers, pictures, tables
from trainers.reports.comparisons import cost_before, own_cost
from trainers.runs.history import StageHistory
from trainers.runs.workdir import METRICS_FILE
from trainers.training.logs import read_metrics

UNEQUAL = 0.02
"""The share by which the compute of arms may differ that are said to have the same."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A stage of a plan."""

    name: str  # of its line in charts
    stage: StageHistory  # its first repeat
    settings: dict  # what it stands for in the plan, such as {"offset": -100}


def trained(run, plan, name):
    """The points of a plan that have been evaluated, named by `name(settings)`, in its order."""
    settings = run.experiment(plan).get("points") or {}
    return [
        Point(name(settings[stage]), run.stages[stage], dict(settings[stage]))
        for stage in settings
        if stage in run.stages and run.stages[stage].curve
    ]


def accuracies(points):
    """The panel of the accuracies of points over the steps."""
    return curves(points, "Accuracy", "Validation accuracy, %", lambda at, _: at.accuracy)


def curves(points, title, y, value):
    """The panel of `value(evaluation, stage)` of points over the steps."""
    lines = [[(at.step, value(at, point.stage)) for at in point.stage.curve] for point in points]
    return _panel(points, [zip(*line, strict=True) for line in lines], title, y)


def logged(run, point, kind, field):
    """(steps, values) of a number in the "eval" or "theory" lines of a point's metrics.jsonl."""
    lines = read_metrics(run.workdir / point.stage.name / METRICS_FILE)
    values = {
        line["step"]: line[field]
        for line in lines
        if line.get("kind") == kind and isinstance(line.get(field), int | float)
    }
    return list(values), list(values.values())


def logged_panel(run, points, kind, field, title, y, scale="linear"):
    """The panel of a field in the logs of points, as for `logged` and `pictures.panel`."""
    return _panel(points, [logged(run, p, kind, field) for p in points], title, y, scale)


def _panel(points, lines, title, y, scale="linear"):
    """The panel of a line (steps, values) for each point."""
    series = [
        {"name": point.name, "x": list(steps), "y": list(values)}
        for point, (steps, values) in zip(points, lines, strict=True)
    ]
    return pictures.panel(title, "Steps after the fusion", y, series, scale)


def ends(run, point, field):
    """{repeat: value at the end} of the repeats of a point, if any, that have finished with one."""
    stages = run.repeats_of(point.stage.base) if point else ()
    values = {stage.repeat: getattr(stage, field) for stage in stages if stage.finished}
    return {repeat: value for repeat, value in values.items() if value is not None}


def gains(values, reference):
    """Differences between what `ends` gave of two points, for each repeat that both have."""
    return [values[repeat] - reference[repeat] for repeat in values if repeat in reference]


def unequal(run, stages):
    """A sentence after a space where stages, all that they come from counted, differ in compute.

    Steps are whole, so that few of them cannot spend a budget exactly; and flags of stages by name
    overrule the plan. Empty up to a share of `UNEQUAL`, and of fewer than two stages.
    """
    costs = [(cost_before(run, stage.name), own_cost(stage), stage.name) for stage in stages]
    flops = [((before + own).flops, name) for before, own, name in costs if before and own]
    if len(flops) < 2 or max(flops)[0] <= (1 + UNEQUAL) * min(flops)[0]:
        return ""
    low, high = (
        f"{numbers.scientific(total)} ({name})" for total, name in (min(flops), max(flops))
    )
    return f" It is not equal here: from {low} to {high} FLOPs."


def comparable(values):
    """{name: mean} of the lists with the most values, the highest first, and how many they have.

    Means over other seeds do not compare, so the others are left out.
    """
    most = max(map(len, values.values()), default=0)
    means = {
        name: statistics.fmean(seeds)
        for name, seeds in values.items()
        if seeds and len(seeds) == most
    }
    return {name: means[name] for name in sorted(means, key=means.get, reverse=True)}, most


def seeds(run, field):
    """The cells of how many repeats of each point have finished with a field."""
    return lambda point: tables.figure(len(ends(run, point, field)), str)


def end(run, field, style):
    """The cells of the mean of a field over the repeats of each point that have finished."""
    return lambda point: tables.mean(list(ends(run, point, field).values()), style)


def setting(name, style):
    """The cells of a setting of each point."""
    return lambda point: tables.figure(point.settings[name], style)


def last(run, kind, field, style=numbers.ratio, pick=lambda values: values[-1]):
    """The cells of a field in the logs of points, at the end or as `pick` reduces its values."""

    def cell(point):
        values = logged(run, point, kind, field)[1]
        return tables.figure(pick(values) if values else None, style, otherwise="not logged")

    return cell
