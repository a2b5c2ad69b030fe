"""The table of the sweep: the result of each candidate of the plan `tune`, rung by rung."""

from trainers.plans.tuning import NAME
from trainers.reports import numbers, tables

CHOSEN = "chosen: the lowest loss of its arm's last rung"


def tuning_table(run):
    """The candidates of all arms, or None where no sweep was asked for in this folder."""
    points = run.experiment(NAME).get("points")
    if points is None:
        return None

    def setting(field, style):
        return lambda name: tables.figure(points[name][field], style)

    def result(cell):
        return lambda name: cell(run.stages[name]) if name in run.stages else tables.missing()

    def steps(stage):
        """Steps of a candidate, including the rungs that it continues."""
        rungs = [
            run.stages[name] for name in stage.sources if name in points and name in run.stages
        ]
        return stage.steps + sum(map(steps, rungs))

    columns = (
        ("arm", "Arm", "", lambda name: tables.label(points[name]["arm"])),
        ("rung", "Rung", "", setting("rung", str)),
        ("warmup_steps", "Warm-up k", "", setting("warmup_steps", numbers.count)),
        ("learning_rate_scale", "Scale", "", setting("learning_rate_scale", "{:g}".format)),
        ("steps", "Steps in all", "", result(lambda s: tables.figure(steps(s), numbers.count))),
        (
            "loss_per_token",
            "Loss, token",
            "",
            result(lambda s: tables.figure(s.loss_per_token, numbers.fine)),
        ),
        ("accuracy", "Acc., %", "", result(lambda s: tables.figure(s.accuracy, numbers.percent))),
        ("outcome", "Outcome", "", result(lambda s: tables.label(_outcome(run, points, s.name)))),
    )
    return tables.tabulate(
        "tune",
        "The sweep of learning rates: scale / √max(n, k) for each arm, by successive halving.",
        [name for name in points if points[name]["rung"] == 1 or name in run.stages],
        columns,
        f"{_spent(run, points)} The best third of each rung continues for twice as many steps. "
        "Runs this short may all stand on the plateau that comes first: chance chooses then.",
    )


def _outcome(run, points, name):
    if any(name in stage.sources for other, stage in run.stages.items() if other in points):
        return "continues"
    rungs = {n: at["rung"] for n, at in points.items() if at["arm"] == points[name]["arm"]}
    last = [run.stages.get(n) for n, rung in rungs.items() if rung == max(rungs.values())]
    losses = {stage.name: stage.loss_per_token for stage in last if stage and stage.finished}
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
