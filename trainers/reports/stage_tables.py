"""The tables of a pretraining run that the paper does not have: comparisons, and the stages."""

from trainers.plans import beyond
from trainers.reports import headlines, numbers, paper, tables
from trainers.reports.comparisons import SELF_FUSION
from trainers.reports.crossings import COSTS

INITS = {
    "scratch": "from scratch",
    "self_fusion": "self-fusion",
    "fusion_property": "fusion, property",
    "fusion_rule": "fusion, rule",
    "stacked": "layers stacked",
    "restarted": "restarts",
    "continued": "continues",
}


# Columns of the comparison: the values of `_values`, their style, and text where there is none.
_COMPARED = (
    ("accuracy", "Accuracy to reach, %", "", numbers.percent, ""),
    ("plan_flops", "Plan", "FLOPs", numbers.scientific, ""),
    ("baseline_flops", "Baseline", "FLOPs", numbers.scientific, ""),
    ("flops_ratio", "Ratio", "FLOPs", numbers.ratio, ""),
    ("lasting_flops_ratio", "Lasting", "FLOPs", numbers.ratio, "not kept"),
    ("plan_device_seconds", "Plan", "Device-seconds", numbers.seconds, ""),
    ("baseline_device_seconds", "Baseline", "Device-seconds", numbers.seconds, ""),
    ("device_seconds_ratio", "Ratio", "Device-seconds", numbers.ratio, ""),
    ("lasting_device_seconds_ratio", "Lasting", "Device-seconds", numbers.ratio, "not kept"),
)


def comparison_table(run, comparisons):
    """For each plan, the compute at which it reaches the baseline's final accuracy.

    A plan with repeats has the mean over them, each compared with the baseline of its repeat.
    """
    compared = {row.plan: [] for row in paper.TABLE_1 if row.plan in run.stages}
    compared |= {told.plan: told.repeats for told in headlines.headlines(run, comparisons)}

    def mean(key, style, otherwise):
        def cell(plan):
            if not compared[plan]:
                return tables.missing("no baseline")
            reason = next((c.reason for c in compared[plan] if c.reason), otherwise)
            values = [_values(c)[key] for c in compared[plan]]
            ratios = values if key.endswith("_ratio") and None not in values else ()
            return tables.mean(values, style, reason, headlines.interval_text(ratios))

        return cell

    repeats = max(map(len, compared.values()), default=0)
    over = f" Means ± population standard deviations, {repeats} seeds." if repeats > 1 else ""
    return tables.tabulate(
        "comparisons",
        "Compute needed to reach the baseline's final accuracy.",
        compared,
        (
            ("plan", "Plan", "", lambda plan: tables.stage_name(run, plan)),
            *((*head, mean(head[0], style, why)) for *head, style, why in _COMPARED),
            ("paper_ratio", "TPU hours, ratio", "Paper", _printed),
        ),
        f"Below 1 a plan is cheaper than training from scratch. All its stages are counted.{over}",
    )


def _values(comparison):
    """The fields of a comparison, and the costs at which its arms reach the accuracy."""
    values, crossing = dict(vars(comparison)), comparison.crossing
    baseline = comparison.baseline_crossing and comparison.baseline_crossing.cost
    plan = crossing and comparison.before and comparison.before + crossing.cost
    for arm, cost in (("plan", plan), ("baseline", baseline)):
        values |= {f"{arm}_{field}": cost and getattr(cost, field) for field in COSTS}
    return values


def _printed(plan):
    if plan != SELF_FUSION:
        return tables.not_in_paper()
    share = paper.SELF_FUSION_SHARE
    note = "58.4 h over 71.2 h, as its Table 2 prints them; its text says 18 % less time."
    return tables.paper(numbers.ratio(share), share, note=note)


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
        return tables.figure(stage.flops, numbers.scientific, note=stage.flops_method)

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


def validations_table(run):
    """A table of the further validation sets of stages, but for those of plans that show them.

    None where there are none.
    """
    shown = {
        stage
        for plan in beyond.NAMES
        for stage in (run.experiment(plan).get("facts") or {}).get("stages", ())
    }
    stages = [stage for stage in run.stages.values() if stage.base not in shown and stage.curve]
    rows = [(stage, name) for stage in stages for name in stage.curve[-1].validations]
    if not rows:
        return None

    def at(index, field, style):
        def cell(row):
            stage, name = row
            value = stage.curve[index].validations.get(name, {}).get(field)
            return tables.figure(value, style, "not measured")

        return cell

    columns = (
        ("stage", "Stage", "", lambda row: tables.stage_name(run, row[0].name)),
        ("set", "Validation set", "", lambda row: tables.label(row[1])),
        ("loss_start", "Start", "Loss, token", at(0, "loss_per_token", numbers.loss)),
        ("loss_end", "End", "Loss, token", at(-1, "loss_per_token", numbers.loss)),
        ("accuracy_start", "Start", "Acc., %", at(0, "accuracy", numbers.percent)),
        ("accuracy_end", "End", "Acc., %", at(-1, "accuracy", numbers.percent)),
    )
    title = "Stages: further validation sets, at the first evaluation and at the last."
    return tables.tabulate("validations", title, rows, columns, "Losses in nats.")


def _field(field, title, style):
    """A column of a field of stages."""
    return field, title, "", lambda stage: tables.figure(getattr(stage, field), style)
