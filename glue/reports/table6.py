"""Table 6: what a model has cost before it was fine-tuned, from the records of the pretraining.

The cost of a fused model is that of all stages that it comes from, each once, and of its own steps.
After fewer steps than its stage was trained for, its own cost is read off the stage's learning
curve, on the straight line between two evaluations.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from glue.reports import averages, published
from glue.results import Run
from trainers.reports import numbers, tables
from trainers.reports.comparisons import ancestors, cost_before
from trainers.reports.tables import Cell, Column, Table
from trainers.runs.history import RunHistory, StageHistory

_PAPER_COLUMNS = (
    Column("paper_fusion", "Fusion", "Paper (TPU v3 4x4)", origin=tables.PAPER),
    Column("paper_post_fusion", "Post fusion", "Paper (TPU v3 4x4)", origin=tables.PAPER),
    Column("paper_time", "Time", "Paper (TPU v3 4x4)", origin=tables.PAPER),
    Column("paper_glue", "GLUE", "Paper (TPU v3 4x4)", origin=tables.PAPER),
)
_COLUMNS = (
    Column("model", "Model", align="left"),
    Column("fusion_steps", "Steps before", "This run"),
    Column("fusion_time", "Time before", "This run"),
    Column("steps", "Steps after", "This run"),
    Column("time", "Time after", "This run"),
    Column("total", "Total time", "This run"),
    Column("ratio", "Over baseline", "This run"),
    Column("glue", "GLUE average", "This run"),
    *_PAPER_COLUMNS,
)


@dataclasses.dataclass(frozen=True)
class PretrainingCost:
    """Device-seconds of a model: of the stages before its fusion, and its own.

    Args:
        sources: steps of each stage that it comes from.
        steps: of its own stage.
        before, after: device-seconds; None where a record does not say.
    """

    sources: tuple[int, ...]
    steps: int
    before: float | None
    after: float | None

    @property
    def total(self) -> float | None:
        """Device-seconds in all."""
        return None if self.before is None or self.after is None else self.before + self.after


def pretraining_cost(pretraining: RunHistory, name: str, steps: int) -> PretrainingCost | None:
    """What a stage has cost after some of its steps.

    Args:
        pretraining: what `trainers.runs.history.read_run` gives.
        name: the stage.
        steps: of the stage itself.

    Returns:
        The cost, or None where there is no such stage.
    """
    if name not in pretraining.stages:
        return None
    stages = [pretraining.stages.get(source) for source in ancestors(pretraining, name)]
    before = cost_before(pretraining, name)
    return PretrainingCost(
        tuple(stage.steps for stage in stages if stage is not None),
        steps,
        None if before is None else before.device_seconds,
        _own_seconds(pretraining.stages[name], steps),
    )


def table_6(runs: Iterable[Run], pretraining: RunHistory | None) -> Table:
    """Compute before fine-tuning and the GLUE average that came of it, ours beside the paper's.

    Args:
        runs: fine-tunings.
        pretraining: the run that made their models; None where its folder is not known.
    """
    runs = tuple(runs)
    found = averages.averages(runs)
    # A stage that goes on from another one counts its own steps.
    stages = {
        (run.model, run.pretrain_steps): (
            run.stage,
            run.facts.get("stage_steps", run.pretrain_steps),
        )
        for run in runs
    }
    base = _steps_before_fusion(pretraining)
    pairs = {(row.model, base and base * row.times_before_fusion): row for row in published.TABLE_6}
    wanted = [*pairs, *(key for key in sorted(found, key=_order) if key not in pairs)]
    costs = {
        (model, steps): pretraining_cost(pretraining, *stages.get((model, steps), (model, steps)))
        for model, steps in wanted
        if pretraining is not None and steps is not None
    }
    reference = costs.get(next(iter(pairs)))
    rows = tuple(
        (
            tables.label(key[0] if key[1] is None else f"{key[0]}, {numbers.count(key[1])} steps"),
            *_ours(costs.get(key), reference, "not recorded" if key in found else "not run"),
            averages.average_cell(found.get(key)),
            *_papers(pairs.get(key)),
        )
        for key in wanted
    )
    caption = "Device-seconds of pretraining: seconds times devices, evaluations not counted."
    if pretraining is None:
        caption = "The folder of the pretraining run was not given, so the costs are not known."
    elif base is None:
        caption += (
            " No fused stage is in the pretraining run, so no row is matched with the paper's."
        )
    return Table("table6", "Table 6: compute before fine-tuning.", _COLUMNS, rows, caption)


def _order(key: tuple[str, int]) -> tuple:
    return (*averages.model_order(key[0]), key[1])


def _steps_before_fusion(pretraining: RunHistory | None) -> int | None:
    """K: the steps of the longest stage that was fused; None where nothing was."""
    if pretraining is None:
        return None
    stages = pretraining.stages
    fused = [name for stage in stages.values() for name in stage.sources if name in stages]
    return max((stages[name].steps for name in fused), default=None)


def _own_seconds(stage: StageHistory, steps: int) -> float | None:
    if steps == 0:
        return 0.0
    points = {0: 0.0, **{point.step: point.device_seconds for point in stage.curve}}
    if stage.device_seconds is not None:
        points[stage.steps] = stage.device_seconds
    if steps > max(points):
        return None
    return float(np.interp(steps, sorted(points), [points[step] for step in sorted(points)]))


def _ours(cost: PretrainingCost | None, reference, why: str) -> tuple[Cell, ...]:
    if cost is None:
        return (tables.missing(why),) * 6
    ratio = None
    if reference is not None and reference.total and cost.total is not None:
        ratio = cost.total / reference.total
    return (
        Cell(_steps(cost.sources), sum(cost.sources)),
        tables.figure(cost.before, numbers.seconds),
        tables.figure(cost.steps, numbers.count),
        tables.figure(cost.after, numbers.seconds),
        tables.figure(cost.total, numbers.seconds),
        tables.figure(ratio, numbers.ratio, otherwise="not known"),
    )


def _steps(sources: tuple[int, ...]) -> str:
    """Steps of the sources: "0", "3,000", "2 × 3,000", "3,000 + 2,000"."""
    if len(sources) > 1 and len(set(sources)) == 1:
        return f"{len(sources)} × {numbers.count(sources[0])}"
    return " + ".join(map(numbers.count, sources)) or "0"


def _papers(row: published.Table6Row | None) -> tuple[Cell, ...]:
    if row is None:
        return (tables.not_in_paper(),) * len(_PAPER_COLUMNS)
    return (
        tables.paper(row.fusion),
        tables.paper(row.post_fusion),
        tables.paper(row.time, float(row.time.removesuffix("h"))),
        tables.paper(row.glue, float(row.glue)),
    )
