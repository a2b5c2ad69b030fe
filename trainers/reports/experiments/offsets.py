"""Offsets of the learning rate after a fusion: Figures 4 and 7."""

import math

from trainers.reports import numbers, pictures, tables
from trainers.reports.experiments import points
from trainers.reports.sections import Section
from trainers.reports.tables import Column

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
    found = trained(run)
    if not found:
        return None
    chart = pictures.chart(
        "figure7_offsets",
        "Figures 4 and 7: validation after a self-fusion, for several offsets.",
        "All start from the same fused weights and see the same batches.",
        f"Three line charts over steps, accuracy, loss and learning rate, for "
        f"{', '.join(point.name for point in found)}.",
        (points.accuracies(found), points.losses(found), points.rates(found, rate)),
    )
    return Section(
        "Offsets of the learning rate: Figures 4 and 7",
        (chart, _table(run, found)),
        (_PAPER, _conclusion(run, found)),
    )


def trained(run):
    """The points of the plan, from the lowest offset to the highest."""

    def name(settings):
        return f"offset {settings['offset']:+d}" if settings["offset"] else "offset 0"

    return sorted(points.trained(run, PLAN, name), key=lambda point: point.settings["offset"])


def column():
    """The column of the offset of a point."""
    return (
        Column("offset", "Offset, steps"),
        lambda point: tables.figure(point.settings["offset"], lambda offset: f"{offset:+d}"),
    )


def rate(stage, step):
    """The learning rate of a stage at a step of its own; None where its record has none."""
    schedule = stage.learning_rate or {}
    if "warmup_steps" not in schedule:
        return None
    n = max(step + schedule.get("offset", 0), schedule["warmup_steps"])
    return schedule.get("scale", 1.0) / math.sqrt(n)


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


def _table(run, found):
    zero = next((point for point in found if not point.settings["offset"]), None)
    reference = points.ends(run, zero, "accuracy")

    def dip_of(index, style=numbers.percent, otherwise="not recorded"):
        return lambda point: tables.figure(dip(point.stage.curve)[index], style, "", otherwise)

    def ends(point):
        return points.ends(run, point, "accuracy")

    def losses(point):
        return [stage.loss_per_token for stage in run.repeats_of(point.stage.base)]

    def share(point):
        values = points.logged(run, point, "theory", "eta_share")[1]
        return tables.figure(values[-1] if values else None, numbers.ratio, "", "not logged")

    columns = (
        column(),
        (
            Column("first_rate", "First rate"),
            lambda point: tables.figure(rate(point.stage, 0), numbers.fine),
        ),
        (Column("start", "Start", "Accuracy, %"), dip_of(0)),
        (Column("lowest", "Lowest after", "Accuracy, %"), dip_of(1)),
        (
            Column("regained", "Start regained at step"),
            dip_of(2, numbers.count, "not regained"),
        ),
        (
            Column("end", "End", "Accuracy, %"),
            lambda point: tables.mean(list(ends(point).values()), numbers.percent),
        ),
        (
            Column("above_0", "Above offset 0", "Accuracy, %"),
            lambda point: tables.mean(
                points.gains(ends(point), reference), numbers.percent, "no offset 0"
            ),
        ),
        (
            Column("loss_per_token", "Loss, token, at the end"),
            lambda point: tables.mean(losses(point), numbers.loss),
        ),
        points.seeds_column(run, "accuracy"),
        (Column("eta_share", "η share at the end"), share),
    )
    return tables.tabulate(
        PLAN,
        "Offsets: the loss of accuracy at first, and the end.",
        found,
        columns,
        "η share: the root mean square of η over that of the sources' blocks. The start is "
        "regained at the first evaluation after the lowest one that is as accurate. Ends are means "
        "± population standard deviations where there are several seeds, the rest is of the first; "
        "“above offset 0” compares within each seed.",
    )


def _conclusion(run, found):
    means, seeds = points.comparable(
        {
            point.settings["offset"]: list(points.ends(run, point, "accuracy").values())
            for point in found
        }
    )
    if len(means) < 2:
        return "Here fewer than two offsets have been trained."
    listed = ", ".join(f"{offset:+d} ({numbers.percent(means[offset])} %)" for offset in means)
    spread = max(means.values()) - min(means.values())
    few = " The spread over seeds is not known." if seeds < 2 else ""
    return (
        f"Here, over {numbers.seeds(seeds)}, from the best to the worst end: {listed}; "
        f"{numbers.percent(spread)} points apart.{few}"
    )
