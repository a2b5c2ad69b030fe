"""The table of the sweep: the result of each candidate of the plan `tune`, rung by rung."""

from trainers.plans.tuning import NAME
from trainers.reports import numbers, tables
from trainers.reports.tables import Column, Table

CHOSEN = "chosen: the lowest loss of its arm's last rung"
_COLUMNS = (
    Column("arm", "Arm", align="left"),
    Column("rung", "Rung"),
    Column("warmup_steps", "Warm-up k"),
    Column("learning_rate_scale", "Scale"),
    Column("steps", "Steps in all"),
    Column("loss_per_token", "Loss, token"),
    Column("accuracy", "Acc., %"),
    Column("outcome", "Outcome", align="left"),
)


def tuning_table(run):
    """The candidates of all arms, or None where no sweep was asked for in this folder.

    Args:
        run: a `RunHistory`.
    """
    points = run.experiment(NAME).get("points")
    if points is None:
        return None
    shown = [name for name in points if points[name]["rung"] == 1 or name in run.stages]
    return Table(
        "tune",
        "The sweep of learning rates: scale / √max(n, k) for each arm, by successive halving.",
        _COLUMNS,
        tuple((*_candidate(points[name]), *_result(run, points, name)) for name in shown),
        f"{_spent(run, points)} The best third of each rung continues for twice as many steps. "
        "Runs this short may all stand on the plateau that comes first: chance chooses then.",
    )


def _candidate(point):
    return (
        tables.label(point["arm"]),
        tables.figure(point["rung"], str),
        tables.figure(point["warmup_steps"], numbers.count),
        tables.figure(point["learning_rate_scale"], lambda scale: f"{scale:g}"),
    )


def _result(run, points, name):
    stage = run.stages.get(name)
    if stage is None:
        return [tables.missing()] * 4
    return (
        tables.figure(_steps(run, points, name), numbers.count),
        tables.figure(stage.loss_per_token, numbers.fine),
        tables.figure(stage.accuracy, numbers.percent),
        tables.label(_outcome(run, points, name)),
    )


def _steps(run, points, name):
    """Steps of a candidate, including the rungs that it continues."""
    stage = run.stages[name]
    sources = [source for source in stage.sources if source in points and source in run.stages]
    return stage.steps + sum(_steps(run, points, source) for source in sources)


def _outcome(run, points, name):
    if any(name in stage.sources for other, stage in run.stages.items() if other in points):
        return "continues"
    rungs = {n: at["rung"] for n, at in points.items() if at["arm"] == points[name]["arm"]}
    last = [other for other in rungs if rungs[other] == max(rungs.values())]
    stages = [run.stages[other] for other in last if other in run.stages]
    losses = {stage.name: stage.loss_per_token for stage in stages if stage.finished}
    return CHOSEN if losses and min(losses, key=losses.get) == name else "ends here"


def _spent(run, points):
    """The cost of each arm's sweep, in words."""
    spent = {}
    for name, point in points.items():
        stage = run.stages.get(name)
        if stage is not None and stage.flops is not None:
            spent[point["arm"]] = spent.get(point["arm"], 0) + stage.flops
    costs = ", ".join(f"{arm} {numbers.scientific(flops)}" for arm, flops in spent.items())
    return f"FLOPs spent on each arm: {costs}." if costs else "No candidate is trained yet."
