"""The paper's Tables 1 to 4 with the values of a run.

Values of the run and of the paper stand in cells of different origin. A stage that has repeats is
shown by the mean over them.
"""

import statistics

from trainers.reports import comparisons, numbers, paper, tables
from trainers.reports.comparisons import (
    BASELINE,
    LARGE_BASELINE,
    SELF_FUSION,
    ancestors,
    cost_before,
    meetings,
    own_cost,
)
from trainers.reports.crossings import Cost, Crossing
from trainers.reports.tables import Cell, Column, Table

_UNKNOWN_SOURCE = "a source is not in this folder"
_RACE = (
    ("model", "Model"),
    ("figures", "Figures of"),
    ("fusion_steps", "Steps", "Fusion"),
    ("fusion_time", "Time", "Fusion"),
    ("post_steps", "Steps", "Post fusion"),
    ("post_time", "Time", "Post fusion"),
    ("cost", "Cost, time", "Together"),
    ("flops", "Cost, FLOPs", "Together"),
    ("accuracy", "Acc., %", "Together"),
)
_NO_FUSION = (Cell("0 steps", 0), Cell("0 s", 0))


def of_run(run, compared):
    """{number: function that makes the table} of the tables with a row for a fused stage."""
    makers = {
        1: lambda: table_1(run),
        2: lambda: table_2(run, compared),
        3: lambda: table_3(run),
        4: lambda: table_4(run),
    }
    fused = {stage.base for stage in run.stages.values() if stage.sources}
    return {
        number: makers[number]
        for number, rows in paper.TABLES.items()
        if fused & {row.plan for row in rows}
    }


def table_1(run):
    """Loss, accuracy and cost of every plan at its end, beside the paper's Table 1."""
    rows = [paper.Row(BASELINE, BASELINE, ""), *paper.TABLE_1]
    columns = (
        ("model", "Model", "", lambda row: tables.stage_name(run, row.plan)),
        *_results(run),
        *_PRINTED,
        _printed("cost", "Cost, TPU hours", lambda row: (row.cost, row.hours, row.note)),
    )
    return tables.tabulate(
        "table1",
        "Table 1: the ways to a model of the larger size, and what they cost.",
        rows,
        columns,
        f"This run: at the end of each plan{_steps(run, 'M')}, {_repeats(run, BASELINE)}. "
        f"Paper: {paper.SETTING}; accuracies are means over three runs.",
    )


def table_3(run):
    """Loss, accuracy and cost of the ways to the largest model, beside the paper's Table 3."""
    possible = [row for row in paper.POSSIBLE_SETTINGS if run.repeats_of(row.plan)]
    columns = (
        ("model", "Setting", "", lambda row: tables.label(row.model, note=row.note)),
        ("what", "Description", "", lambda row: tables.label(row.description)),
        *_results(run),
        *_PRINTED,
    )
    return tables.tabulate(
        "table3",
        "Table 3: the ways to the largest model.",
        [*paper.TABLE_3, *possible],
        columns,
        f"This run: at the end of each plan{_steps(run, 'L')}, {_repeats(run, LARGE_BASELINE)}; "
        "costs count every stage. Paper: T5-L of its Table 9, one million steps per model.",
    )


def _printed(key, title, values):
    """A column of the paper, of the text, number and note that it prints for a row."""

    def cell(row):
        text, *others = values(row)
        return tables.paper(text, *others) if text else tables.not_in_paper("none")

    return f"paper_{key}", title, "Paper", cell


_PRINTED = (
    _printed("loss", "Loss, batch", lambda row: (row.loss, float(row.loss or 0))),
    _printed("accuracy", "Acc., %", lambda row: (row.accuracy,)),
)


