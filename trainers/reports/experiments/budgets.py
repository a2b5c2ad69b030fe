"""When to fuse at a given budget: Figure 6."""

import statistics

import numpy as np

from trainers.reports import numbers, pictures, tables
from trainers.reports.experiments import points
from trainers.reports.tables import Cell, Section

PLAN = "when_to_fuse"
# The part of a curve in which its noise is measured, and the degree of the smooth curve.
_SETTLED, _DEGREE = 0.5, 2
_ABOUT = (
    "The small model was trained once; its checkpoints were fused with themselves and trained on "
    "until the budget was spent{how}. The paper: fusing T5-Small after half of its steps is good "
    "at all three budgets."
)
_ONE_CURVE = (
    ". A smaller budget ends earlier on the curve of the largest, as the learning rate does not "
    "depend on the length of a run"
)
_EACH = ", each budget in a run of its own, with a decay at its end"


def section(run):
    """The section, or None without the plan."""
    shown = points.trained(run, PLAN, lambda settings: _step(settings["fusion_step"]))
    if not shown:
        return None
    steps = sorted({point.settings["fusion_step"] for point in shown})
    facts = run.experiment(PLAN)["facts"]
    noise = evaluation_noise([point.stage for point in shown])
    lines = [
        (_budget(budget, facts["unit"]), [_reached(run, shown, step, index) for step in steps])
        for index, budget in enumerate(facts["budgets"])
    ]
    are_points = len(steps) == len(shown)
    how = "" if len(facts["budgets"]) == 1 else _ONE_CURVE if are_points else _EACH
    return Section(
        "When to fuse: Figure 6",
        (_chart(steps, lines, noise), _table(steps, facts, lines, noise)),
        (_ABOUT.format(how=how), *(_best(budget, steps, line, noise) for budget, line in lines)),
    )


def _reached(run, shown, fusion_step, index):
    """Accuracies with which a budget ends, of the point that fuses at a step."""
    accuracies = []
    for point in shown:
        if point.settings["fusion_step"] == fusion_step:
            accuracies += accuracies_at(run, point.stage, point.settings["steps"][index])
    return accuracies


def accuracies_at(run, stage, step):
    """Accuracies at a step, one per repeat that has reached it, between evaluations on a line.

    The step is None where the budget does not reach so far; then there are none.
    """
    accuracies = []
    for repeat in run.repeats_of(stage.base):
        curve = [(at.step, at.accuracy) for at in repeat.curve if at.accuracy is not None]
        if step is not None and curve and curve[-1][0] >= step:
            accuracies.append(float(np.interp(step, *zip(*curve, strict=True))))
    return accuracies


def evaluation_noise(stages):
    """Standard deviation of evaluations around smooth curves, pooled over stages; None if unknown.

    A parabola is fitted to the second half of each curve, before the learning rate decays; what is
    left is the noise. It is the deviation of single evaluations, not of seeds.
    """
    squares, freedom = 0.0, 0
    for stage in stages:
        steps = stage.planned_steps or stage.steps
        end = steps - stage.learning_rate.get("decay_steps", 0)
        curve = [at for at in stage.curve if at.accuracy is not None and at.step <= end]
        late = [at for at in curve if at.step >= _SETTLED * curve[-1].step]
        if len(late) > _DEGREE + 1:
            x = np.array([at.step for at in late], float) / late[-1].step
            y = np.array([at.accuracy for at in late])
            rest = y - np.polyval(np.polyfit(x, y, _DEGREE), x)
            squares += float(rest @ rest)
            freedom += len(late) - _DEGREE - 1
    return (squares / freedom) ** 0.5 if freedom else None


def _deviation(values, noise):
    return statistics.pstdev(values) if len(values) > 1 else noise


def _budget(budget, unit):
    if unit == "flops":
        return f"{numbers.scientific(budget)} FLOPs"
    return f"{numbers.seconds(budget)} of device time"


def _step(step):
    return numbers.count(step) if step else "none"


def _chart(steps, lines, noise):
    series = [
        {
            "name": budget,
            "x": steps,
            "y": [statistics.fmean(values) if values else None for values in line],
            "error": [_deviation(values, noise) if values else None for values in line],
        }
        for budget, line in lines
    ]
    repeated = any(len(values) > 1 for _, line in lines for values in line)
    return pictures.chart(
        "figure6_when_to_fuse",
        "Figure 6: accuracy when the budget is spent, over the step of fusion.",
        "Leftmost: no fusion, the big model from random weights. Bars: the standard deviation "
        + ("over seeds where there are several, else " if repeated else "")
        + "of single evaluations around their curve.",
        "A line chart, accuracy over fusion step, for budgets of "
        f"{', '.join(budget for budget, _ in lines)}.",
        (pictures.panel("", "Step of the small model", "Validation accuracy, %", series),),
    )


def _table(steps, facts, lines, noise):
    def at(index):
        return lambda line: tables.mean(line[2][index], numbers.percent, "over budget")

    deviation = "not known" if noise is None else f"{noise:.2f} points"
    return tables.tabulate(
        PLAN,
        "Accuracy in % when the budget is spent, sources counted.",
        [(value, *line) for value, line in zip(facts["budgets"], lines, strict=True)],
        (
            ("budget", "Budget", "", lambda line: Cell(line[1], line[0], tables.LABEL)),
            *((f"step_{s}", _step(s), "Fusion at step", at(i)) for i, s in enumerate(steps)),
        ),
        "Standard deviation of single evaluations around a parabola through the second half of "
        f"each curve: {deviation}.",
    )


def _best(budget, steps, line, noise):
    """A sentence about a budget: the best step, and the steps that are as good within the noise."""
    reached = {step: values for step, values in zip(steps, line, strict=True) if values}
    if len(reached) < 2:
        return f"{budget}: fewer than two fusion steps were trained."
    means = {step: statistics.fmean(values) for step, values in reached.items()}
    best = max(means, key=means.get)
    how = f"when fused at step {_step(best)}" if best else "without a fusion"
    text = f"{budget}: best {how} ({numbers.percent(means[best])} %)"
    # A point of one seed has no spread over seeds; it may be as large as that of another.
    deviations = [_deviation(values, noise) for values in reached.values()]
    if None in deviations:
        return f"{text}; its uncertainty is not known."
    margin = 2 * 2**0.5 * max(deviations)
    alike = [_step(s) for s in means if s != best and means[s] >= means[best] - margin]
    verdict = "no other is as good"
    if alike:
        verdict = f"as good within two standard errors: {', '.join(alike)}"
    return f"{text}; {verdict}, with the largest deviation, {max(deviations):.2f} points, for each."
