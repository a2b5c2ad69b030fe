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
from trainers.reports.tables import Cell, Table
from trainers.runs.history import RunHistory, StageHistory

_CAPTION = "Device-seconds of pretraining: seconds times devices, evaluations not counted."
_NO_RUN = "The folder of the pretraining run was not given, so the costs are not known."
_NO_FUSION = " No fused stage is in the pretraining run, so no row is matched with the paper's."


@dataclasses.dataclass(frozen=True)
class PretrainingCost:
    """Device-seconds of a model: of the stages before its fusion, and its own."""

    sources: tuple[int, ...]  # steps of each stage that it comes from
    steps: int  # of its own stage
    before: float | None  # device-seconds; None where a record does not say
    after: float | None  # device-seconds; None where a record does not say

    @property
    def total(self) -> float | None:
        """Device-seconds in all."""
        return None if None in (self.before, self.after) else self.before + self.after


def pretraining_cost(pretraining: RunHistory, name: str, steps: int) -> PretrainingCost | None:
    """The cost of a stage after some of its steps; None where there is no such stage."""
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
    """Compute before fine-tuning and the GLUE average that came of it, ours beside the paper's."""
    runs = tuple(runs)
    ours = averages.averages(runs)
    base = _steps_before_fusion(pretraining)
    papers = {(r.model, base and base * r.times_before_fusion): r for r in published.TABLE_6}
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

        return field, title, "This run", of_key

    def seconds(field, title, value):
        return of_cost(field, title, lambda cost: tables.figure(value(cost), numbers.seconds))

    def of_paper(field, title, number=None):
        def of_key(key):
            if key not in papers:
                return tables.not_in_paper()
            text = getattr(papers[key], field)
            return tables.paper(text, number and number(text))

        return f"paper_{field}", title, "Paper (TPU v3 4x4)", of_key

    columns = (
        ("model", "Model", "", name),
        of_cost("fusion_steps", "Steps before", _steps),
        seconds("fusion_time", "Time before", lambda cost: cost.before),
        of_cost("steps", "Steps after", lambda cost: tables.figure(cost.steps, numbers.count)),
        seconds("time", "Time after", lambda cost: cost.after),
        seconds("total", "Total time", lambda cost: cost.total),
        of_cost("ratio", "Over baseline", lambda cost: _ratio(cost, reference)),
        ("glue", "GLUE average", "This run", lambda key: averages.average_cell(ours.get(key))),
        of_paper("fusion", "Fusion"),
        of_paper("post_fusion", "Post fusion"),
        of_paper("time", "Time", lambda text: float(text[:-1])),
        of_paper("glue", "GLUE", float),
    )
    caption = _NO_RUN if pretraining is None else _CAPTION + (_NO_FUSION if base is None else "")
    return tables.tabulate("table6", "Table 6: compute before fine-tuning.", keys, columns, caption)


def _costs(
    runs: Iterable[FineTuning], keys: Iterable[Key], pretraining: RunHistory | None
) -> dict[Key, PretrainingCost | None]:
    """The cost of each model after its steps; a stage that continues another counts its own."""
    if pretraining is None:
        return {}
    stages = {}
    for run in runs:
        steps = run.facts.get("stage_steps", run.pretrain_steps)
        stages[run.model, run.pretrain_steps] = run.stage, steps
    trained = [key for key in keys if key[1] is not None]
    return {key: pretraining_cost(pretraining, *stages.get(key, key)) for key in trained}


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
