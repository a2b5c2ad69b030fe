"""The points of a plan that varies one stage: their stages, logs, panels and comparisons."""

import dataclasses
import statistics

from trainers.reports import numbers, pictures, tables
from trainers.runs.history import StageHistory
from trainers.runs.workdir import METRICS_FILE
from trainers.training.logs import read_metrics

STEPS = "Steps after the fusion"


@dataclasses.dataclass(frozen=True)
class Point:
    """A stage of a plan.

    Args:
        name: of its line in charts.
        stage: its first repeat.
        settings: what it stands for in the plan, such as {"offset": -100}.
    """

    name: str
    stage: StageHistory
    settings: dict


def trained(run, plan, name):
    """The points of a plan that have been evaluated, in the order of the plan.

    Args:
        run: a `RunHistory`.
        plan: its name.
        name: function from the settings of a point to its name.
    """
    settings = run.experiment(plan).get("points") or {}
    points = [
        Point(name(settings[stage]), run.stages[stage], dict(settings[stage]))
        for stage in settings
        if stage in run.stages
    ]
    return [point for point in points if point.stage.curve]


def accuracies(points):
    """The panel of the accuracies of points over the steps."""
    return _curves("Accuracy", "Validation accuracy, %", points, lambda at, _: at.accuracy)


def losses(points):
    """The panel of the losses of points over the steps."""
    y = "Validation loss, nats per token"
    return _curves("Loss", y, points, lambda at, _: at.loss_per_token)


def rates(points, rate):
    """The panel of the learning rates of points, from `rate(stage, step)`."""
    name = "Learning rate"
    return _curves(name, name, points, lambda at, stage: rate(stage, at.step))


def _curves(title, y, points, value):
    series = [
        {
            "name": point.name,
            "x": [at.step for at in point.stage.curve],
            "y": [value(at, point.stage) for at in point.stage.curve],
        }
        for point in points
    ]
    return pictures.panel(title, STEPS, y, series)


def logged(run, point, kind, field):
    """(steps, values) of a field in the log of a point.

    Args:
        run: a `RunHistory`.
        point: a `Point`.
        kind: of the lines of metrics.jsonl, such as "eval" or "theory".
        field: name of a number; lines without it are left out.
    """
    lines = read_metrics(run.workdir / point.stage.name / METRICS_FILE)
    values = {
        line["step"]: line[field]
        for line in lines
        if line.get("kind") == kind and isinstance(line.get(field), int | float)
    }
    return list(values), list(values.values())


def logged_panel(run, points, kind, field, title, y, scale="linear"):
    """The panel of a field in the logs of points, as for `logged` and `pictures.panel`."""
    series = []
    for point in points:
        steps, values = logged(run, point, kind, field)
        series.append({"name": point.name, "x": steps, "y": values})
    return pictures.panel(title, STEPS, y, series, scale)


def ends(run, point, field):
    """{repeat: value at the end} of the repeats of a point that have finished with a value.

    Args:
        run: a `RunHistory`.
        point: a `Point`, or None, which has no repeats.
        field: of a `StageHistory`, such as "loss_per_token".
    """
    stages = run.repeats_of(point.stage.base) if point else ()
    values = {stage.repeat: getattr(stage, field) for stage in stages if stage.finished}
    return {repeat: value for repeat, value in values.items() if value is not None}


def gains(values, reference):
    """Differences between values and those of a reference, for each repeat that both have.

    Args:
        values, reference: what `ends` gave.
    """
    return [values[repeat] - reference[repeat] for repeat in values if repeat in reference]


def comparable(values):
    """The means of those with the most values, the highest first, and how many values they have.

    Means over other seeds do not compare, so the others are left out.

    Args:
        values: {name: list of values, one per seed}.

    Returns:
        {name: mean} and a number.
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


def last(run, kind, field, style=numbers.ratio, pick=lambda values: values[-1]):
    """The cells of a field in the logs of points, at the end or as `pick` reduces its values."""

    def cell(point):
        values = logged(run, point, kind, field)[1]
        return tables.figure(pick(values) if values else None, style, otherwise="not logged")

    return cell
