"""Heat maps of fused kernels over time, and how η grows (the paper's Figures 5 and 8).

Which kernels and steps are shown, as data; how it is drawn: `trainers.reports.heatmap_drawings`.
Nothing of Keras is imported where a run has no fused stage with a checkpoint.
"""

import numpy as np

from trainers.errors import UserError
from trainers.reports import heatmap_drawings, numbers
from trainers.reports.figures import Picture

# The paper's Figure 5 shows "the first layers' feed forward kernel".
KERNELS = (
    "encoder/block_0/feed_forward/input_projector/kernel",
    "encoder/block_0/self_attention/query/kernel",
)
NOTHING = "No fused stage in this folder has a checkpoint, so there are no heat maps."
# Limits of what a report shows and stores; heat maps beyond them are spread evenly.
_COLUMNS, _ROWS, _CURVE = 8, 6, 40
_GRID, _WHOLE = 64, 256
# What is enlarged: values to either side of a border, and at most this share of the kernel.
_REACH, _SHARE = 32, 4
# Of the weights drawn, as many lie within the colour scale.
_WITHIN = 0.995


def pictures(run, kernels=None, steps=None):
    """Heat maps and the curve of η for the fused stages of a run.

    Args:
        run: a `Run`.
        kernels: paths of the weights to show; None shows `KERNELS`, or what comes first where the
            models have none of these.
        steps: saved steps to show; None spreads over all of them.

    Returns:
        A tuple of `Picture` and one of paragraphs; without a good checkpoint of a fused stage
        there is no picture, and a paragraph says so.

    Raises:
        UserError: a kernel that no fused stage has, or a step that none has saved.
    """
    saved, passed_over = _open(run, steps)
    paragraphs = tuple(f"Passed over: {fault}" for fault in passed_over)
    if not saved:
        return (), (NOTHING, *paragraphs)
    kernels = _choose(saved, kernels)
    rows = dict.fromkeys(spread(list(saved), _ROWS))
    if len(rows) < len(saved):
        left_out = ", ".join(name for name in saved if name not in rows)
        paragraphs += (f"Heat maps leave out, for their number: {left_out}.",)
    shown = []
    for path in kernels:
        having = {name: saved[name] for name in rows if path in _last(saved[name]).axes}
        columns = steps or _columns(having)
        shown += [
            _over_time(grid(run, having, path, columns)),
            _close_up(close_up(run, having, path)),
        ]
    return (*shown, *_growth(growth(saved, kernels))), paragraphs


def spread(items, most):
    """At most so many of a list, evenly, the first and the last among them.

    Example:
        >>> spread([1, 2, 3, 4, 5], 3)
        [1, 3, 5]
    """
    if len(items) <= most:
        return list(items)
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]


def grid(run, saved, path, columns):
    """Heat maps of one kernel, stage by step, as data.

    Args:
        run: a `Run`.
        saved: stage → step → `blocks.Saved`.
        path: the kernel.
        columns: steps.

    Returns:
        {"kernel", "axes", "columns", "rows": [{"stage", "schedule", "shape", "borders", "cells",
        "scale", "maps": [{"step", "values"}]}]}. A map is None where the step was not saved;
        `cells` are the borders of the cells, `values` the mean |w| of each.
    """
    rows = []
    for name, steps in saved.items():
        row = _row(run, name, steps, path, _GRID)
        maps = [{"step": step, "values": _map(steps, step, path, row)} for step in columns]
        row["scale"] = _scale([each["values"] for each in maps if each["values"]])
        rows.append(row | {"maps": maps})
    return {"kernel": path, "axes": _axes(saved, path), "columns": list(columns), "rows": rows}


