"""A page that shows several runs side by side: curves over compute, settings that differ, ends.

Of each run it has the stages that no other stage starts from, those that only vary another one
aside. Costs are those of all stages that a stage comes from, each counted once.
"""

import functools
from pathlib import Path

from trainers.reports import differing, figures, numbers, page, summary, tables
from trainers.reports.comparisons import cost_before, own_cost, variations
from trainers.reports.pictures import CHART_LINES, Picture
from trainers.reports.tables import Section

KIND = "comparison"
"""The `kind` of such a report."""


def comparison(runs):
    """The report of several runs.

    Args:
        runs: `RunHistory` of each, in the order in which they are shown; at least two.

    Returns:
        A `Report`.
    """
    named = dict(zip(names([run.workdir for run in runs]), runs, strict=True))
    finals = {name: final_stages(run) for name, run in named.items()}
    picture, hidden = _curves(named, finals)
    warnings = differing.incomparable(named)
    ends = _ends_table(named, finals)
    return page.Report(
        "Deep Fusion: runs side by side",
        (_told(named), *warnings),
        (Section("Ends", (ends,), hidden), Section("Settings that differ", *_settings(named))),
        {"runs": [_data(name, run, finals[name]) for name, run in named.items()]},
        tuple((f"Command of {name}", _command(run)) for name, run in named.items()),
        picture,
        KIND,
    )


def names(workdirs):
    """Returns the shortest ends of paths that tell them apart.

    Example:
        >>> names(["runs/a", "runs/b"]), names(["first/w", "second/w"])
        (['a', 'b'], ['first/w', 'second/w'])
    """
    parts = [Path(workdir).resolve().parts for workdir in workdirs]
    for length in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(path[-length:]) for path in parts]
        if len(set(ends)) == len(ends):
            break
    return ends


def final_stages(run):
    """The stages of a run that no other one starts from; repeats are stages of their own."""
    used = {source for stage in run.stages.values() for source in stage.sources}
    varied = variations(run)
    finals = [stage for name, stage in run.stages.items() if name not in used]
    # A folder of nothing but a sweep is shown all the same.
    return [stage for stage in finals if stage.base not in varied] or finals


def _told(named):
    *most, last = named
    corpora = dict.fromkeys(summary.corpus(run.settings) for run in named.values())
    return f"{', '.join(most)} and {last}: T5 models that were trained on {'; '.join(corpora)}."


def _labels(name, stages):
    """{stage: its name in pictures}: that of the run alone where it has one."""
    bases = {stage.base for stage in stages}
    return {
        stage.name: name if len(bases) == 1 and stage.repeat == 1 else f"{name}: {stage.name}"
        for stage in stages
    }


def _curves(named, finals):
    """The picture of the curves, and a sentence for each stage that has none."""
    series, hidden = [], []
    for name, run in named.items():
        labels = _labels(name, finals[name])
        for stage in finals[name]:
            line = figures.curve(run, stage, "flops") if stage.curve else None
            if line is None:
                lacks = "the cost of what it comes from is not known" if stage.curve else "no point"
                hidden.append(f"{stage.name} of {name} has no curve: {lacks}.")
                continue
            base = run.stages.get(stage.base, stage)
            same = {"stage": labels[stage.name], "repeat_of": labels.get(base.name, ""), "role": ""}
            series.append(line | same | {"run": name, "name": stage.name})
    if not series:
        return (), tuple(hidden)
    shown = ", ".join(line["stage"] for line in series)
    repeated = any(stage.repeat > 1 for stages in finals.values() for stage in stages)
    return (
        Picture(
            "runs_over_flops",
            "Accuracy and loss over compute.",
            "On validation data, over all FLOPs spent: a fused model starts at the cost of all "
            f"that it comes from.{' Thin and pale: further seeds.' if repeated else ''} The "
            "vertical range leaves out the first 5 % of models trained from scratch.",
            f"Two line charts, validation accuracy and loss over FLOPs, of {shown}.",
            {"axis": "flops", "target": None, "series": series, "crossings": []},
            functools.partial(figures.draw_curves, others=CHART_LINES),
        ),
    ), tuple(hidden)


def total_cost(run, stage):
    """The `Cost` of a stage and of all that it comes from; None where one is not known."""
    before, own = cost_before(run, stage.name), own_cost(stage)
    return None if before is None or own is None else before + own


def _ends_table(named, finals):
    rows = [(name, run, stage) for name, run in named.items() for stage in finals[name]]

    def field(key, title, style):
        return key, title, "", lambda row: tables.figure(getattr(row[2], key), style)

    def cost(key, title, style):
        def cell(row):
            total = total_cost(row[1], row[2])
            return tables.figure(total and getattr(total, key), style, otherwise="not known")

        return key, title, "With all sources", cell

    return tables.tabulate(
        "ends",
        "What each run reached, and what that cost.",
        rows,
        (
            ("run", "Run", "", lambda row: tables.label(row[0])),
            ("stage", "Stage", "", lambda row: tables.stage_name(row[1], row[2].name)),
            field("parameters", "Parameters", numbers.count),
            field("steps", "Steps", numbers.count),
            field("accuracy", "Acc., %", numbers.percent),
            field("loss_per_token", "Loss, token", numbers.fine),
            cost("flops", "FLOPs", numbers.scientific),
            cost("device_seconds", "Device-seconds", numbers.seconds),
        ),
        "Steps are those of the stage alone. Losses in nats; loss and accuracy on the validation "
        "batches, teacher-forced.",
    )


def _settings(named):
    """Blocks and paragraphs of the section of settings."""
    rows, alone = differing.settings(named), differing.alone(named)
    if not rows:
        return (), (*alone, "All settings that are compared are the same.")
    columns = (
        ("setting", "Setting", "", lambda row: tables.label(row[0])),
        ("stage", "Stage", "", lambda row: tables.label(row[1])),
        *(
            (f"run{index}", name, "", functools.partial(_value, name=name))
            for index, name in enumerate(named)
        ),
    )
    title = "Settings in which the runs differ."
    table = tables.tabulate("settings", title, rows, columns, "All others are the same.")
    return (table,), alone


def _value(row, name):
    value = row[2][name]
    if value in (differing.ABSENT, differing.NO_STAGE):
        return tables.missing(value)
    return tables.label(differing.text(value))


def _command(run):
    return run.settings.get("command") or "not recorded"


def _data(name, run, finals):
    costs = {stage.name: total_cost(run, stage) for stage in finals}
    return {
        "name": name,
        "workdir": str(run.workdir),
        "finals": [
            stage.to_dict() | {"total": cost and vars(cost)}
            for stage, cost in zip(finals, costs.values(), strict=True)
        ],
    }
