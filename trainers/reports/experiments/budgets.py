"""When to fuse at a given budget: Figure 6."""

import statistics

import numpy as np

from trainers.reports import numbers, pictures, repeats, tables
from trainers.reports.experiments import points
from trainers.reports.sections import Section
from trainers.reports.tables import Cell, Column, Table

PLAN = "when_to_fuse"
# The part of a curve in which its noise is measured, and the degree of what is taken for smooth.
_SETTLED, _DEGREE = 0.5, 2


def section(run):
    """The section, or None without the plan.

    Args:
        run: a `RunHistory`.
    """
    found = sorted(points.shown(run, PLAN), key=lambda each: each.point["fusion_step"])
    if not found:
        return None
    facts = points.facts(run, PLAN)["facts"]
    noise = evaluation_noise([each.stage for each in found])
    ends = zip(*(each.point["steps"] for each in found), strict=True)
    reached = [
        [accuracy_at(run, each.stage, step) for each, step in zip(found, steps, strict=True)]
        for steps in ends
    ]
    return Section(
        "When to fuse: Figure 6",
        (_figure(found, facts, reached, noise), _table(found, facts, reached, noise)),
        (
            "The small model was trained once; its checkpoints were fused with themselves and "
            "trained on until the budget was spent. A smaller budget ends earlier on the curve of "
            "the largest, as the learning rate does not know how long a run is. The paper: fusing "
            "T5-Small after half of its steps is good at all three budgets.",
            *_best(found, facts, reached, noise),
        ),
    )


def accuracy_at(run, stage, step):
    """Accuracies at a step, one a repeat, on straight lines between evaluations.

    Args:
        run: a `RunHistory`.
        stage: the first repeat.
        step: None where the budget does not reach so far.

    Returns:
        A list; empty where no repeat has come so far.
    """
    found = []
    for each in run.repeats_of(stage.base):
        known = [point for point in each.curve if point.accuracy is not None]
        if step is not None and known and known[-1].step >= step:
            at = [point.step for point in known]
            found.append(float(np.interp(step, at, [point.accuracy for point in known])))
    return found


def evaluation_noise(stages):
    """Standard deviation of evaluations around smooth curves, pooled over stages; None if unknown.

    A parabola is fitted to the second half of each curve; what is left is the noise. It says how
    much an evaluation wobbles, not how much another seed would change.
    """
    squares, freedom = 0.0, 0
    for stage in stages:
        known = [p for p in stage.curve if p.accuracy is not None]
        late = [p for p in known if p.step >= _SETTLED * known[-1].step]
        if len(late) > _DEGREE + 1:
            x = np.array([p.step for p in late], float) / late[-1].step
            y = np.array([p.accuracy for p in late])
            rest = y - np.polyval(np.polyfit(x, y, _DEGREE), x)
            squares += float(rest @ rest)
            freedom += len(late) - _DEGREE - 1
    return (squares / freedom) ** 0.5 if freedom else None


def _errors(values, noise):
    return statistics.pstdev(values) if len(values) > 1 else noise


def _label(facts, index):
    budget, unit = facts["budgets"][index], facts["unit"]
    if unit == "flops":
        return f"{numbers.scientific(budget)} FLOPs"
    return f"{numbers.seconds(budget)} of device time"


def _figure(found, facts, reached, noise):
    x = [each.point["fusion_step"] for each in found]
    series = [
        {
            "name": _label(facts, index),
            "x": x,
            "y": [statistics.fmean(values) if values else None for values in line],
            "error": [_errors(values, noise) if values else None for values in line],
        }
        for index, line in enumerate(reached)
    ]
    return pictures.chart(
        "figure6_when_to_fuse",
        "Figure 6: accuracy when the budget is spent, over the step of fusion.",
        "Leftmost: no fusion, the big model from random weights. Bars: the standard deviation "
        + ("over seeds where there are several, else " if _seeds(reached) > 1 else "")
        + "of single evaluations around their curve.",
        f"A line chart, accuracy over fusion step, for budgets of "
        f"{', '.join(line['name'] for line in series)}.",
        (pictures.panel("", "Step of the small model", "Validation accuracy, %", series),),
    )


def _seeds(reached):
    return max((len(values) for line in reached for values in line), default=0)


def _table(found, facts, reached, noise):
    columns = (
        Column("budget", "Budget", align="left"),
        *(
            Column(f"step_{step}", f"{numbers.count(step)}" if step else "none", "Fusion at step")
            for step in (each.point["fusion_step"] for each in found)
        ),
    )
    rows = tuple(
        (
            Cell(_label(facts, index), facts["budgets"][index], tables.LABEL),
            *(
                repeats.figure(values, numbers.percent) if values else tables.missing("too dear")
                for values in line
            ),
        )
        for index, line in enumerate(reached)
    )
    noise_text = "not known" if noise is None else f"{noise:.2f} points"
    return Table(
        "when_to_fuse",
        "Accuracy in % when the budget is spent, sources counted.",
        columns,
        rows,
        f"Evaluations wobble by {noise_text} (one standard deviation around a parabola through the "
        "second half of each curve).",
    )


def _best(found, facts, reached, noise):
    """A sentence a budget: the best step, and the steps that are as good within the noise."""
    sentences = []
    for index, line in enumerate(reached):
        known = {
            each.point["fusion_step"]: values
            for each, values in zip(found, line, strict=True)
            if values
        }
        if len(known) < 2:
            sentences.append(f"{_label(facts, index)}: fewer than two fusion steps were trained.")
            continue
        means = {step: statistics.fmean(values) for step, values in known.items()}
        best = max(means, key=means.get)
        # A point of one seed shows no spread over seeds; it may be as large as another's.
        spreads = [_errors(values, noise) for values in known.values()]
        margin = None if None in spreads else 2 * 2**0.5 * max(spreads)
        how = f"when fused at step {numbers.count(best)}" if best else "without a fusion"
        text = f"{_label(facts, index)}: best {how} ({numbers.percent(means[best])} %)"
        if margin is None:
            sentences.append(f"{text}; its uncertainty is not known.")
            continue
        alike = [s for s in means if s != best and means[s] >= means[best] - margin]
        others = ", ".join(numbers.count(step) if step else "none" for step in alike)
        told = f"as good within two standard errors: {others}" if alike else "no other is as good"
        told += f", if each varies by {max(spreads):.2f} points, as the one that varies most does"
        sentences.append(f"{text}; {told}.")
    return sentences