def _results(run):
    """Columns of loss, accuracy and cost of a row's stage at its end, means over its repeats."""

    def column(key, title, cell):
        def of_row(row):
            stages = run.repeats_of(row.plan)
            if not stages:
                return tables.missing(tables.NOT_RUN if row.plan else "not described")
            return cell(stages)

        return key, title, "This run", of_row

    def mean(field, title, style):
        return column(field, title, lambda s: tables.mean([getattr(x, field) for x in s], style))

    def cost(field, title, style):
        return column(field, title, lambda stages: _cost(run, stages, field, style))

    return (
        mean("loss", "Loss, batch", numbers.loss),
        mean("loss_per_token", "Loss, token", numbers.loss),
        mean("accuracy", "Acc., %", numbers.percent),
        cost("flops", "Cost, FLOPs", numbers.scientific),
        cost("device_seconds", "Cost, device-seconds", numbers.seconds),
    )


def _cost(run, stages, field, style):
    """A sum: the cost of each source, as far as it was fused, and the stage's own cost."""
    sums = []
    for stage in stages:
        shares, after = comparisons.shares(run, stage.name), own_cost(stage)
        if after is None or cost_before(run, stage.name) is None:
            return tables.missing(_UNKNOWN_SOURCE)
        before = [own_cost(run.stages[name]) * share for name, share in shares.items()]
        sums.append([getattr(cost, field) for cost in (*before, after)])
    terms = [statistics.fmean(values) for values in zip(*sums, strict=True)]
    totals = [sum(values) for values in sums]
    text = numbers.terms(terms, style, numbers.spread(totals, style))
    return Cell(text, statistics.fmean(totals))


def table_2(run, compared):
    """Cost of the same accuracy from scratch and by self-fusion, beside the paper's Table 2."""
    title = "Table 2: what the same accuracy costs from scratch and by self-fusion."
    met = meetings(run, SELF_FUSION)
    if not met:
        rows = _until_baseline(run, compared, BASELINE, SELF_FUSION)
        caption = (
            "This run stops the clock where either reaches the baseline's final accuracy; the "
            "paper let its baseline run on until it met self-fusion."
        )
        return _race(run, "table2", title, paper.TABLE_2, rows, caption)
    why = f"not reached in {numbers.steps(max(meeting.steps for meeting in met))}"
    scratch = [(0, Cost(), meeting.crossing, meeting.accuracy) for meeting in met]
    fused = [
        _arm(run, stage, Crossing(stage.steps, own_cost(stage)), stage.accuracy)
        for stage in run.repeats_of(SELF_FUSION)
    ]
    caption = (
        "As in the paper the baseline ran on until it was as accurate as self-fusion at its end, "
        f"or to a limit; {numbers.seeds(len(met))}. {_shares(met)}"
    )
    rows = _cells(scratch, why), _cells(fused)
    return _race(run, "table2", title, paper.TABLE_2, rows, caption)


def _shares(met):
    """The cost of self-fusion over the baseline's at the same accuracy, in words."""
    both = [meeting for meeting in met if meeting.crossing]
    if not both:
        return "The baseline met it with no seed."
    struck = [guard.clause for meeting in both for guard in meeting.struck]
    if struck:
        return f"No ratio of the costs is given: {struck[0]}."
    costs = [(meeting.fused, meeting.crossing.cost) for meeting in both]
    flops = [fused.flops / scratch.flops for fused, scratch in costs]
    seconds = [fused.device_seconds / scratch.device_seconds for fused, scratch in costs]
    return (
        f"Over the seeds that met, self-fusion took {numbers.spread(flops, numbers.ratio)} of the "
        f"baseline's FLOPs and {numbers.spread(seconds, numbers.ratio)} of its device-seconds; the "
        f"paper's hours give {numbers.ratio(paper.SELF_FUSION_SHARE)}."
    )


def table_4(run):
    """The same for the largest model: from scratch, and a medium one fused with itself."""
    plans = [row.plan for row in paper.TABLE_4]
    rows = _until_baseline(run, comparisons.compare(run, LARGE_BASELINE), *plans)
    return _race(
        run,
        "table4",
        "Table 4: what the same accuracy of the largest model costs.",
        paper.TABLE_4,
        rows,
        "This run stops the clock where either reaches setting (1)'s final accuracy; the paper let "
        "(1) run on for 700K steps until it met (5). The paper counts the medium model's million "
        "steps as fusion.",
    )


