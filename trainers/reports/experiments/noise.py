"""Noise in the blocks that the fusion property leaves zero: what is lost and what it unlocks."""

from trainers.reports import numbers, tables
from trainers.reports.experiments import charts, points
from trainers.reports.sections import Section
from trainers.reports.tables import Cell, Column, Table

PLAN = "zero_blocks"


def section(run):
    """The section, or None without the plan.

    Args:
        run: a `Run`.
    """
    found = points.shown(run, PLAN)
    if not found:
        return None
    return Section(
        "Noise in the zero blocks",
        (_figure(run, found), _table(run, found)),
        (
            "The paper fills the zero blocks “with a low variance” and gives no number. The copies "
            "of a self-fused model start equal, and as long as they are, it can do no more than "
            "the small one. kf.symmetry is how far they have come apart: 0 where they are equal, "
            "about 1.4 where they have nothing in common.",
            _seen(found),
        ),
    )


def name(each):
    """What a line of a noise is called."""
    if not each.point["noise"]:
        return "no noise"
    return f"{each.point['noise_kind']} {each.point['noise']:g}"


def _figure(run, found):
    step = "Steps after the fusion"
    apart = []
    for each in found:
        steps, values = points.logged(run, each.stage, "eval", "symmetry")
        apart.append({"name": name(each), "x": steps, "y": values})
    return charts.chart(
        "zero_blocks",
        "A self-fused model with noise of several kinds and sizes in its zero blocks.",
        "All start from the same small model and see the same batches. The size of a noise is its "
        "standard deviation over the root mean square of the source's weight.",
        "Two line charts over steps, accuracy and distance of the copies, for "
        f"{', '.join(map(name, found))}.",
        (
            charts.panel(
                "Accuracy",
                step,
                "Validation accuracy, %",
                [points.series(name(each), each.stage, "accuracy") for each in found],
            ),
            charts.panel("How far the copies have come apart", step, "Distance", apart),
        ),
    )


def _table(run, found):
    columns = (
        Column("kind", "Noise", align="left"),
        Column("sigma", "σ"),
        Column("start", "Right after the fusion", "Accuracy, %"),
        Column("end", "End", "Accuracy, %"),
        Column("loss_per_token", "Loss, token, at the end"),
        Column("steps", "Steps"),
        Column("distance_start", "Start", "Distance of the copies"),
        Column("distance_end", "End", "Distance of the copies"),
    )
    rows = []
    for each in found:
        stage, point = each.stage, each.point
        _, apart = points.logged(run, stage, "eval", "symmetry")
        rows.append(
            (
                tables.label(point["noise_kind"] or "none"),
                Cell(f"{point['noise']:g}", point["noise"]),
                tables.figure(stage.curve[0].accuracy, numbers.percent),
                tables.figure(stage.accuracy, numbers.percent),
                tables.figure(stage.loss_per_token, lambda value: f"{value:.4f}"),
                tables.figure(stage.steps, numbers.count),
                *(
                    tables.figure(value, lambda v: f"{v:.4f}", otherwise="not logged")
                    for value in (apart[0], apart[-1])
                    if apart
                ),
                *([tables.missing("not logged")] * 2 if not apart else ()),
            )
        )
    return Table(
        "zero_blocks",
        "Noise in the zero blocks: what it costs at once, and where it ends.",
        columns,
        tuple(rows),
        "Loss at the end in four digits, as differences are small.",
    )


def _seen(found):
    ended = [each for each in found if each.stage.finished and each.stage.loss_per_token]
    if len(ended) < 2:
        return "Fewer than two noises have been trained."
    best = min(ended, key=lambda each: each.stage.loss_per_token)
    worst = max(ended, key=lambda each: each.stage.loss_per_token)
    return (
        f"Lowest loss at the end: {name(best)} ({best.stage.loss_per_token:.4f}); highest: "
        f"{name(worst)} ({worst.stage.loss_per_token:.4f}). One seed: differences of a hundredth "
        "are within what another seed changes."
    )
