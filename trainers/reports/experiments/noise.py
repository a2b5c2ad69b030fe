"""Noise in the blocks that the fusion property leaves zero: what is lost and what it unlocks."""

import statistics

from trainers.reports import numbers, pictures, repeats, tables
from trainers.reports.experiments import points
from trainers.reports.sections import Section
from trainers.reports.tables import Cell, Column, Table

PLAN = "zero_blocks"


def section(run):
    """The section, or None without the plan.

    Args:
        run: a `RunHistory`.
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
            _seen(run, found),
        ),
    )


def name(each):
    """What a line of a noise is called."""
    if not each.point["noise"]:
        return "no noise"
    return f"{each.point['noise_kind']} {each.point['noise']:g}"


def _figure(run, found):
    apart = []
    for each in found:
        steps, values = points.logged(run, each.stage, "eval", "symmetry")
        apart.append({"name": name(each), "x": steps, "y": values})
    return pictures.chart(
        "zero_blocks",
        "A self-fused model with noise of several kinds and sizes in its zero blocks.",
        "All start from the same small model and see the same batches. The size of a noise is its "
        "standard deviation over the root mean square of the source's weight.",
        "Two line charts over steps, accuracy and distance of the copies, for "
        f"{', '.join(map(name, found))}.",
        (
            points.accuracies(found, name),
            pictures.panel("How far the copies have come apart", points.STEPS, "Distance", apart),
        ),
    )


def _table(run, found):
    columns = (
        Column("kind", "Noise", align="left"),
        Column("sigma", "σ"),
        Column("start", "Right after the fusion", "Accuracy, %"),
        Column("end", "End", "Accuracy, %"),
        Column("loss_per_token", "Loss, token, at the end"),
        Column("gain", "Below no noise", "Loss, token, at the end"),
        Column("seeds", "Seeds"),
        Column("steps", "Steps"),
        Column("distance_start", "Start", "Distance of the copies"),
        Column("distance_end", "End", "Distance of the copies"),
    )
    reference = _without(run, found)
    rows = []
    for each in found:
        stage, point = each.stage, each.point
        ends = points.ends(run, each, "loss_per_token")
        below = points.gains(reference, ends)
        stages = run.repeats_of(stage.base)
        _, apart = points.logged(run, stage, "eval", "symmetry")
        rows.append(
            (
                tables.label(point["noise_kind"] or "none"),
                Cell(f"{point['noise']:g}", point["noise"]),
                repeats.figure([s.curve[0].accuracy for s in stages if s.curve], numbers.percent),
                repeats.figure([s.accuracy for s in stages], numbers.percent),
                repeats.figure(list(ends.values()), _loss),
                repeats.figure(below, _loss) if below else tables.missing("none to compare with"),
                Cell(str(len(ends)), len(ends)),
                tables.figure(stage.steps, numbers.count),
                *(
                    tables.figure(value, _loss, otherwise="not logged")
                    for value in ((apart[0], apart[-1]) if apart else (None, None))
                ),
            )
        )
    return Table(
        "zero_blocks",
        "Noise in the zero blocks: what it costs at once, and where it ends.",
        columns,
        tuple(rows),
        "Means ± population standard deviations where there are several seeds, which have small "
        "models of their own; “below no noise” compares within each seed. The distances are those "
        "of the first seed.",
    )


def _loss(value):
    return f"{value:.4f}"


def _without(run, found):
    """Losses of the runs without noise, by repeat."""
    plain = next((each for each in found if not each.point["noise"]), None)
    return points.ends(run, plain, "loss_per_token") if plain else {}


def _seen(run, found):
    reference = _without(run, found)
    below = {
        name(each): points.gains(reference, points.ends(run, each, "loss_per_token"))
        for each in found
        if each.point["noise"]
    }
    most = max(map(len, below.values()), default=0)
    # Means over other seeds do not compare.
    means = {label: statistics.fmean(each) for label, each in below.items() if len(each) == most}
    if not most or len(means) < 2:
        return "Fewer than two noises have been trained beside a run without noise."
    best, worst = max(means, key=means.get), min(means, key=means.get)
    return (
        f"Over {repeats.seeds(most)}, most below a run without noise at the end: {best} (loss "
        f"{means[best]:+.4f} below on average); least: {worst} ({means[worst]:+.4f}). "
        + ("Another seed may change a hundredth, or the order." if most < 3 else "")
    ).rstrip()
