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
    columns = (
        ("stage", "Stage", "", lambda stage: tables.label(stage.name)),
        ("state", "State", "", lambda stage: tables.label(stage.status)),
        ("size", "Size", "", lambda stage: tables.label(stage.size)),
        _field("parameters", "Parameters", numbers.count),
        ("init", "Starts", "", lambda stage: tables.label(INITS.get(stage.init, stage.init))),
        ("sources", "Sources", "", lambda stage: tables.label(", ".join(stage.sources) or "none")),
        _field("learning_rate", "Learning rate at step n", numbers.schedule),
        _field("seed", "Seed", str),
    )
    return tables.tabulate("stages", "Stages: settings.", run.stages.values(), columns)


def results_table(run):
    """A table of the costs and results of each stage, without its sources."""

    def flops(stage):
        return tables.figure(stage.flops, numbers.scientific, note=stage.flops_method or "")

    columns = (
        ("stage", "Stage", "", lambda stage: tables.stage_name(run, stage.name)),
        _field("steps", "Steps", numbers.count),
        _field("tokens", "Tokens", numbers.count),
        ("flops", "FLOPs", "", flops),
        _field("device_seconds", "Device-seconds", numbers.seconds),
        _field("loss", "Loss, batch", numbers.loss),
        _field("loss_per_token", "Loss, token", numbers.loss),
        _field("accuracy", "Acc., %", numbers.percent),
    )
    return tables.tabulate(
        "results",
        "Stages: costs and results of each alone.",
        run.stages.values(),
        columns,
        "Losses in nats; loss and accuracy on the validation batches, teacher-forced.",
    )


def _field(field, title, style):
    """A column of a field of stages."""
    return field, title, "", lambda stage: tables.figure(getattr(stage, field), style)
