"""Learning curves of a run: Figure 1 of the paper, and those of the largest models."""

from trainers.reports.comparisons import (
    BASELINE,
    CONTINUED,
    LARGE_BASELINE,
    ancestors,
    compare,
    cost_before,
    variations,
)
from trainers.reports.pictures import (
    OTHER_LINES,
    WIDTH,
    Picture,
    draw_line,
    draw_panels,
    label_axes,
    line_styles,
)

AXES = {
    "steps": "Steps of the stage",
    "flops": "FLOPs, all stages counted",
    "device_seconds": "Device-seconds, all stages counted",
}
# Letter, quantity and caption of Figure 1 over each axis.
_FIGURE_1 = {
    "steps": (
        "a",
        "steps",
        "As in the paper: accuracy and loss on validation data over the steps of each stage. Steps "
        "of a small and of a large model do not cost the same.",
    ),
    "flops": (
        "b",
        "FLOPs",
        "The same over all FLOPs spent: a fused model starts where the training of its sources "
        "ended.",
    ),
    "device_seconds": ("c", "device-seconds", "The same over all device-seconds spent."),
}
FIELDS = {
    "accuracy": "Validation accuracy, %",
    "loss_per_token": "Validation loss, nats per token",
}
# The part of a curve from random weights that does not decide the vertical range.
_WARM_UP_SHARE = 0.05


def curves(run, axis, comparisons=()):
    """The learning curves of a run over one of the `AXES`, and where `comparisons` cross, as data.

    On "flops" and "device_seconds" a fused stage starts at the costs of all stages that it comes
    from, each once; a stage with a missing source has no series there. Stages of plans that vary
    one have figures of their own. The target is that of the first repeat.
    """
    shown = _shown(run, comparisons)
    series = [
        line
        for stage in run.stages.values()
        if stage.curve and stage.name in shown and (line := curve(run, stage, axis))
    ]
    starts = {line["stage"]: line["start"] for line in series}
    crossings, target = {}, None
    for comparison in comparisons:
        if run.stages[comparison.plan].repeat == 1:
            target = comparison.accuracy if target is None else target
            crossings[comparison.baseline] = comparison.baseline_crossing
            crossings[comparison.plan] = comparison.crossing
    places = {
        name: starts[name] + (at.step if axis == "steps" else getattr(at.cost, axis))
        for name, at in crossings.items()
        if at is not None and name in starts
    }
    return {
        "axis": axis,
        "target": target,
        "series": series,
        "crossings": [{"stage": name, "x": x} for name, x in places.items()],
    }


def curve(run, stage, axis):
    """The curve of a stage over one of the `AXES`, as data; None where its start is unknown."""
    if axis == "steps":
        source = run.stages.get(stage.sources[0]) if stage.init == CONTINUED else None
        start, field = source.steps if source else 0, "step"
    else:
        before = cost_before(run, stage.name)
        if before is None:
            return None
        start, field = getattr(before, axis), axis
    line = {"stage": stage.name, "repeat_of": stage.base, "role": _role(run, stage)}
    line |= {"start": start, "x": [start + getattr(point, field) for point in stage.curve]}
    return line | {name: [getattr(p, name) for p in stage.curve] for name in FIELDS}


def _role(run, stage):
    """Returns "plan" for what is compared, "source" for what only serves others."""
    serves = any(stage.name in other.sources for other in run.stages.values())
    compared = stage.name == BASELINE or (stage.name == LARGE_BASELINE and not serves)
    return "plan" if stage.sources or compared else "source"


def _shown(run, comparisons):
    """Names of the stages that a comparison is about; without one, of all but variations."""
    varied = {stage.name for stage in run.stages.values() if stage.base in variations(run)}
    if not comparisons:
        return run.stages.keys() - varied
    names = {name for c in comparisons for name in (c.plan, c.baseline)}
    names |= {name for plan in tuple(names) for name in ancestors(run, plan)}
    names |= {s.name for s in run.stages.values() if s.init == CONTINUED and s.sources[0] in names}
    return (names & run.stages.keys()) - varied


def figure_1(run, comparisons):
    """Figure 1 of the paper, and the same over FLOPs and over device-seconds."""
    seeds, pictures = run.repeat_count, []
    repeated = f" Thin and pale: the other {seeds - 1} of {seeds} seeds." if seeds > 1 else ""
    for axis, (letter, quantity, caption) in _FIGURE_1.items():
        title = f"Figure 1{letter}: learning curves over {quantity}."
        caption += (
            f"{repeated} Circles: where an arm reaches the baseline's final accuracy (the "
            "horizontal line). The vertical range leaves out the first 5 % of the models trained "
            "from scratch."
        )
        pictures.append(_picture(run, f"figure1_{axis}", title, caption, axis, comparisons))
    return tuple(pictures)


def figure_large(run):
    """Learning curves of the ways to the largest model; none where fewer than two were trained."""
    compared = compare(run, LARGE_BASELINE)
    if not compared:
        return ()
    title = "Learning curves of the ways to the largest model, over FLOPs."
    caption = (
        "Settings as in Table 3, all FLOPs counted. Circles: where a setting reaches the final "
        "accuracy of setting (1), the horizontal line."
    )
    return (_picture(run, "curves_large", title, caption, "flops", compared),)


def _picture(run, key, title, caption, axis, comparisons):
    alt = (
        f"Two line charts, validation accuracy and validation loss over {_FIGURE_1[axis][1]}, a "
        f"line for each of {', '.join(sorted(_shown(run, comparisons)))}."
    )
    return Picture(key, title, caption, alt, curves(run, axis, comparisons), draw_curves)


def draw_curves(data, theme, others=OTHER_LINES):
    """Draws accuracy and loss side by side over the axis of the data; `others` as `line_styles`."""
    styles = line_styles(data["series"], theme, others)

    def draw(axes, field):
        draw_panel(axes, data, field, styles, theme)

    return draw_panels(tuple(FIELDS), draw, (WIDTH, 3.9))


def draw_panel(axes, data, field, styles, theme):
    """Draws one field of what `curves` gave, and in its accuracy where the goal is reached."""
    label_axes(axes, AXES[data["axis"]], FIELDS[field])
    for line in data["series"]:
        draw_line(axes, line["x"], line[field], line["stage"], styles)
    _zoom(axes, data["series"], field)
    if field == "accuracy" and data["target"] is not None:
        axes.axhline(data["target"], color=theme.muted, linewidth=0.8, zorder=1)
        for crossing in data["crossings"]:
            color = styles[crossing["stage"]]["color"]
            ring = {"s": 121, "facecolors": "none", "edgecolors": color, "linewidths": 1.5}
            axes.scatter(crossing["x"], data["target"], zorder=6, **ring)


def _zoom(axes, series, field):
    """Takes the vertical range from all but the first steps from scratch."""
    values = []
    for line in series:
        learned = line["x"][0] + _WARM_UP_SHARE * (line["x"][-1] - line["x"][0])
        for x, value in zip(line["x"], line[field], strict=True):
            if value is not None and (x >= learned or line["start"] > 0):
                values.append(value)
    if values and min(values) < max(values):
        margin = 0.04 * (max(values) - min(values))
        axes.set_ylim(min(values) - margin, max(values) + margin)
