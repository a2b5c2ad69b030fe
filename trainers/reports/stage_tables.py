"""The tables of a pretraining run that the paper does not have: comparisons, and the stages."""

from trainers.reports import numbers, paper, tables
from trainers.reports.comparisons import SELF_FUSION
from trainers.reports.tables import Column, Table

INITS = {
    "scratch": "from scratch",
    "self_fusion": "self-fusion",
    "fusion_property": "fusion, property",
    "fusion_rule": "fusion, rule",
    "continued": "continues",
}


def comparison_table(run, comparisons):
    """For each plan, the compute at which it reaches the baseline's final accuracy.

    A plan with repeats has the mean over them, each compared with the baseline of its repeat.
    """
    compared = {row.plan: [] for row in paper.TABLE_1}
    for comparison in comparisons:
        compared.setdefault(run.stages[comparison.plan].base, []).append(comparison)
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
    repeats = max(map(len, compared.values()))
    over = f" Means ± population standard deviations, {repeats} seeds." if repeats > 1 else ""
    return Table(
        "comparisons",
        "Compute needed to reach the baseline's final accuracy.",
        columns,
        tuple(_comparison_row(run, plan, repeats) for plan, repeats in compared.items()),
        f"Below 1 a plan is cheaper than training from scratch. All its stages are counted.{over}",
    )


def _comparison_row(run, plan, repeats):
    printed = tables.not_in_paper()
    if plan == SELF_FUSION:
        share = paper.SELF_FUSION_SHARE
        note = "58.4 h over 71.2 h, as its Table 2 prints them; its text says 18 % less time."
        printed = tables.paper(numbers.ratio(share), share, note=note)
    if not repeats:
        why = "no baseline" if plan in run.stages else tables.NOT_RUN
        return (tables.label(plan), *[tables.missing(why)] * 9, printed)
    reason = next((comparison.reason for comparison in repeats if comparison.reason), "")
    ends = [c.crossing and c.before and c.before + c.crossing.cost for c in repeats]
    baseline_ends = [c.baseline_crossing and c.baseline_crossing.cost for c in repeats]
    cells = [tables.mean([c.accuracy for c in repeats], numbers.percent, reason)]
    for field, style in (("flops", numbers.scientific), ("device_seconds", numbers.seconds)):
        for costs in (ends, baseline_ends):
            cells.append(tables.mean([c and getattr(c, field) for c in costs], style, reason))
        for name, why in (("", reason), ("lasting_", reason or "not kept")):
            ratios = [getattr(c, f"{name}{field}_ratio") for c in repeats]
            cells.append(tables.mean(ratios, numbers.ratio, why))
    return (tables.stage_name(run, plan), *cells, printed)


def stages_table(run):
    """A table of the stages and their settings."""

    def text(key, title, value):
        return Column(key, title, align="left"), lambda stage: tables.label(value(stage))

    columns = (
        text("stage", "Stage", lambda stage: stage.name),
        text("state", "State", lambda stage: stage.status),
        text("size", "Size", lambda stage: stage.size),
        _figure("parameters", "Parameters", numbers.count),
        text("init", "Starts", lambda stage: INITS.get(stage.init, stage.init)),
        text("sources", "Sources", lambda stage: ", ".join(stage.sources) or "none"),
        _figure("learning_rate", "Learning rate at step n", numbers.schedule, "left"),
        _figure("seed", "Seed", str),
    )
    return tables.tabulate("stages", "Stages: settings.", run.stages.values(), columns)


def results_table(run):
    """A table of the costs and results of each stage, without its sources."""

    def flops(stage):
        return tables.figure(stage.flops, numbers.scientific, note=stage.flops_method or "")

    columns = (
        (Column("stage", "Stage", align="left"), lambda stage: tables.stage_name(run, stage.name)),
        _figure("steps", "Steps", numbers.count),
        _figure("tokens", "Tokens", numbers.count),
        (Column("flops", "FLOPs"), flops),
        _figure("device_seconds", "Device-seconds", numbers.seconds),
        _figure("loss", "Loss, batch", numbers.loss),
        _figure("loss_per_token", "Loss, token", numbers.loss),
        _figure("accuracy", "Acc., %", numbers.percent),
    )
    return tables.tabulate(
        "results",
        "Stages: costs and results of each alone.",
        run.stages.values(),
        columns,
        "Losses in nats; loss and accuracy on the validation batches, teacher-forced.",
    )


def _figure(field, title, style, align="right"):
    """A column of a field of stages, and its cell."""
    column = Column(field, title, align=align)
    return column, lambda stage: tables.figure(getattr(stage, field), style)
