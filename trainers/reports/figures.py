"""Figures: each is data first, then a drawing of nothing but that data.

Lines differ by colour (Okabe and Ito's palette, made for the colour-blind), by dash and by marker.
Every figure is drawn on a light and on a dark ground.
"""

import dataclasses
import io
from collections.abc import Callable

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainers.reports.comparisons import (
    BASELINE,
    CONTINUED,
    ancestors,
    compare,
    cost_before,
    variations,
)


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of the ground and of what is written on it.

    Args:
        swap: colours of lines that are too dim on this ground, and what stands for each.
    """

    name: str
    ground: str
    ink: str
    muted: str
    grid: str
    fused: str
    swap: tuple[tuple[str, str], ...] = ()


# The palette's two blues change places on a dark ground.
_BLUES = (("#0072b2", "#56b4e9"), ("#56b4e9", "#0072b2"))
LIGHT = Theme("light", "#ffffff", "#1a1a1a", "#5f6670", "#dcdfe4", "#fdf0b8")
DARK = Theme("dark", "#15181d", "#ececec", "#a0a7b2", "#343a44", "#5a4d10", _BLUES)

INK = "ink"
MUTED = "muted"
_PLAN_STYLES = {
    BASELINE: (INK, "o", "-"),
    "baseline_longer": (INK, "o", (0, (2, 2))),
    "self_fusion": ("#d55e00", "s", "--"),
    "fusion_property": ("#0072b2", "^", "-."),
    "fusion_rule": ("#009e73", "D", (0, (1, 1.2))),
    "figure2_1": (INK, "H", (0, (1, 1.2))),
}
_OTHER_STYLES = (
    ("#cc79a7", "v", (0, (5, 1))),
    ("#56b4e9", "P", (0, (3, 1, 1, 1, 1, 1))),
    ("#e69f00", "X", (0, (8, 2))),
    ("#009e73", "p", "-"),
    ("#d55e00", "<", "-."),
    ("#0072b2", ">", "--"),
    ("#cc79a7", "*", "-"),
    ("#e69f00", "d", (0, (1, 1.2))),
)
_SOURCE_MARKERS = ("x", "+", "1", "2", "3", "4")
_DPI = 200
_MARKS = 9
_WARM_UP_SHARE = 0.05

AXES = {
    "steps": "Steps of the stage",
    "flops": "FLOPs, all stages counted",
    "device_seconds": "Device-seconds, all stages counted",
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        key: name of its file, without the ending.
        title, caption: what is written beside it.
        alt: what it shows, for those who cannot see it.
        data: everything that is drawn, as it goes into `results.json`.
        draw: function from the data and a `Theme` to a matplotlib `Figure`.
    """

    key: str
    title: str
    caption: str
    alt: str
    data: dict
    draw: Callable[[dict, Theme], Figure]

    def png(self, theme=LIGHT):
        """The picture as the bytes of a PNG file."""
        figure = self.draw(self.data, theme)
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format="png", dpi=_DPI, facecolor=theme.ground, metadata={"Software": None}
        )
        return buffer.getvalue()


def curves(run, axis, comparisons=()):
    """The learning curves of a run over one axis, as data.

    Args:
        run: a `RunHistory`.
        axis: a key of `AXES`. On "flops" and "device_seconds" a fused stage starts at the sum of
            the costs of all stages that it comes from, each once.
        comparisons: what `compare(run)` gave; their crossings are marked.

    Returns:
        {"axis", "target", "series": [{"stage", "repeat_of", "role", "start", "x", "accuracy",
        "loss_per_token"}], "crossings": [{"stage", "x"}]}; a stage whose start is unknown because
        a source is missing has no series on a compute axis. Stages of plans that vary one have
        figures of their own. The target is the first repeat's.
    """
    series = []
    shown = _shown(run, comparisons)
    for stage in run.stages.values():
        start = _start(run, stage.name, axis)
        if start is None or not stage.curve or stage.name not in shown:
            continue
        field = "step" if axis == "steps" else axis
        series.append(
            {
                "stage": stage.name,
                "repeat_of": stage.base,
                "role": _role(run, stage),
                "start": start,
                "x": [start + getattr(point, field) for point in stage.curve],
                "accuracy": [point.accuracy for point in stage.curve],
                "loss_per_token": [point.loss_per_token for point in stage.curve],
            }
        )
    crossings = {}
    comparisons = [c for c in comparisons if run.stages[c.plan].repeat == 1]
    for comparison in comparisons:
        crossings[comparison.baseline] = comparison.baseline_crossing
        crossings[comparison.plan] = comparison.crossing
    drawn = {line["stage"]: line["start"] for line in series}
    return {
        "axis": axis,
        "target": next((c.accuracy for c in comparisons if c.accuracy is not None), None),
        "series": series,
        "crossings": [
            {"stage": name, "x": drawn[name] + _place(crossing, axis)}
            for name, crossing in crossings.items()
            if crossing is not None and name in drawn
        ],
    }


