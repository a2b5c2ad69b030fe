"""Noise in the blocks that the fusion property leaves zero: its cost at first, and its gain."""

from trainers.reports import numbers, pictures, tables
from trainers.reports.experiments import points
from trainers.reports.tables import Section

PLAN = "zero_blocks"
_ABOUT = (
    "The paper fills the zero blocks “with a low variance” and gives no number. The copies of a "
    "self-fused model start equal, and while they are equal, it can do no more than the small one. "
    "kf.symmetry is the distance of the copies: 0 where they are equal, about 1.4 where they have "
    "nothing in common."
)
_DISTANCE = "Distance of the copies"


def section(run):
    """The section, or None without the plan."""
    shown = points.trained(run, PLAN, name)
    if not shown:
        return None
    chart = pictures.chart(
        PLAN,
        "A self-fused model with noise of several kinds and sizes in its zero blocks.",
        "All start from the same small model and see the same batches. The size of a noise is its "
        "standard deviation over the root mean square of the source's weight.",
        "Two line charts over steps, accuracy and distance of the copies, for "
        f"{', '.join(point.name for point in shown)}.",
        (
            points.accuracies(shown),
            points.logged_panel(run, shown, "eval", "symmetry", _DISTANCE, "Distance"),
        ),
    )
    without = next((point for point in shown if not point.settings["noise"]), None)
    reference = points.ends(run, without, "loss_per_token")
    return Section(
        "Noise in the zero blocks",
        (chart, _table(run, shown, reference)),
        (_ABOUT, _conclusion(run, shown, reference)),
    )


def name(settings):
    """The name of a noise in charts."""
    return f"{settings['noise_kind']} {settings['noise']:g}" if settings["noise"] else "no noise"


def _table(run, shown, reference):
    def start(point):
        stages = [stage for stage in run.repeats_of(point.stage.base) if stage.curve]
        return tables.mean([stage.curve[0].accuracy for stage in stages], numbers.percent)

    def gain(point):
        gains = points.gains(reference, points.ends(run, point, "loss_per_token"))
        return tables.mean(gains, numbers.fine, "none to compare with")

    def distance(index):
        return points.last(run, "eval", "symmetry", numbers.fine, lambda values: values[index])

    accuracy, loss = "Accuracy, %", "Loss, token, at the end"
    columns = (
        ("kind", "Noise", "", lambda p: tables.label(p.settings["noise_kind"] or "none")),
        ("sigma", "σ", "", points.setting("noise", "{:g}".format)),
        ("start", "Right after the fusion", accuracy, start),
        ("end", "End", accuracy, points.end(run, "accuracy", numbers.percent)),
        ("loss_per_token", loss, "", points.end(run, "loss_per_token", numbers.fine)),
        ("gain", "Below no noise", loss, gain),
        ("seeds", "Seeds", "", points.seeds(run, "loss_per_token")),
        ("steps", "Steps", "", lambda point: tables.figure(point.stage.steps, numbers.count)),
        ("distance_start", "Start", _DISTANCE, distance(0)),
        ("distance_end", "End", _DISTANCE, distance(-1)),
    )
    return tables.tabulate(
        PLAN,
        "Noise in the zero blocks: its cost at first, and the result at the end.",
        shown,
        columns,
        "Means ± population standard deviations where there are several seeds, which have small "
        "models of their own; “below no noise” compares within each seed. The distances are those "
        "of the first seed.",
    )


def _conclusion(run, shown, reference):
    below = {
        point.name: points.gains(reference, points.ends(run, point, "loss_per_token"))
        for point in shown
        if point.settings["noise"]
    }
    means, seeds = points.comparable(below)
    if len(means) < 2:
        return "Fewer than two noises have been trained beside a run without noise."
    best, *_, worst = means
    few = " Another seed may change a hundredth, or the order." if seeds < 3 else ""
    return (
        f"Over {numbers.seeds(seeds)}, most below a run without noise at the end: {best} (loss "
        f"{means[best]:+.4f} below on average); least: {worst} ({means[worst]:+.4f}).{few}"
    )
