"""Heat maps of fused kernels over time, and how η grows (the paper's Figures 5 and 8).

Which kernels and steps are shown, and what is said of them. Their numbers:
`data`; how they are drawn: `drawings`.
"""

import numpy as np

from trainers.errors import UserError
from trainers.reports import numbers
from trainers.reports.comparisons import variations
from trainers.reports.experiments import offsets, points
from trainers.reports.heatmaps import blocks, data, drawings
from trainers.reports.pictures import Picture
from trainers.runs.history import CONTINUED

# The paper's Figure 5 shows "the first layers' feed forward kernel".
KERNELS = (
    "encoder/block_0/feed_forward/input_projector/kernel",
    "encoder/block_0/self_attention/query/kernel",
)
NOTHING = "No checkpoint of a fused stage could be read, so there are no heat maps."
# Saved steps of a stage that are read at most for the curve of η, spread evenly.
_CURVE = 40


def heat_maps(run, kernels=None, steps=None, rows=6, columns=8):
    """Heat maps and the curve of η for the fused stages of a run.

    Where the run has offsets of the learning rate, these, from the lowest to the highest, as in the
    paper's Figure 5; else all that is fused, but for repeats and stages that only vary another.
    Where kernels or steps are asked for, all fused stages.

    Args:
        run: a `RunHistory`.
        kernels: paths of the weights to show; None shows `KERNELS`, or what comes first where the
            models have none of these.
        steps: saved steps to show in heat maps; None spreads over all of them.
        rows, columns: stages and steps that a picture shows at most, spread evenly.

    Returns:
        A tuple of `Picture` and one of paragraphs; without a good checkpoint of a fused stage
        there is no picture, and a paragraph says so.

    Raises:
        UserError: a kernel that no fused stage has, or a step that none has saved.
    """
    saved, passed_over = _open(run, steps, stages_shown(run, bool(kernels or steps)))
    paragraphs = tuple(f"Passed over: {fault}" for fault in passed_over)
    if not saved:
        return (), (NOTHING, *paragraphs)
    kernels = _choose(saved, kernels)
    shown = []
    for path in kernels:
        having = {
            name: found
            for name, found in saved.items()
            if path in _last(found).axes and (not steps or not found.keys().isdisjoint(steps))
        }
        shown_stages = spread(list(having), rows)
        left_out = ", ".join(name for name in saved if name not in shown_stages)
        if left_out:
            paragraphs += (f"Not among the heat maps of {path}: {left_out}.",)
        if not shown_stages:
            continue
        having = {name: having[name] for name in shown_stages}
        shown += [
            _over_time(data.grid(run, having, path, sorted(steps or _columns(having, columns)))),
            _close_up(data.close_up(run, having, path, steps)),
        ]
    return (*shown, *_growth(data.growth(saved, kernels))), paragraphs


def spread(items, most):
    """At most so many of a list, evenly, the first and the last among them.

    Example:
        >>> spread([1, 2, 3, 4, 5], 3)
        [1, 3, 5]
    """
    if len(items) <= most:
        return list(items)
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]


def stages_shown(run, asked=False):
    """The fused stages whose kernels a report shows.

    Args:
        run: a `RunHistory`.
        asked: whether certain kernels or steps were asked for.
    """
    fused = [s for s in run.stages.values() if s.sources and s.init != CONTINUED]
    if asked:
        return fused
    shifted = sorted(points.shown(run, offsets.PLAN), key=lambda each: each.point["offset"])
    left_out = variations(run)
    plain = [s for s in fused if s.repeat == 1 and s.base not in left_out]
    return [each.stage for each in shifted] or plain


def _open(run, steps, stages):
    """The checkpoints of stages, and what could not be used."""
    saved, passed_over = {}, []
    for stage in stages:
        found, faults = blocks.open_saved(
            run.workdir / stage.name,
            lambda there: sorted({*spread(there, _CURVE), *set(there).intersection(steps or ())}),
        )
        saved |= {stage.name: found} if found else {}
        passed_over += [f"{stage.name}: {fault}" for fault in faults]
    there = sorted({step for found in saved.values() for step in found})
    if saved and steps and not set(steps) & set(there):
        raise UserError(
            "Expected steps at which a fused stage was saved. Received: "
            f"steps={list(steps)}. There are {', '.join(map(str, there))}: choose among these."
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


def _columns(saved, most):
    """Steps for the columns: spread over all, and at least one of every stage."""
    columns = set(spread(sorted({step for steps in saved.values() for step in steps}), most))
    return sorted(columns | {max(steps) for steps in saved.values() if not columns & set(steps)})


def _last(steps):
    return steps[max(steps)]


def _key(kind, path):
    return f"{kind}_{path.removesuffix('/kernel').replace('/', '_')}"


def _over_time(data):
    stages = ", ".join(row["stage"] for row in data["rows"])
    return Picture(
        _key("heatmap", data["kernel"]),
        f"Figure 5: {data['kernel']} over time.",
        "A row for each fused stage, a column for each step that was saved. Colour is the size of "
        "the weights, |w|, 0 the lightest; where a cell stands for several weights, their mean. "
        "A row has one scale; what exceeds it, up to one cell in 200 of a map, is black. Lines: "
        "borders of the sources' blocks. Those on the diagonal were trained before the fusion, "
        "the others, η, began at zero or at small noise." + _gaps(data),
        f"Heat maps of a kernel, a row for each of {stages}, columns for the steps "
        f"{', '.join(numbers.count(step) for step in data['columns'])}.",
        data,
        drawings.draw_grid,
    )


def _close_up(data):
    stages = ", ".join(row["stage"] for row in data["rows"])
    return Picture(
        _key("closeup", data["kernel"]),
        f"Figure 8: {data['kernel']}, whole and where its blocks meet.",
        "Left the whole kernel, with the names of the sources of the blocks on the diagonal; right "
        "the square that is marked in it, where blocks meet, one cell a weight. Both have the "
        "scale beside them." + _gaps(data),
        f"Two heat maps of a kernel, whole and enlarged, for each of {stages}.",
        data,
        drawings.draw_close_up,
    )


def _gaps(data):
    """What is to be said of a picture's colours where weights are NaN or infinite."""
    maps = [
        each["values"]
        for row in data["rows"]
        for each in (row, *row.get("maps", ()))
        if "values" in each
    ]
    finite = all(np.isfinite(each).all() for each in maps if each)
    return "" if finite else " Light blue: NaN or infinite."


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
            drawings.draw_growth,
        ),
    )