def _shown(run, comparisons):
    """Names of the stages that a comparison is about; without one, of all but variations."""
    if not comparisons:
        left_out = variations(run)
        return {s.name for s in run.stages.values() if s.base not in left_out}
    found = {name for c in comparisons for name in (c.plan, c.baseline)}
    found |= {name for plan in tuple(found) for name in ancestors(run, plan)}
    found |= {s.name for s in run.stages.values() if s.init == CONTINUED and s.sources[0] in found}
    return {name for name in found if name in run.stages} - {
        s.name for s in run.stages.values() if s.base in variations(run)
    }


def draw_curves(data, theme):
    """Accuracy and loss side by side over the axis of the data."""
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = line_styles(data["series"], theme)
    for axes, field, name in (
        (left, "accuracy", "Validation accuracy, %"),
        (right, "loss_per_token", "Validation loss, nats per token"),
    ):
        prepare_axes(axes, theme, AXES[data["axis"]], name)
        for line in data["series"]:
            values = [float("nan") if value is None else value for value in line[field]]
            again = line["stage"] != line["repeat_of"]
            label = f"_{line['stage']}" if again else line["stage"]
            axes.plot(line["x"], values, label=label, **styles[line["stage"]])
        _zoom(axes, data["series"], field)
    if data["target"] is not None:
        left.axhline(data["target"], color=theme.muted, linewidth=0.8, zorder=1)
        for crossing in data["crossings"]:
            left.plot(
                crossing["x"],
                data["target"],
                marker="o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=styles[crossing["stage"]]["color"],
                markeredgewidth=1.5,
                linestyle="none",
                zorder=6,
            )
    legend_below(figure, (left,), theme)
    return figure


def legend_below(figure, panels, theme):
    """Puts one legend of all that some axes show below them; none where nothing is drawn."""
    found = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= {label: handle for label, handle in zip(labels, handles, strict=True)}
    if found:
        figure.legend(
            found.values(),
            found.keys(),
            loc="outside lower center",
            ncols=min(4, len(found)),
            frameon=False,
            labelcolor=theme.ink,
            fontsize=9.5,
            handlelength=3.6,
        )


def figure_large(run):
    """Learning curves of the ways to the largest model; none where fewer than two were trained.

    Returns:
        A tuple of at most one `Picture`.
    """
    compared = compare(run, "figure2_1")
    if not compared:
        return ()
    return (
        Picture(
            "curves_large",
            "Learning curves of the ways to the largest model, over FLOPs.",
            "Settings as in Table 3, all FLOPs counted. Circles: where a setting reaches the final "
            "accuracy of setting (1), the horizontal line.",
            "Two line charts, validation accuracy and validation loss over FLOPs, a line for each "
            f"of {', '.join(sorted(_shown(run, compared)))}.",
            curves(run, "flops", compared),
            draw_curves,
        ),
    )


