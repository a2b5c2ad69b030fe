"""Offsets of the learning rate after a fusion: Figures 4 and 7."""

import math

from trainers.reports import numbers, tables
from trainers.reports.experiments import charts, points
from trainers.reports.sections import Section
from trainers.reports.tables import Cell, Column, Table

PLAN = "offsets"
_PAPER = (
    "The paper: negative offsets, which hold the largest rate longer, hurt at first and end "
    "highest (section 5.4 and Figure 7; its Appendix D gives the sign the other way)."
)


def section(run):
    """The section, or None without the plan.

    Args:
        run: a `Run`.
    """
    found = sorted(points.shown(run, PLAN), key=lambda each: each.point["offset"])
    if not found:
        return None
    return Section(
        "Offsets of the learning rate: Figures 4 and 7",
        (_figure(found), _table(run, found)),
        (_PAPER, _seen(found)),
    )


def name(each):
    """What a line of an offset is called."""
    return f"offset {each.point['offset']:+d}" if each.point["offset"] else "offset 0"


def rate(stage, step):
    """The learning rate of a stage at a step of its own; None where its record has none."""
    found = stage.learning_rate or {}
    if "warmup_steps" not in found:
        return None
    n = max(step + found.get("offset", 0), found["warmup_steps"])
    return found.get("scale", 1.0) / math.sqrt(n)


def _figure(found):
    rates = [
        {
            "name": name(each),
            "x": [point.step for point in each.stage.curve],
            "y": [rate(each.stage, point.step) for point in each.stage.curve],
        }
        for each in found
    ]
    step = "Steps after the fusion"
    return charts.chart(
        "figure7_offsets",
        "Figures 4 and 7: validation after a self-fusion, for several offsets.",
        "All start from the same fused weights and see the same batches.",
        f"Three line charts over steps, accuracy, loss and learning rate, for "
        f"{', '.join(map(name, found))}.",
        (
            charts.panel(
                "Accuracy",
                step,
                "Validation accuracy, %",
                [points.series(name(each), each.stage, "accuracy") for each in found],
            ),
            charts.panel(
                "Loss",
                step,
                "Validation loss, nats per token",
                [points.series(name(each), each.stage, "loss_per_token") for each in found],
            ),
            charts.panel("Learning rate", step, "Learning rate", rates),
        ),
    )


def _table(run, found):
    columns = (
        Column("offset", "Offset, steps"),
        Column("first_rate", "First rate"),
        Column("start", "Start", "Accuracy, %"),
        Column("lowest", "Lowest after", "Accuracy, %"),
        Column("regained", "Start regained at step"),
        Column("end", "End", "Accuracy, %"),
        Column("loss_per_token", "Loss, token, at the end"),
        Column("eta_share", "η share at the end"),
    )
    rows = []
    for each in found:
        stage = each.stage
        start, lowest, regained = dip(stage.curve)
        _, shares = points.logged(run, stage, "theory", "eta_share")
        rows.append(
            (
                Cell(f"{each.point['offset']:+d}", each.point["offset"]),
                tables.figure(rate(stage, 0), lambda value: f"{value:.4f}"),
                tables.figure(start, numbers.percent),
                tables.figure(lowest, numbers.percent),
                tables.figure(regained, numbers.count, otherwise="not regained"),
                tables.figure(stage.accuracy, numbers.percent),
                tables.figure(stage.loss_per_token, numbers.loss),
                tables.figure(
                    shares[-1] if shares else None, numbers.ratio, otherwise="not logged"
                ),
            )
        )
    return Table(
        "offsets",
        "Offsets: what the fused model loses at first, and where it ends.",
        columns,
        tuple(rows),
        "η share: the root mean square of η over that of the sources' blocks. The start is "
        "regained at the first evaluation after the lowest one that is as accurate.",
    )


def dip(curve):
    """(accuracy at step 0, lowest after it, step of the first evaluation back at the start).

    Args:
        curve: evaluations, the first one at step 0.

    Example: 40, 38, 39, 41 at the steps 0, 1, 2, 3 give (40, 38, 3).
    """
    known = [point for point in curve if point.accuracy is not None]
    if len(known) < 2:
        return (known[0].accuracy if known else None), None, None
    start, rest = known[0].accuracy, known[1:]
    lowest = min(range(len(rest)), key=lambda index: rest[index].accuracy)
    back = next((p.step for p in rest[lowest:] if p.accuracy >= start), None)
    return start, rest[lowest].accuracy, back


def _seen(found):
    ended = [each for each in found if each.stage.accuracy is not None]
    if len(ended) < 2:
        return "Here fewer than two offsets have been trained."
    order = sorted(ended, key=lambda each: -each.stage.accuracy)
    listed = ", ".join(
        f"{each.point['offset']:+d} ({numbers.percent(each.stage.accuracy)} %)" for each in order
    )
    spread = order[0].stage.accuracy - order[-1].stage.accuracy
    return (
        f"Here, from the best to the worst end: {listed}; {numbers.percent(spread)} points apart. "
        "One seed: what other seeds would give is not known."
    )
