"""What a plan's stages stand for, and what their logs say beside the curve."""

import dataclasses

from trainers.reports import pictures
from trainers.runs.history import StageHistory
from trainers.training.logs import METRICS_FILE, read_metrics

STEPS = "Steps after the fusion"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A stage of a plan and its point: what it stands for there, such as {"offset": -100}."""

    stage: StageHistory
    point: dict


def facts(run, plan):
    """What run.json says of a plan: its points and facts; empty where it was not asked for."""
    return (run.settings.get("experiments") or {}).get(plan) or {}


def shown(run, plan):
    """The stages of a plan that have been evaluated, in the order of the plan.

    Args:
        run: a `RunHistory`.
        plan: its name.
    """
    points = facts(run, plan).get("points") or {}
    found = [Shown(run.stages[name], dict(points[name])) for name in points if name in run.stages]
    return [each for each in found if each.stage.curve]


def accuracies(found, name):
    """The panel of the accuracies of points over the steps.

    Args:
        found: what `shown` gave.
        name: from a point to what its line is called.
    """
    return _panel("Accuracy", "Validation accuracy, %", found, name, "accuracy")


def losses(found, name):
    """The panel of the losses of points over the steps, as `accuracies`."""
    return _panel("Loss", "Validation loss, nats per token", found, name, "loss_per_token")


def _panel(title, y, found, name, field):
    series = [
        {
            "name": name(each),
            "x": [point.step for point in each.stage.curve],
            "y": [getattr(point, field) for point in each.stage.curve],
        }
        for each in found
    ]
    return pictures.panel(title, STEPS, y, series)


def ends(run, each, field):
    """A figure at the end of a point's stage by repeat, of those that have finished with one.

    Args:
        run: a `RunHistory`.
        each: what `shown` gave.
        field: of a `StageHistory`, such as "loss_per_token".
    """
    found = run.repeats_of(each.stage.base)
    values = {stage.repeat: getattr(stage, field) for stage in found if stage.finished}
    return {repeat: value for repeat, value in values.items() if value is not None}


def gains(values, reference):
    """By how much values exceed those of a reference, repeat by repeat, where both have it.

    Args:
        values, reference: what `ends` gave.
    """
    return [values[repeat] - reference[repeat] for repeat in values if repeat in reference]


def logged(run, stage, kind, field):
    """(steps, values) of a field in the lines of a kind of a stage's metrics.jsonl.

    Args:
        run: a `RunHistory`.
        stage: a `StageHistory`.
        kind: such as "eval" or "theory".
        field: name of a number; lines without it do not count.
    """
    lines = read_metrics(run.workdir / stage.name / METRICS_FILE)
    found = {
        line["step"]: line[field]
        for line in lines
        if line.get("kind") == kind and isinstance(line.get(field), int | float)
    }
    return list(found), list(found.values())