def figure_1(run, comparisons):
    """Figure 1 of the paper, and the same over FLOPs and over device-seconds.

    Returns:
        A tuple of three `Picture`.
    """
    captions = {
        "steps": "As in the paper: accuracy and loss on validation data over the steps of each "
        "stage. Steps of a small and of a large model do not cost the same.",
        "flops": "The same over all FLOPs spent: a fused model starts where the training of its "
        "sources has ended.",
        "device_seconds": "The same over all device-seconds spent.",
    }
    return tuple(
        Picture(
            f"figure1_{axis}",
            f"Figure 1{letter}: learning curves over {what}.",
            captions[axis]
            + _repeated(run)
            + " Circles: where an arm reaches the baseline's final accuracy (the "
            "horizontal line). The vertical range leaves out the first 5 % of the models trained "
            "from scratch.",
            f"Two line charts, validation accuracy and validation loss over {what}, a line for "
            f"each of {', '.join(sorted(_shown(run, comparisons)))}.",
            curves(run, axis, comparisons),
            draw_curves,
        )
        for axis, letter, what in (
            ("steps", "a", "steps"),
            ("flops", "b", "FLOPs"),
            ("device_seconds", "c", "device-seconds"),
        )
    )


def _repeated(run):
    """What thin lines are, where there are any."""
    number = run.repeat_count
    return f" Thin and pale: the other {number - 1} of {number} seeds." if number > 1 else ""


def _start(run, name, axis):
    if axis == "steps":
        stage = run.stages[name]
        first = run.stages.get(stage.sources[0]) if stage.init == CONTINUED else None
        return first.steps if first else 0
    before = cost_before(run, name)
    return None if before is None else getattr(before, axis)


def _place(crossing, axis):
    return crossing.step if axis == "steps" else getattr(crossing.cost, axis)


def _role(run, stage):
    """ "plan" for what is compared, "source" for what only serves others."""
    if stage.name == BASELINE or stage.sources:
        return "plan"
    serves = any(stage.name in other.sources for other in run.stages.values())
    return "source" if serves or stage.name not in _PLAN_STYLES else "plan"


def line_styles(series, theme):
    """Keyword arguments of a line for every stage.

    Args:
        series: dicts with "stage", "role" ("plan" or "source") and "x"; one with "repeat_of" has
            the style of that line, but thin and pale.
        theme: a `Theme`.
    """
    others, sources = iter(_OTHER_STYLES * len(series)), iter(_SOURCE_MARKERS * len(series))
    colors = {INK: theme.ink, MUTED: theme.muted, **dict(theme.swap)}
    styles = {}
    for line in series:
        first = styles.get(line.get("repeat_of"))
        if first is not None:
            pale = {"linewidth": 0.9, "marker": "none", "alpha": 0.55}
            styles[line["stage"]] = first | pale
            continue
        if line["role"] == "source":
            color, marker, dash, width = MUTED, next(sources), "-", 1.0
        else:
            color, marker, dash = _PLAN_STYLES.get(line["stage"]) or next(others)
            width = 1.9
        styles[line["stage"]] = {
            "color": colors.get(color, color),
            "marker": marker,
            "linestyle": dash,
            "linewidth": width,
            "markersize": 5.5,
            "markevery": max(1, len(line["x"]) // _MARKS),
        }
        if marker not in _SOURCE_MARKERS:
            # A filled marker gets an edge of the ground's colour, so that it stands off its line.
            styles[line["stage"]] |= {"markeredgecolor": theme.ground, "markeredgewidth": 0.6}
    return styles


def prepare_axes(axes, theme, x_name, y_name):
    """Gives axes their names and the colours of the theme."""
    axes.set_facecolor(theme.ground)
    axes.set_xlabel(x_name, color=theme.ink, fontsize=10)
    axes.set_ylabel(y_name, color=theme.ink, fontsize=10)
    axes.tick_params(colors=theme.ink, labelsize=9, length=3)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.get_offset_text().set_color(theme.ink)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 6), useMathText=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)


def _zoom(axes, series, field):
    """Keeps the first steps from scratch, where nothing is learned yet, from ruling the range."""
    seen = []
    for line in series:
        first = line["x"][0] + _WARM_UP_SHARE * (line["x"][-1] - line["x"][0])
        scratch = line["start"] == 0
        for x, value in zip(line["x"], line[field], strict=True):
            if value is not None and (x >= first or not scratch):
                seen.append(value)
    if not seen or min(seen) == max(seen):
        return
    margin = 0.04 * (max(seen) - min(seen))
    axes.set_ylim(min(seen) - margin, max(seen) + margin)
