"""Offsets of the learning rate after a fusion: Figures 4 and 7."""

import math
import statistics

from trainers.reports import numbers, pictures, repeats, tables
from trainers.reports.experiments import points
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
        run: a `RunHistory`.
    """
    found = sorted(points.shown(run, PLAN), key=lambda each: each.point["offset"])
    if not found:
        return None
    return Section(
        "Offsets of the learning rate: Figures 4 and 7",
        (_figure(found), _table(run, found)),
        (_PAPER, _seen(run, found)),
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
    return pictures.chart(
        "figure7_offsets",
        "Figures 4 and 7: validation after a self-fusion, for several offsets.",
        "All start from the same fused weights and see the same batches.",
        f"Three line charts over steps, accuracy, loss and learning rate, for "
        f"{', '.join(map(name, found))}.",
        (
            points.accuracies(found, name),
            points.losses(found, name),
            pictures.panel("Learning rate", points.STEPS, "Learning rate", rates),
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
        Column("above_0", "Above offset 0", "Accuracy, %"),
        Column("loss_per_token", "Loss, token, at the end"),
        Column("seeds", "Seeds"),
        Column("eta_share", "η share at the end"),
    )
    plain = _plain(run, found)
    rows = []
    for each in found:
        stage = each.stage
        stages = run.repeats_of(stage.base)
        ends = points.ends(run, each, "accuracy")
        above = points.gains(ends, plain)
        start, lowest, regained = dip(stage.curve)
        _, shares = points.logged(run, stage, "theory", "eta_share")
        rows.append(
            (
                Cell(f"{each.point['offset']:+d}", each.point["offset"]),
                tables.figure(rate(stage, 0), lambda value: f"{value:.4f}"),
                tables.figure(start, numbers.percent),
                tables.figure(lowest, numbers.percent),
                tables.figure(regained, numbers.count, otherwise="not regained"),
                repeats.figure(list(ends.values()), numbers.percent),
                repeats.figure(above, _points) if above else tables.missing("no offset 0"),
                repeats.figure([s.loss_per_token for s in stages], numbers.loss),
                Cell(str(len(ends)), len(ends)),
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
        "regained at the first evaluation after the lowest one that is as accurate. Ends are means "
        "± population standard deviations where there are several seeds, the rest is of the first; "
        "“above offset 0” compares within each seed.",
    )


def _points(value):
    return f"{value:.2f}"


def _plain(run, found):
    """Accuracies at the end with offset 0, by repeat."""
    plain = next((each for each in found if not each.point["offset"]), None)
    return points.ends(run, plain, "accuracy") if plain else {}


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


def _seen(run, found):
    ends = {each.point["offset"]: points.ends(run, each, "accuracy") for each in found}
    most = max(map(len, ends.values()))
    # Means over other seeds do not compare.
    means = {
        offset: statistics.fmean(each.values())
        for offset, each in ends.items()
        if each and len(each) == most
    }
    if len(means) < 2:
        return "Here fewer than two offsets have been trained."
    order = sorted(means, key=means.get, reverse=True)
    listed = ", ".join(f"{offset:+d} ({numbers.percent(means[offset])} %)" for offset in order)
    spread = means[order[0]] - means[order[-1]]
    few = " What other seeds would give is not known." if most < 2 else ""
    return (
        f"Here, over {repeats.seeds(most)}, from the best to the worst end: {listed}; "
        f"{numbers.percent(spread)} points apart.{few}"
    )
