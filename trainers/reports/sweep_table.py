"""The table of the sweep: what each candidate of the plan `tune` came to, rung by rung."""

from trainers.plans.tuning import NAME
from trainers.reports import numbers, tables
from trainers.reports.tables import Cell, Column, Table

_LOWEST = "the lowest loss of its arm's last rung: taken"


def tuning_table(run):
    """The candidates of all arms, or None where no sweep was asked for in this folder.

    Args:
        run: a `RunHistory`.
    """
    experiment = (run.settings.get("experiments") or {}).get(NAME)
    if experiment is None:
        return None
    points = experiment["points"]
    columns = (
        Column("arm", "Arm", align="left"),
        Column("rung", "Rung"),
        Column("warmup_steps", "Warm-up k"),
        Column("learning_rate_scale", "Scale"),
        Column("steps", "Steps in all"),
        Column("loss_per_token", "Loss, token"),
        Column("accuracy", "Acc., %"),
        Column("outcome", "Outcome", align="left"),
    )
    rows = tuple(
        _row(run, points, name)
        for name in points
        if points[name]["rung"] == 1 or name in run.stages
    )
    return Table(
        "tune",
        "The sweep of learning rates: scale / √max(n, k) for each arm, by successive halving.",
        columns,
        rows,
        f"{_spent(run, points)} Of each rung the best third goes on for twice as many steps more. "
        "Runs this short may all stand on the plateau that comes first: chance chooses then.",
    )


def _row(run, points, name):
    point, stage = points[name], run.stages.get(name)
    plain = (
        tables.label(point["arm"]),
        Cell(str(point["rung"]), point["rung"]),
        Cell(numbers.count(point["warmup_steps"]), point["warmup_steps"]),
        Cell(f"{point['learning_rate_scale']:g}", point["learning_rate_scale"]),
    )
    if stage is None:
        return (*plain, *[tables.missing()] * 4)
    return (
        *plain,
        tables.figure(_steps(run, points, name), numbers.count),
        tables.figure(stage.loss_per_token, lambda value: f"{value:.4f}"),
        tables.figure(stage.accuracy, numbers.percent),
        tables.label(_outcome(run, points, name)),
    )


def _steps(run, points, name):
    """Steps of a candidate, those of the rungs that it goes on from included."""
    stage = run.stages[name]
    goes_on = [source for source in stage.sources if source in points]
    return stage.steps + sum(
        _steps(run, points, source) for source in goes_on if source in run.stages
    )


def _outcome(run, points, name):
    arm, rung = points[name]["arm"], points[name]["rung"]
    if any(name in stage.sources for other, stage in run.stages.items() if other in points):
        return "goes on"
    of_arm = [other for other in points if points[other]["arm"] == arm]
    last = max(points[other]["rung"] for other in of_arm)
    losses = {
        other: run.stages[other].loss_per_token
        for other in of_arm
        if points[other]["rung"] == last and other in run.stages and run.stages[other].finished
    }
    if rung == last and losses and min(losses, key=losses.get) == name:
        return _LOWEST
    return "ends here"


def _spent(run, points):
    """What each arm's sweep has cost, in words."""
    spent = {}
    for name, point in points.items():
        stage = run.stages.get(name)
        if stage is not None and stage.flops is not None:
            spent[point["arm"]] = spent.get(point["arm"], 0) + stage.flops
    told = ", ".join(f"{arm} {numbers.scientific(flops)}" for arm, flops in spent.items())
    return f"FLOPs spent on each arm: {told}." if told else "No candidate is trained yet."
