"""The tables of a pretraining run: comparisons, Table 1, Table 2 and the stages.

Figures of the run and of the paper stand in cells of different origin, never in each other's place.
"""

from trainers.reports import numbers, paper, tables
from trainers.reports.comparisons import BASELINE, ancestors, cost_before, own_cost
from trainers.reports.tables import Cell, Column, Table

SELF_FUSION = "self_fusion"

INITS = {
    "scratch": "from scratch",
    "self_fusion": "self-fusion",
    "fusion_property": "fusion, property",
    "fusion_rule": "fusion, rule",
}

_UNKNOWN_SOURCE = "a source is not in this folder"


def comparison_table(run, comparisons):
    """For each plan, the compute at which it reaches the baseline's final accuracy."""
    compared = {comparison.plan: comparison for comparison in comparisons}
    plans = dict.fromkeys([*(row.plan for row in paper.TABLE_1), *compared])
    columns = (
        Column("plan", "Plan", align="left"),
        Column("accuracy", "Accuracy to reach, %"),
        Column("plan_flops", "Plan", "FLOPs"),
        Column("baseline_flops", "Baseline", "FLOPs"),
        Column("flops_ratio", "Ratio", "FLOPs"),
        Column("lasting_flops_ratio", "Lasting", "FLOPs"),
        Column("plan_device_seconds", "Plan", "Device-seconds"),
        Column("baseline_device_seconds", "Baseline", "Device-seconds"),
        Column("device_seconds_ratio", "Ratio", "Device-seconds"),
        Column("lasting_device_seconds_ratio", "Lasting", "Device-seconds"),
        Column("paper_ratio", "TPU hours, ratio", "Paper", origin=tables.PAPER),
    )
    rows = tuple(_comparison_row(run, plan, compared.get(plan)) for plan in plans)
    return Table(
        "comparisons",
        "Compute needed to reach the baseline's final accuracy.",
        columns,
        rows,
        "Below 1 a plan is cheaper than training from scratch. All its stages are counted.",
    )


def _comparison_row(run, plan, comparison):
    share = tables.not_in_paper()
    if plan == SELF_FUSION:
        note = "58.4 h over 71.2 h, as its Table 2 prints them; its text says 18 % less time."
        share = tables.paper(
            numbers.ratio(paper.SELF_FUSION_SHARE), paper.SELF_FUSION_SHARE, note=note
        )
    if comparison is None:
        why = tables.NOT_RUN if plan not in run.stages else "no baseline"
        return (tables.label(plan), *[tables.missing(why)] * 9, share)
    needed = [None] * 4
    if comparison.crossing and comparison.before is not None:
        total = comparison.before + comparison.crossing.cost
        needed[::2] = total.flops, total.device_seconds
    if comparison.baseline_crossing:
        cost = comparison.baseline_crossing.cost
        needed[1::2] = cost.flops, cost.device_seconds

    def cell(value, style, why=comparison.reason):
        return tables.figure(value, style, otherwise=why)

    return (
        _name(run, plan),
        cell(comparison.accuracy, numbers.percent),
        cell(needed[0], numbers.scientific),
        cell(needed[1], numbers.scientific),
        cell(comparison.flops_ratio, numbers.ratio),
        cell(comparison.lasting_flops_ratio, numbers.ratio, comparison.reason or "not kept"),
        cell(needed[2], numbers.seconds),
        cell(needed[3], numbers.seconds),
        cell(comparison.device_seconds_ratio, numbers.ratio),
        cell(
            comparison.lasting_device_seconds_ratio, numbers.ratio, comparison.reason or "not kept"
        ),
        share,
    )


