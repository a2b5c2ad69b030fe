"""The tables of a pretraining run that the paper has not: comparisons, and the stages."""

from trainers.reports import numbers, paper, repeats, tables
from trainers.reports.paper_tables import SELF_FUSION
from trainers.reports.tables import Column, Table

INITS = {
    "scratch": "from scratch",
    "self_fusion": "self-fusion",
    "fusion_property": "fusion, property",
    "fusion_rule": "fusion, rule",
    "continued": "goes on",
}


def comparison_table(run, comparisons):
    """For each plan, the compute at which it reaches the baseline's final accuracy.

    A plan that was repeated has the mean over its repeats, each against the baseline of its own.
    """
    compared = {}
    for comparison in comparisons:
        name = run.stages[comparison.plan].base
        compared.setdefault(name, []).append(comparison)
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
    rows = tuple(_comparison_row(run, plan, compared.get(plan, [])) for plan in plans)
    number = max(map(len, compared.values()), default=1)
    over = "" if number == 1 else f" Means ± population standard deviations, {number} seeds."
    return Table(
        "comparisons",
        "Compute needed to reach the baseline's final accuracy.",
        columns,
        rows,
        f"Below 1 a plan is cheaper than training from scratch. All its stages are counted.{over}",
    )


def _comparison_row(run, plan, found):
    share = tables.not_in_paper()
    if plan == SELF_FUSION:
        note = "58.4 h over 71.2 h, as its Table 2 prints them; its text says 18 % less time."
        share = tables.paper(
            numbers.ratio(paper.SELF_FUSION_SHARE), paper.SELF_FUSION_SHARE, note=note
        )
    if not found:
        why = tables.NOT_RUN if plan not in run.stages else "no baseline"
        return (tables.label(plan), *[tables.missing(why)] * 9, share)
    reason = next((comparison.reason for comparison in found if comparison.reason), "")
    totals = [
        c.before + c.crossing.cost if c.crossing and c.before is not None else None for c in found
    ]
    scratch = [c.baseline_crossing and c.baseline_crossing.cost for c in found]

    def cell(values, style, why=reason):
        return repeats.figure(list(values), style, otherwise=why)

    def costs(field, style):
        return (
            cell((total and getattr(total, field) for total in totals), style),
            cell((cost and getattr(cost, field) for cost in scratch), style),
            cell((getattr(c, f"{field}_ratio") for c in found), numbers.ratio),
            cell(
                (getattr(c, f"lasting_{field}_ratio") for c in found),
                numbers.ratio,
                reason or "not kept",
            ),
        )

    return (
        tables.stage_name(run, plan),
        cell((c.accuracy for c in found), numbers.percent),
        *costs("flops", numbers.scientific),
        *costs("device_seconds", numbers.seconds),
        share,
    )


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
            tables.stage_name(run, stage.name),
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
