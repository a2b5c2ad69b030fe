"""The drawing of which stage is fused from which (the paper's Figure 2, for the run at hand)."""

import math

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from trainers.reports import numbers
from trainers.reports.comparisons import variations
from trainers.reports.figures import Picture
from trainers.reports.stage_tables import INITS
from trainers.runs.history import CONTINUED

_WIDTH, _HEIGHT = 2.15, 0.92
_GAP_X, _GAP_Y = 1.35, 0.34
_MARGIN = 0.2
_ABSENT = "not in this folder"


def graph(run):
    """The stages and links of a run, as data; without repeats and stages that only vary another.

    Returns:
        {"nodes": [{"stage", "column", "row", "lines", "fused", "state"}], "links": [{"source",
        "target", "self_fusion"}]}. Columns are depths: a stage stands right of all its sources.
    """
    left_out = variations(run)
    stages = [s for s in run.stages.values() if s.repeat == 1 and s.name not in left_out]
    stages = stages or list(run.stages.values())
    depths = {}
    for stage in stages:
        for source in stage.sources:
            depths.setdefault(source, 0)
        depths[stage.name] = 1 + max((depths[source] for source in stage.sources), default=-1)
    rows = {}
    nodes = []
    for name in sorted(depths, key=lambda name: depths[name]):
        row = rows.setdefault(depths[name], 0)
        rows[depths[name]] += 1
        nodes.append({"stage": name, "column": depths[name], "row": row, **_describe(run, name)})
    links = [
        {"source": source, "target": stage.name, "self_fusion": stage.init == "self_fusion"}
        for stage in stages
        for source in dict.fromkeys(stage.sources)
    ]
    return {"nodes": nodes, "links": links}


def draw_graph(data, theme):
    """Boxes from left to right; a double line is a self-fusion, yellow a fused model."""
    columns = 1 + max(node["column"] for node in data["nodes"])
    heights = [0] * columns
    for node in data["nodes"]:
        heights[node["column"]] += 1
    width = columns * _WIDTH + (columns - 1) * _GAP_X + 2 * _MARGIN
    height = max(heights) * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    places = {}
    for node in data["nodes"]:
        free = height - heights[node["column"]] * (_HEIGHT + _GAP_Y) + _GAP_Y
        x = _MARGIN + node["column"] * (_WIDTH + _GAP_X)
        y = free / 2 + node["row"] * (_HEIGHT + _GAP_Y)
        places[node["stage"]] = (x, y)
        _draw_node(axes, node, x, y, theme)
    arrivals = {}
    for link in data["links"]:
        arrivals.setdefault(link["target"], []).append(link)
    for links in arrivals.values():
        # Arrows that end at the same box share its left side, so that they do not merge.
        links.sort(key=lambda link: places[link["source"]][1])
        for index, link in enumerate(links, start=1):
            x, y = places[link["source"]]
            end_x, end_y = places[link["target"]]
            share = index / (len(links) + 1)
            _draw_link(
                axes,
                (x + _WIDTH + 0.03, y + _HEIGHT / 2),
                (end_x - 0.03, end_y + share * _HEIGHT),
                link["self_fusion"],
                theme,
            )
    return figure


def fusion_graph(run):
    """The drawing of a run's stages.

    Returns:
        A `Picture`.
    """
    data = graph(run)
    links = [f"{link['source']} to {link['target']}" for link in data["links"]]
    return Picture(
        "graph",
        "The stages, and what each is fused from.",
        "Yellow boxes are fused models; the others start from scratch, or go on from a "
        "model as it is; a double line is a self-fusion; a dashed box is not finished, or not in "
        "this folder. Repeats, and stages that only vary another, are left out.",
        f"A graph with the links {', '.join(links) or 'none'}.",
        data,
        draw_graph,
    )


def _describe(run, name):
    stage = run.stages.get(name)
    if stage is None:
        return {"lines": [_ABSENT], "fused": False, "state": _ABSENT}
    size = f"size {stage.size}"
    if stage.parameters:
        size += f", {numbers.scientific(stage.parameters)} parameters"
    trained = f"{numbers.count(stage.steps)} steps{'' if stage.finished else ' so far'}"
    lines = [size, f"{INITS.get(stage.init, stage.init)}, {trained}"]
    fused = bool(stage.sources) and stage.init != CONTINUED
    return {"lines": lines, "fused": fused, "state": stage.status}


def _draw_node(axes, node, x, y, theme):
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            _WIDTH,
            _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=theme.fused if node["fused"] else theme.ground,
            edgecolor=theme.ink,
            linewidth=1.1,
            linestyle="-" if node["state"] == "finished" else (0, (4, 3)),
        )
    )
    middle = x + _WIDTH / 2
    axes.text(
        middle, y + 0.25, node["stage"], ha="center", va="center",
        fontsize=11, fontweight="bold", color=theme.ink,
    )  # fmt: skip
    for index, line in enumerate(node["lines"]):
        axes.text(
            middle, y + 0.51 + 0.22 * index, line, ha="center", va="center",
            fontsize=8.5, color=theme.ink,
        )  # fmt: skip


def _draw_link(axes, start, end, double, theme):
    """An arrow; a self-fusion's is a broad line with a narrow one of the ground's colour in it."""
    tail = start
    if double:
        length = math.dist(start, end)
        tail, line_end = (
            tuple(b - part * (b - a) / length for a, b in zip(start, end, strict=True))
            for part in (0.2, 0.09)
        )
        for width, color in ((4.2, theme.ink), (1.8, theme.ground)):
            axes.plot(
                *zip(start, line_end, strict=True), color=color, linewidth=width,
                solid_capstyle="butt", zorder=2,
            )  # fmt: skip
    axes.add_patch(
        FancyArrowPatch(
            tail,
            end,
            arrowstyle="-|>",
            mutation_scale=15 if double else 12,
            color=theme.ink,
            linewidth=0 if double else 1.1,
            shrinkA=0,
            shrinkB=0,
            zorder=3,
        )
    )