def table_1(run):
    """Loss, accuracy and cost of every plan at its end, beside the paper's Table 1."""
    this = "This run"
    columns = (
        Column("model", "Model", align="left"),
        Column("loss", "Loss, batch", this),
        Column("loss_per_token", "Loss, token", this),
        Column("accuracy", "Acc., %", this),
        Column("flops", "Cost, FLOPs", this),
        Column("device_seconds", "Cost, device-seconds", this),
        Column("paper_loss", "Loss, batch", "Paper", origin=tables.PAPER),
        Column("paper_accuracy", "Acc., %", "Paper", origin=tables.PAPER),
        Column("paper_cost", "Cost, TPU hours", "Paper", origin=tables.PAPER),
    )
    no_row = (tables.not_in_paper("none"),) * 3
    rows = [(_name(run, BASELINE), *_results(run, BASELINE), *no_row)]
    for row in paper.TABLE_1:
        theirs = (
            tables.paper(row.loss, float(row.loss)),
            tables.paper(row.accuracy),
            tables.paper(row.cost, row.hours, note=row.note),
        )
        rows.append((_name(run, row.plan), *_results(run, row.plan), *theirs))
    return Table(
        "table1",
        "Table 1: the ways to a model of the larger size, and what they cost.",
        columns,
        tuple(rows),
        f"This run: at the end of each plan{_steps(run)}, single runs. Paper: {paper.SETTING}; "
        "accuracies are means over three runs.",
    )


def _results(run, name):
    stage = run.stages.get(name)
    if stage is None:
        return [tables.missing()] * 5
    own = own_cost(stage)
    if cost_before(run, name) is None or own is None:
        costs = [tables.missing(_UNKNOWN_SOURCE)] * 2
    else:
        parts = [own_cost(run.stages[source]) for source in ancestors(run, name)] + [own]
        costs = [
            _sum_cell([part.flops for part in parts], numbers.scientific),
            _sum_cell([part.device_seconds for part in parts], numbers.seconds),
        ]
    return [
        tables.figure(stage.loss, numbers.loss),
        tables.figure(stage.loss_per_token, numbers.loss),
        tables.figure(stage.accuracy, numbers.percent),
        *costs,
    ]


def _sum_cell(parts, style):
    return Cell(numbers.terms(parts, style), sum(parts))


def table_2(run, comparisons):
    """What baseline and self-fusion need for the same accuracy, beside the paper's Table 2."""
    columns = (
        Column("model", "Model", align="left"),
        Column("figures", "Figures of", align="left"),
        Column("fusion_steps", "Steps", "Fusion"),
        Column("fusion_time", "Time", "Fusion"),
        Column("post_steps", "Steps", "Post fusion"),
        Column("post_time", "Time", "Post fusion"),
        Column("cost", "Cost, time", "Together"),
        Column("flops", "Cost, FLOPs", "Together"),
        Column("accuracy", "Acc., %", "Together"),
    )
    compared = next((c for c in comparisons if c.plan == SELF_FUSION), None)
    rows = []
    for row in paper.TABLE_2:
        cells = _baseline_cells if row.plan == BASELINE else _fused_cells
        rows.append((_name(run, row.plan), tables.label("this run"), *cells(run, compared)))
        rows.append(
            (
                tables.paper(row.model),
                tables.paper("paper"),
                tables.paper(row.fusion_steps),
                tables.paper(row.fusion_time),
                tables.paper(row.post_steps),
                tables.paper(row.post_time),
                tables.paper(row.cost, row.hours, note=row.note),
                tables.not_in_paper(),
                tables.paper(row.accuracy),
            )
        )
    return Table(
        "table2",
        "Table 2: what the same accuracy costs from scratch and by self-fusion.",
        columns,
        tuple(rows),
        "Times are device-seconds for this run and TPU v3 4x4 hours for the paper. This run stops "
        "the clock where either reaches the baseline's final accuracy; the paper let its baseline "
        "run on until it met self-fusion.",
    )


def _baseline_cells(run, compared):
    stage = run.stages.get(BASELINE)
    if stage is None:
        return [tables.missing()] * 7
    if compared is not None and compared.baseline_crossing is not None:
        crossing = compared.baseline_crossing
        steps, cost, accuracy = crossing.step, crossing.cost, compared.accuracy
    else:
        steps, cost, accuracy = stage.steps, own_cost(stage), stage.accuracy
    return [
        Cell("0 steps", 0),
        Cell("0 s", 0),
        *_cost_cells(steps, cost, cost, accuracy),
    ]