def _race(run, key, title, printed, values, caption):
    """A table with a row of the run and a row of the paper for each arm."""
    rows = []
    for row, cells in zip(printed, values, strict=True):
        rows.append((tables.stage_name(run, row.plan), tables.label("this run"), *cells))
        paper_cells = map(tables.paper, (row.model, "paper", *row.fusion, *row.post_fusion))
        cost = tables.paper(row.cost, row.hours, note=row.note)
        rows.append((*paper_cells, cost, tables.not_in_paper(), tables.paper(row.accuracy)))
    units = "Times are device-seconds for this run and TPU v3 4x4 hours for the paper. "
    columns = tuple(Column(*head) for head in _RACE)
    return Table(key, title, columns, tuple(rows), units + caption)


def _until_baseline(run, compared, baseline, fused):
    """The cells of both arms up to the baseline's final accuracy."""
    stages = run.repeats_of(fused)
    compared = {c.plan: c for c in compared if run.stages[c.plan].base == fused}
    reached = {c.baseline: c for c in compared.values() if c.baseline_crossing is not None}
    scratch, grown = [], []
    for stage in run.repeats_of(baseline):
        end, accuracy = Crossing(stage.steps, own_cost(stage)), stage.accuracy
        if stage.name in reached:
            comparison = reached[stage.name]
            end, accuracy = comparison.baseline_crossing, comparison.accuracy
        scratch.append(_arm(run, stage, end, accuracy))
    is_reached = any(c.crossing for c in compared.values())
    for stage in stages:
        comparison = compared.get(stage.name)
        accuracy = comparison and comparison.accuracy if is_reached else stage.accuracy
        grown.append(_arm(run, stage, comparison and comparison.crossing, accuracy))
    reasons = (c.reason for c in compared.values() if c.reason and c.crossing is None)
    why = next(reasons, "no baseline to reach")
    if "reached" in why:
        why += f" in {numbers.steps(max(stage.steps for stage in stages))}"
    return _cells(scratch), _cells(grown, why)


def _arm(run, stage, end, accuracy):
    """A repeat of an arm: steps and cost of its sources, its `Crossing`, and its accuracy there."""
    sources = [run.stages[name] for name in ancestors(run, stage.name) if name in run.stages]
    return sum(s.steps for s in sources), cost_before(run, stage.name), end, accuracy


def _cells(arms, why="not recorded"):
    """Fusion, end, cost and accuracy of an arm: means over what `_arm` gave of its repeats."""
    if not arms:
        return [tables.missing()] * 7
    fusion_steps, before, ends, accuracies = zip(*arms, strict=True)
    if None in before:
        return [tables.missing(_UNKNOWN_SOURCE)] * 7
    after = [end and end.cost for end in ends]
    totals = [cost and start + cost for start, cost in zip(before, after, strict=True)]

    def mean(costs, field, style):
        return tables.mean([cost and getattr(cost, field) for cost in costs], style, why)

    fusion = _NO_FUSION
    if any(fusion_steps):
        time = mean(before, "device_seconds", numbers.seconds)
        fusion = tables.mean(fusion_steps, numbers.steps), time
    return [
        *fusion,
        tables.mean([end and end.step for end in ends], numbers.steps, why),
        mean(after, "device_seconds", numbers.seconds),
        mean(totals, "device_seconds", numbers.seconds),
        mean(totals, "flops", numbers.scientific),
        tables.mean(accuracies, numbers.percent),
    ]


def _repeats(run, name):
    number = len(run.repeats_of(name))
    if number < 2:
        return "single runs"
    return f"means ± population standard deviations over {numbers.seeds(number)}"


def _steps(run, size):
    """The steps of the fused stages of a size that the paper's tables show, where they agree."""
    names = {row.plan for row in (*paper.TABLE_1, *paper.TABLE_3)}
    steps = {
        stage.steps
        for stage in run.stages.values()
        if stage.size == size and stage.sources and stage.base in names
    }
    return f" ({numbers.steps(steps.pop())})" if len(steps) == 1 else ""