def close_up(run, saved, path):
    """One kernel of every stage at its last saved step, whole and where its blocks meet, as data.

    Args:
        run, saved, path: as for `grid`.

    Returns:
        {"kernel", "axes", "rows": [{… as in `grid`, "step", "sources", "values", "zoom": {"from",
        "to", "values"}}]}; the zoom has |w| of every single weight.
    """
    from trainers.reports import blocks

    rows = []
    for name, steps in saved.items():
        step, last = max(steps), _last(steps)
        row = _row(run, name, steps, path, _WHOLE)
        reach = max(1, min(_REACH, min(row["shape"]) // (2 * _SHARE)))
        region = blocks.corner(row["borders"], reach)
        zoom = {
            "from": [each.start for each in region],
            "to": [each.stop for each in region],
            "values": _rounded(np.abs(np.asarray(last.weights[path][region], np.float64))),
        }
        values = _map(steps, step, path, row)
        row["scale"] = _scale([values, zoom["values"]])
        sources = _sources(run.stages[name], max(map(len, row["borders"])) - 1)
        rows.append(row | {"step": step, "sources": sources, "values": values, "zoom": zoom})
    return {"kernel": path, "axes": _axes(saved, path), "rows": rows}


def growth(saved, kernels):
    """The RMS of η over that of the diagonal blocks at every saved step, as data.

    Args:
        saved: as for `grid`.
        kernels: those that get a panel of their own, besides all kernels together.

    Returns:
        {"panels": [{"kernel": path, or None for all together, "series": [{"stage", "role", "x",
        "eta_rms", "diagonal_rms", "ratio"}]}]}; kernels without η have no panel.
    """
    from trainers.reports import blocks

    found = {
        name: {
            step: {
                path: blocks.eta_sizes(each.weights[path], each.borders(path))
                for path in each.kernels
            }
            for step, each in steps.items()
        }
        for name, steps in saved.items()
    }

    def series(name, path):
        chosen = {
            step: [each[path]] if path else list(each.values())
            for step, each in found[name].items()
            if each and (path is None or path in each)
        }
        sizes = [sum(each, blocks.Sizes()) for each in chosen.values()]
        return {
            "stage": name,
            "role": "plan",
            "x": list(chosen),
            "eta_rms": [each.rms[0] for each in sizes],
            "diagonal_rms": [each.rms[1] for each in sizes],
            "ratio": [each.ratio for each in sizes],
        }

    panels = []
    for path in (None, *kernels):
        lines = [line for line in (series(name, path) for name in saved) if line["x"]]
        if lines:
            panels.append({"kernel": path, "series": lines})
    return {"panels": panels}


def _open(run, steps):
    """The checkpoints of all fused stages, and what could not be used."""
    fused = [stage.name for stage in run.stages.values() if stage.sources]
    if not any(any((run.workdir / name).glob("*/step_*")) for name in fused):
        return {}, ()
    from trainers.reports import blocks

    def wanted(there):
        return [step for step in there if step in steps] if steps else spread(there, _CURVE)

    saved, passed_over = {}, []
    for name in fused:
        found, faults = blocks.open_saved(run.workdir / name, wanted)
        saved |= {name: found} if found else {}
        passed_over += [f"{name}: {fault}" for fault in faults]
    there = {step for found in saved.values() for step in found}
    if steps and not set(steps) <= there and not passed_over:
        raise UserError(
            "Expected steps at which a fused stage was saved. Received: steps="
            f"{sorted(set(steps) - there)}. Look into STAGE/checkpoints for those that there are."
        )
    return saved, passed_over


def _choose(saved, kernels):
    """The kernels to show: those asked for, else the usual ones, else the first."""
    last = [_last(steps) for steps in saved.values()]
    known = dict.fromkeys(path for each in last for path in each.matrices)
    unknown = [path for path in kernels or () if path not in known]
    if unknown:
        raise UserError(
            "Expected kernels of the fused stages, weights of two dimensions such as "
            f"{', '.join(list(known)[:3])}. Received: kernels={unknown}. Choose among these."
        )
    usual = [path for path in KERNELS if path in known]
    return list(dict.fromkeys(kernels or ())) or usual or list(last[0].kernels[:2])


def _columns(saved):
    """Steps for the columns: spread over all, and at least one of every stage."""
    columns = set(spread(sorted({step for steps in saved.values() for step in steps}), _COLUMNS))
    return sorted(columns | {max(steps) for steps in saved.values() if not columns & set(steps)})


def _row(run, name, steps, path, most):
    """What the maps of a stage have in common."""
    from trainers.reports import blocks

    last = _last(steps)
    borders = last.borders(path)
    rate = run.stages[name].learning_rate
    return {
        "stage": name,
        "schedule": numbers.schedule(rate) if rate else "not recorded",
        "shape": list(last.weights[path].shape),
        "borders": [list(each) for each in borders],
        "cells": [list(blocks.bands(each, most)) for each in borders],
    }


def _map(steps, step, path, row):
    """Mean |w| of every cell; None where the step was not saved."""
    from trainers.reports import blocks

    if step not in steps:
        return None
    return _rounded(blocks.cells(steps[step].weights[path], row["cells"]))


def _scale(maps):
    """The ends of a row's colour scale: 0, and what all but a few of the values lie below."""
    values = np.concatenate([np.ravel(np.asarray(each, np.float64)) for each in maps or [[0.0]]])
    values = np.sort(values[np.isfinite(values)])
    high = float(values[int(_WITHIN * (len(values) - 1))]) if len(values) else 0.0
    return {"low": 0.0, "high": high or 1.0, "within": _WITHIN}


def _axes(saved, path):
    axes = _last(next(iter(saved.values()))).axes[path]
    return [f"{name} ({'in' if name in axes.sums else 'out'})" for name in axes.names]


def _sources(stage, count):
    """The names of the sources of each block."""
    if len(stage.sources) == count:
        return list(stage.sources)
    names = stage.sources * count if len(stage.sources) == 1 else ("",) * count
    return [name or f"source {index}" for index, name in enumerate(names[:count], start=1)]


def _last(steps):
    return steps[max(steps)]


def _rounded(values):
    """Nested lists with three digits: enough for a picture, and a fifth of the space."""
    return [[float(f"{value:.3g}") for value in row] for row in values.tolist()]


def _key(kind, path):
    return f"{kind}_{path.removesuffix('/kernel').replace('/', '_')}"


def _over_time(data):
    stages = ", ".join(row["stage"] for row in data["rows"])
    return Picture(
        _key("heatmap", data["kernel"]),
        f"Figure 5: {data['kernel']} over time.",
        "A row for each fused stage, a column for each step that was saved. Colour is the size of "
        "the weights, |w|, 0 the lightest; where a cell stands for several weights, their mean. "
        "A row has one scale; what exceeds it, one cell in 200, has its darkest colour. Lines: "
        "borders of the sources' blocks. Those on the diagonal were trained before the fusion, "
        "the others, η, began at zero or at small noise.",
        f"Heat maps of a kernel, a row for each of {stages}, columns for the steps "
        f"{', '.join(numbers.count(step) for step in data['columns'])}.",
        data,
        heatmap_drawings.draw_grid,
    )


def _close_up(data):
    stages = ", ".join(row["stage"] for row in data["rows"])
    return Picture(
        _key("closeup", data["kernel"]),
        f"Figure 8: {data['kernel']} at the last saved step.",
        "Left the whole kernel, with the names of the sources of the blocks on the diagonal; right "
        "the square that is marked in it, where blocks meet, one cell a weight. Both have the "
        "scale beside them.",
        f"Two heat maps of a kernel, whole and enlarged, for each of {stages}.",
        data,
        heatmap_drawings.draw_close_up,
    )


def _growth(data):
    """The curves of η; nothing where no kernel has η."""
    if not data["panels"]:
        return ()
    return (
        Picture(
            "eta",
            "How η grows: its root mean square over that of the diagonal blocks.",
            "0: nothing of η is used; 1: η is as large as what the sources had learned. All "
            "kernels with two growing axes together: one root mean square over the values of all, "
            "outside their diagonal blocks, over one inside.",
            "Line charts of a ratio over steps, a line for each of "
            f"{', '.join(line['stage'] for line in data['panels'][0]['series'])}.",
            data,
            heatmap_drawings.draw_growth,
        ),
    )
