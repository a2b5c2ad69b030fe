"""The pictures that a report begins with: accuracy over compute, and the ratio over accuracy."""

from trainers.reports import figures, pictures
from trainers.reports.comparisons import LARGE_BASELINE, compare
from trainers.reports.crossings import COSTS
from trainers.reports.ratio_curves import ratio_curves

# The highest ratio that is drawn: at the accuracies where a plan begins, it may be many times more.
_HIGHEST = 2.5
_MEASURES = {"flops": "FLOPs", "device_seconds": "Device-seconds"}


def opening(run, comparisons):
    """The pictures of a run, given `compare(run)`; none where nothing has been evaluated.

    Where nothing of the baseline's size is compared, they show the largest models.
    """
    comparisons = comparisons or compare(run, LARGE_BASELINE)
    panels = [figures.curves(run, axis, comparisons) for axis in COSTS]
    if not any(panel["series"] for panel in panels):
        return ()
    ratios = ratio_curves(run, comparisons)
    return _accuracy(run, panels), *((_ratio(ratios),) if ratios else ())


def _accuracy(run, panels):
    names = ", ".join(dict.fromkeys(line["stage"] for panel in panels for line in panel["series"]))
    goal = " Horizontal: the baseline's final accuracy; circles: where an arm reaches it."
    repeated = " Thin and pale: further seeds." if run.repeat_count > 1 else ""
    return pictures.Picture(
        "accuracy_over_compute",
        "Accuracy over compute.",
        "A fused model begins at the cost of all that it comes from."
        f"{goal if panels[0]['target'] is not None else ''}{repeated}",
        f"Two line charts, validation accuracy over FLOPs and over device-seconds, of {names}.",
        {"panels": panels},
        _draw_accuracy,
    )


def _draw_accuracy(data, theme):
    styles = pictures.line_styles(
        [line for panel in data["panels"] for line in panel["series"]], theme
    )

    def draw(axes, panel):
        figures.draw_panel(axes, panel, "accuracy", styles, theme)

    return pictures.draw_panels(data["panels"], draw, (pictures.WIDTH, 4.2))


def _ratio(curves):
    seeds = max(curve["seeds"] for curve in curves)
    band = f" Bands: one standard deviation over {seeds} seeds to either side." if seeds > 1 else ""
    names = ", ".join(curve["stage"] for curve in curves)
    return pictures.Picture(
        "ratio_over_accuracy",
        "What an accuracy costs, over what it costs from scratch.",
        "For every accuracy that both arms reached: the compute of the plan, all its stages "
        "counted, over the baseline's. Below 1 the plan is cheaper. Dotted: up to here a model "
        f"that the plan was fused from gets alone. Ratios above {_HIGHEST:g} are cut off.{band}",
        f"Two line charts, the ratio of FLOPs and of device-seconds over accuracy, of {names}.",
        {"curves": curves},
        _draw_ratio,
    )


def _draw_ratio(data, theme):
    styles = pictures.line_styles(data["curves"], theme)

    def draw(axes, field):
        pictures.label_axes(axes, "Accuracy reached, %", f"{_MEASURES[field]}, plan over baseline")
        axes.axhline(1, color=theme.muted, linewidth=0.8, zorder=1)
        highest = 1.2
        for curve in data["curves"]:
            style, ratios = styles[curve["stage"]], curve[field]
            accuracies, means = curve["accuracy"], ratios["mean"]
            pictures.draw_line(axes, accuracies, means, curve["stage"], styles)
            if curve["seeds"] > 1:
                _draw_band(axes, accuracies, ratios, style["color"])
            if curve["sources"] is not None and accuracies[0] < curve["sources"] < accuracies[-1]:
                axes.axvline(curve["sources"], color=style["color"], linewidth=1, linestyle=":")
            highest = max([highest, *(mean for mean in means if mean is not None)])
        axes.set_ylim(0, min(_HIGHEST, 1.05 * highest))

    return pictures.draw_panels(COSTS, draw, (pictures.WIDTH, 3.6))


def _draw_band(axes, accuracies, ratios, color):
    band = [
        (accuracy, mean - deviation, mean + deviation)
        for accuracy, mean, deviation in zip(accuracies, *ratios.values(), strict=True)
        if mean is not None
    ]
    if band:
        axes.fill_between(*zip(*band, strict=True), color=color, alpha=0.18, linewidth=0)
