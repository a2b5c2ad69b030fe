"""Offsets of the learning rate after a fusion: Figures 4 and 7."""

from trainers.reports import numbers, pictures, tables
from trainers.reports.experiments import points
from trainers.reports.tables import Section
from trainers.runs.rates import learning_rate

PLAN = "offsets"
_PAPER = (
    "The paper: negative offsets, which hold the largest rate longer, hurt at first and end "
    "highest (section 5.4 and Figure 7; its Appendix D gives the sign the other way)."
)


def section(run):
    """The section, or None without the plan."""
    shown = trained(run)
    if not shown:
        return None
    loss, name = "Validation loss, nats per token", "Learning rate"
    chart = pictures.chart(
        "figure7_offsets",
        "Figures 4 and 7: validation after a self-fusion, for several offsets.",
        "All start from the same fused weights and see the same batches.",
        f"Three line charts over steps, accuracy, loss and learning rate, for "
        f"{', '.join(point.name for point in shown)}.",
        (
            points.accuracies(shown),
            points.curves(shown, "Loss", loss, lambda at, _: at.loss_per_token),
            points.curves(shown, name, name, lambda at, stage: rate(stage, at.step)),
        ),
    )
    return Section(
        "Offsets of the learning rate: Figures 4 and 7",
        (chart, _table(run, shown)),
        (_PAPER, _conclusion(run, shown)),
    )


def trained(run):
    """The points of the plan, from the lowest offset to the highest."""

    def name(settings):
        return f"offset {settings['offset']:+d}" if settings["offset"] else "offset 0"

    return sorted(points.trained(run, PLAN, name), key=lambda point: point.settings["offset"])


OFFSET = ("offset", "Offset, steps", "", points.setting("offset", "{:+d}".format))
"""The column of the offset of a point."""


def rate(stage, step):
    """The learning rate of a stage at a step of its own."""
    return learning_rate(stage.learning_rate, step, stage.planned_steps)


def dip(curve):
    """(accuracy at step 0, lowest after it, step of the first evaluation back at the start).

    Example: 40, 38, 39, 41 at the steps 0, 1, 2, 3 give (40, 38, 3).
    """
    evaluated = [point for point in curve if point.accuracy is not None]
    if len(evaluated) < 2:
        return (evaluated[0].accuracy if evaluated else None), None, None
    start, rest = evaluated[0].accuracy, evaluated[1:]
    lowest = min(range(len(rest)), key=lambda index: rest[index].accuracy)
    back = next((p.step for p in rest[lowest:] if p.accuracy >= start), None)
    return start, rest[lowest].accuracy, back


def _table(run, shown):
    zero = next((point for point in shown if not point.settings["offset"]), None)
    reference = points.ends(run, zero, "accuracy")

    def dip_at(index, style=numbers.percent, otherwise="not recorded"):
        return lambda point: tables.figure(dip(point.stage.curve)[index], style, "", otherwise)

    def gain(point):
        gains = points.gains(points.ends(run, point, "accuracy"), reference)
        return tables.mean(gains, numbers.percent, "no offset 0")

    accuracy = "Accuracy, %"
    loss = points.end(run, "loss_per_token", numbers.loss)
    columns = (
        OFFSET,
        ("first_rate", "First rate", "", lambda p: tables.figure(rate(p.stage, 0), numbers.fine)),
        ("start", "Start", accuracy, dip_at(0)),
        ("lowest", "Lowest after", accuracy, dip_at(1)),
        ("regained", "Start regained at step", "", dip_at(2, numbers.count, "not regained")),
        ("end", "End", accuracy, points.end(run, "accuracy", numbers.percent)),
        ("above_0", "Above offset 0", accuracy, gain),
        ("loss_per_token", "Loss, token, at the end", "", loss),
        ("seeds", "Seeds", "", points.seeds(run, "accuracy")),
        ("eta_share", "η share at the end", "", points.last(run, "theory", "eta_share")),
    )
    return tables.tabulate(
        PLAN,
        "Offsets: the loss of accuracy at first, and the end.",
        shown,
        columns,
        "η share: the root mean square of η over that of the sources' blocks. The start is "
        "regained at the first evaluation after the lowest one that is as accurate. Ends are means "
        "± population standard deviations where there are several seeds, the rest is of the first; "
        "“above offset 0” compares within each seed.",
    )


def _conclusion(run, shown):
    ends = {p.settings["offset"]: list(points.ends(run, p, "accuracy").values()) for p in shown}
    means, seeds = points.comparable(ends)
    if len(means) < 2:
        return "Here fewer than two offsets have been trained."
    listed = ", ".join(f"{offset:+d} ({numbers.percent(means[offset])} %)" for offset in means)
    spread = max(means.values()) - min(means.values())
    few = " The spread over seeds is not known." if seeds < 2 else ""
    return (
        f"Here, over {numbers.seeds(seeds)}, from the best to the worst end: {listed}; "
        f"{numbers.percent(spread)} points apart.{few}"
    )