def _fused_cells(run, compared):
    stage = run.stages.get(SELF_FUSION)
    if stage is None:
        return [tables.missing()] * 7
    before = cost_before(run, SELF_FUSION)
    if before is None:
        return [tables.missing(_UNKNOWN_SOURCE)] * 7
    fusion_steps = sum(run.stages[name].steps for name in ancestors(run, SELF_FUSION))
    fusion = [
        Cell(f"{numbers.count(fusion_steps)} steps", fusion_steps),
        tables.figure(before.device_seconds, numbers.seconds),
    ]
    if compared is None or compared.crossing is None:
        why = compared.reason if compared is not None else "no baseline to reach"
        if stage.accuracy is not None:
            why += f" in {numbers.count(stage.steps)} steps" if "reached" in why else ""
        return [*fusion, *[tables.missing(why)] * 4, tables.figure(stage.accuracy, numbers.percent)]
    cost = compared.crossing.cost
    return [*fusion, *_cost_cells(compared.crossing.step, cost, before + cost, compared.accuracy)]


def _cost_cells(steps, own, total, accuracy):
    return [
        tables.figure(steps, lambda value: f"{numbers.count(value)} steps"),
        tables.figure(own and own.device_seconds, numbers.seconds),
        tables.figure(total and total.device_seconds, numbers.seconds),
        tables.figure(total and total.flops, numbers.scientific),
        tables.figure(accuracy, numbers.percent),
    ]


def stages_table(run):
    """What each stage is."""
    columns = (
        Column("stage", "Stage", align="left"),
        Column("state", "State", align="left"),
        Column("size", "Size", align="left"),
        Column("parameters", "Parameters"),
        Column("init", "Starts", align="left"),
        Column("sources", "Sources", align="left"),
        Column("learning_rate", "Learning rate at step n", align="left"),
        Column("seed", "Seed"),
    )
    rows = tuple(
        (
            tables.label(stage.name),
            tables.label(stage.status),
            tables.label(stage.size),
            tables.figure(stage.parameters, numbers.count),
            tables.label(INITS.get(stage.init, stage.init)),
            tables.label(", ".join(stage.sources) or "none"),
            tables.figure(stage.learning_rate, numbers.schedule),
            tables.figure(stage.seed, str),
        )
        for stage in run.stages.values()
    )
    return Table("stages", "Stages: what was trained.", columns, rows)


def results_table(run):
    """What each stage alone took and came to, without its sources."""
    columns = (
        Column("stage", "Stage", align="left"),
        Column("steps", "Steps"),
        Column("tokens", "Tokens"),
        Column("flops", "FLOPs"),
        Column("device_seconds", "Device-seconds"),
        Column("loss", "Loss, batch"),
        Column("loss_per_token", "Loss, token"),
        Column("accuracy", "Acc., %"),
    )
    rows = tuple(
        (
            _name(run, stage.name),
            tables.figure(stage.steps, numbers.count),
            tables.figure(stage.tokens, numbers.count),
            tables.figure(stage.flops, numbers.scientific, note=stage.flops_method or ""),
            tables.figure(stage.device_seconds, numbers.seconds),
            tables.figure(stage.loss, numbers.loss),
            tables.figure(stage.loss_per_token, numbers.loss),
            tables.figure(stage.accuracy, numbers.percent),
        )
        for stage in run.stages.values()
    )
    return Table(
        "results",
        "Stages: what each alone took and came to.",
        columns,
        rows,
        "Losses in nats; loss and accuracy on the validation batches, teacher-forced.",
    )


def _name(run, name):
    """A stage's name, with a footnote while it is running."""
    stage = run.stages.get(name)
    if stage is None or stage.finished:
        return tables.label(name)
    of = f" of {numbers.count(stage.planned_steps)}" if stage.planned_steps else ""
    return tables.label(
        name, note=f"{name} is still running: its last evaluation is at step {stage.steps:,}{of}."
    )


def _steps(run):
    """The steps of the plans' last stages, where they agree."""
    stages = [stage for stage in run.stages.values() if stage.sources or stage.name == BASELINE]
    steps = {stage.steps for stage in stages}
    return f" ({numbers.count(steps.pop())} steps)" if len(steps) == 1 else ""
