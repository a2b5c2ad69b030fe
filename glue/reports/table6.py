"""Table 6: the cost of a model before it was fine-tuned, from the records of the pretraining.

The cost of a fused model is that of all stages that it comes from, each once, and of its own steps.
After fewer steps than its stage was trained for, its own cost is read off the stage's learning
curve, on the straight line between two evaluations.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from glue.reports import averages, published
from glue.reports.averages import Key
from glue.results import FineTuning
from trainers.reports import numbers, tables
from trainers.reports.comparisons import ancestors, cost_before
from trainers.reports.tables import Cell, Column, Table
from trainers.runs.history import RunHistory, StageHistory

_CAPTION = "Device-seconds of pretraining: seconds times devices, evaluations not counted."
_NO_RUN = "The folder of the pretraining run was not given, so the costs are not known."
_NO_FUSION = " No fused stage is in the pretraining run, so no row is matched with the paper's."


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
        return None if None in (self.before, self.after) else self.before + self.after


def pretraining_cost(pretraining: RunHistory, name: str, steps: int) -> PretrainingCost | None:
    """The cost of a stage after some of its steps.

    Args:
        pretraining: a pretraining run, as `trainers.runs.history.read_run` returns it.
        name: the stage.
        steps: of the stage itself.

    Returns:
        The cost, or None where there is no such stage.
    """
    stages = pretraining.stages
    if name not in stages:
        return None
    before = cost_before(pretraining, name)
    return PretrainingCost(
        tuple(stages[s].steps for s in ancestors(pretraining, name) if s in stages),
        steps,
        None if before is None else before.device_seconds,
        _own_seconds(stages[name], steps),
    )


def table_6(runs: Iterable[FineTuning], pretraining: RunHistory | None) -> Table:
    """Compute before fine-tuning and the GLUE average that came of it, ours beside the paper's.

    Args:
        runs: fine-tunings.
        pretraining: the run that made their models; None where its folder is not known.
    """
    runs = tuple(runs)
    ours = averages.averages(runs)
    base = _steps_before_fusion(pretraining)
    papers = {
        (row.model, base and base * row.times_before_fusion): row for row in published.TABLE_6
    }
    keys = list(dict.fromkeys([*papers, *ours]))
    costs = _costs(runs, keys, pretraining)
    reference = costs.get(keys[0])

    def name(key):
        return tables.label(key[0]) if key[1] is None else averages.model_label(key)

    def of_cost(field, title, cell):
        def of_key(key):
            if costs.get(key) is None:
                return tables.missing("not recorded" if key in ours else tables.NOT_RUN)
            return cell(costs[key])

        return Column(field, title, "This run"), of_key

    def seconds(field, title, attribute):
        return of_cost(
            field, title, lambda cost: tables.figure(getattr(cost, attribute), numbers.seconds)
        )

    def of_paper(field, title, cell):
        column = Column(f"paper_{field}", title, "Paper (TPU v3 4x4)", origin=tables.PAPER)
        return column, lambda key: cell(papers[key]) if key in papers else tables.not_in_paper()

    columns = (
        (Column("model", "Model", align="left"), name),
        of_cost("fusion_steps", "Steps before", _steps),
        seconds("fusion_time", "Time before", "before"),
        of_cost("steps", "Steps after", lambda cost: tables.figure(cost.steps, numbers.count)),
        seconds("time", "Time after", "after"),
        seconds("total", "Total time", "total"),
        of_cost("ratio", "Over baseline", lambda cost: _ratio(cost, reference)),
        (
            Column("glue", "GLUE average", "This run"),
            lambda key: averages.average_cell(ours.get(key)),
        ),
        of_paper("fusion", "Fusion", lambda row: tables.paper(row.fusion)),
        of_paper("post_fusion", "Post fusion", lambda row: tables.paper(row.post_fusion)),
        of_paper("time", "Time", lambda row: tables.paper(row.time, float(row.time[:-1]))),
        of_paper("glue", "GLUE", lambda row: tables.paper(row.glue, float(row.glue))),
    )
    caption = _NO_RUN if pretraining is None else _CAPTION + (_NO_FUSION if base is None else "")
    heads, cells = zip(*columns, strict=True)
    rows = tuple(tuple(cell(key) for cell in cells) for key in keys)
    return Table("table6", "Table 6: compute before fine-tuning.", heads, rows, caption)


def _costs(
    runs: Iterable[FineTuning], keys: Iterable[Key], pretraining: RunHistory | None
) -> dict[Key, PretrainingCost | None]:
    """The cost of each model after its steps; a stage that continues another counts its own."""
    if pretraining is None:
        return {}
    stages = {
        (run.model, run.pretrain_steps): (
            run.stage,
            run.facts.get("stage_steps", run.pretrain_steps),
        )
        for run in runs
    }
    return {
        key: pretraining_cost(pretraining, *stages.get(key, key))
        for key in keys
        if key[1] is not None
    }


def _steps_before_fusion(pretraining: RunHistory | None) -> int | None:
    """K: the steps of the longest stage that was fused; None where nothing was."""
    stages = pretraining.stages if pretraining else {}
    fused = [name for stage in stages.values() for name in stage.sources if name in stages]
    return max((stages[name].steps for name in fused), default=None)


def _own_seconds(stage: StageHistory, steps: int) -> float | None:
    if steps == 0:
        return 0.0
    seconds = {0: 0.0, **{point.step: point.device_seconds for point in stage.curve}}
    if stage.device_seconds is not None:
        seconds[stage.steps] = stage.device_seconds
    if steps > max(seconds):
        return None
    return float(np.interp(steps, sorted(seconds), [seconds[step] for step in sorted(seconds)]))


def _ratio(cost: PretrainingCost, reference: PretrainingCost | None) -> Cell:
    ratio = None
    if reference and reference.total and cost.total is not None:
        ratio = cost.total / reference.total
    return tables.figure(ratio, numbers.ratio, otherwise="not known")


def _steps(cost: PretrainingCost) -> Cell:
    """Steps of the sources: "0", "3,000", "2 × 3,000", "3,000 + 2,000"."""
    steps = cost.sources
    text = " + ".join(map(numbers.count, steps)) or "0"
    if len(steps) > 1 and len(set(steps)) == 1:
        text = f"{len(steps)} × {numbers.count(steps[0])}"
    return Cell(text, sum(steps))
