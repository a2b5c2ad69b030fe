"""The paper's Tables 1 to 4 with the figures of a run.

Figures of the run and of the paper stand in cells of different origin, never in each other's place.
A stage that has repeats is shown by the mean over them.
"""

import statistics

from trainers.reports import comparisons, numbers, paper, repeats, tables
from trainers.reports.comparisons import BASELINE, ancestors, cost_before, own_cost
from trainers.reports.meetings import meetings
from trainers.reports.tables import Cell, Column, Table

SELF_FUSION = "self_fusion"
LARGE_BASELINE = "figure2_1"
_UNKNOWN_SOURCE = "a source is not in this folder"
_THIS = "This run"
_OF_RUN = (
    Column("loss", "Loss, batch", _THIS),
    Column("loss_per_token", "Loss, token", _THIS),
    Column("accuracy", "Acc., %", _THIS),
    Column("flops", "Cost, FLOPs", _THIS),
    Column("device_seconds", "Cost, device-seconds", _THIS),
)


def table_1(run):
    """Loss, accuracy and cost of every plan at its end, beside the paper's Table 1."""
    columns = (
        Column("model", "Model", align="left"),
        *_OF_RUN,
        Column("paper_loss", "Loss, batch", "Paper", origin=tables.PAPER),
        Column("paper_accuracy", "Acc., %", "Paper", origin=tables.PAPER),
        Column("paper_cost", "Cost, TPU hours", "Paper", origin=tables.PAPER),
    )
    no_row = (tables.not_in_paper("none"),) * 3
    rows = [(tables.stage_name(run, BASELINE), *_results(run, BASELINE), *no_row)]
    for row in paper.TABLE_1:
        theirs = (
            tables.paper(row.loss, float(row.loss)),
            tables.paper(row.accuracy),
            tables.paper(row.cost, row.hours, note=row.note),
        )
        rows.append((tables.stage_name(run, row.plan), *_results(run, row.plan), *theirs))
    return Table(
        "table1",
        "Table 1: the ways to a model of the larger size, and what they cost.",
        columns,
        tuple(rows),
        f"This run: at the end of each plan{_steps(run, 'M')}, {_how_often(run, BASELINE)}. "
        f"Paper: {paper.SETTING}; accuracies are means over three runs.",
    )


def table_3(run):
    """Loss, accuracy and cost of the ways to the largest model, beside the paper's Table 3."""
    columns = (
        Column("model", "Setting", align="left"),
        Column("what", "What it is", align="left"),
        *_OF_RUN,
        Column("paper_loss", "Loss, batch", "Paper", origin=tables.PAPER),
        Column("paper_accuracy", "Acc., %", "Paper", origin=tables.PAPER),
    )
    rows = []
    for row in paper.TABLE_3:
        told = tables.label(row.setting, note=row.note)
        ours = _results(run, row.plan) if row.plan else [tables.missing("not told")] * 5
        theirs = tables.paper(row.loss, float(row.loss)), tables.paper(row.accuracy)
        rows.append((told, tables.label(row.what), *ours, *theirs))
    for name, what in paper.POSSIBLE_SETTINGS.items():
        if run.repeats_of(name):
            no_row = (tables.not_in_paper("none"),) * 2
            label = tables.label(name, note="No setting of the paper; its text leaves it possible.")
            rows.append((label, tables.label(what), *_results(run, name), *no_row))
    return Table(
        "table3",
        "Table 3: the ways to the largest model.",
        columns,
        tuple(rows),
        f"This run: at the end of each plan{_steps(run, 'L')}, {_how_often(run, LARGE_BASELINE)}; "
        "costs count every stage. Paper: T5-L of its Table 9, one million steps a model.",
    )


def _results(run, name):
    """Loss, accuracy and cost of a stage at its end, means over its repeats."""
    found = run.repeats_of(name)
    if not found:
        return [tables.missing()] * 5
    return [
        repeats.figure([stage.loss for stage in found], numbers.loss),
        repeats.figure([stage.loss_per_token for stage in found], numbers.loss),
        repeats.figure([stage.accuracy for stage in found], numbers.percent),
        _cost(run, found, "flops", numbers.scientific),
        _cost(run, found, "device_seconds", numbers.seconds),
    ]


def _cost(run, stages, field, style):
    """A sum: what each source has cost, as far as it was fused, and the stage's own cost."""
    sums = []
    for stage in stages:
        shares, own = comparisons.shares(run, stage.name), own_cost(stage)
        if own is None or cost_before(run, stage.name) is None:
            return tables.missing(_UNKNOWN_SOURCE)
        before = [own_cost(run.stages[name]) * shares[name] for name in ancestors(run, stage.name)]
        sums.append([getattr(cost, field) for cost in (*before, own)])
    parts = [statistics.fmean(values) for values in zip(*sums, strict=True)]
    totals = [sum(terms) for terms in sums]
    text = numbers.terms(parts, style, repeats.spread(totals, style))
    return Cell(text, statistics.fmean(totals))


def table_2(run, compared):
    """What baseline and self-fusion need for the same accuracy, beside the paper's Table 2."""
    met = meetings(run, SELF_FUSION)
    ours = _met(run, met) if met else _until_the_baselines(run, compared, BASELINE, SELF_FUSION)
    how = (
        "As in the paper the baseline went on until it was as accurate as self-fusion at its end, "
        f"or to a limit; {repeats.seeds(len(met))}. {_shares_of(met)}"
        if met
        else "This run stops the clock where either reaches the baseline's final accuracy; the "
        "paper let its baseline run on until it met self-fusion."
    )
    return _race(
        run,
        "table2",
        "Table 2: what the same accuracy costs from scratch and by self-fusion.",
        dict(zip((BASELINE, SELF_FUSION), ours, strict=True)),
        paper.TABLE_2,
        how,
    )


def _shares_of(met):
    """What self-fusion has cost over the baseline at the same accuracy, in words."""
    both = [(meeting.fused, meeting.crossing.cost) for meeting in met if meeting.crossing]
    if not both:
        return "The baseline met it with no seed."
    flops = [fused.flops / scratch.flops for fused, scratch in both]
    seconds = [fused.device_seconds / scratch.device_seconds for fused, scratch in both]
    return (
        f"Over the seeds that met, self-fusion took {repeats.spread(flops, numbers.ratio)} of the "
        f"baseline's FLOPs and {repeats.spread(seconds, numbers.ratio)} of its device-seconds; the "
        f"paper's hours give {numbers.ratio(paper.SELF_FUSION_SHARE)}."
    )


def table_4(run):
    """The same for the largest model: from scratch, and a medium one fused with itself."""
    plans = [row.plan for row in paper.TABLE_4]
    compared = comparisons.compare(run, LARGE_BASELINE)
    return _race(
        run,
        "table4",
        "Table 4: what the same accuracy of the largest model costs.",
        dict(zip(plans, _until_the_baselines(run, compared, *plans), strict=True)),
        paper.TABLE_4,
        "This run stops the clock where either reaches setting (1)'s final accuracy; the paper let "
        "(1) run on for 700K steps until it met (5). The paper counts the medium model's million "
        "steps as fusion.",
    )


def _race(run, key, title, ours, theirs, how):
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
    rows = []
    for row in theirs:
        rows.append((tables.stage_name(run, row.plan), tables.label("this run"), *ours[row.plan]))
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
    caption = "Times are device-seconds for this run and TPU v3 4x4 hours for the paper. " + how
    return Table(key, title, columns, tuple(rows), caption)


def _met(run, met):
    """The cells of both arms where the baseline went on until it met the fused one."""
    crossings = [meeting.crossing for meeting in met]
    limit = max(meeting.steps for meeting in met)
    why = f"not reached in {numbers.count(limit)} steps"
    costs = [crossing and crossing.cost for crossing in crossings]
    goal = repeats.figure([meeting.accuracy for meeting in met], numbers.percent)
    scratch = [
        Cell("0 steps", 0),
        Cell("0 s", 0),
        repeats.figure([c and c.step for c in crossings], _steps_text, why),
        repeats.figure([cost and cost.device_seconds for cost in costs], numbers.seconds, why),
        repeats.figure([cost and cost.device_seconds for cost in costs], numbers.seconds, why),
        repeats.figure([cost and cost.flops for cost in costs], numbers.scientific, why),
        goal,
    ]
    stages = run.repeats_of(SELF_FUSION)
    fused = [
        *_fusion(run, SELF_FUSION),
        repeats.figure([stage.steps for stage in stages], _steps_text),
        repeats.figure([stage.device_seconds for stage in stages], numbers.seconds),
        repeats.figure([meeting.fused.device_seconds for meeting in met], numbers.seconds),
        repeats.figure([meeting.fused.flops for meeting in met], numbers.scientific),
        goal,
    ]
    return scratch, fused


def _fusion(run, name):
    """Steps and time of everything that a stage comes from."""
    stages = run.repeats_of(name)
    before = [cost_before(run, stage.name) for stage in stages]
    if None in before:
        return [tables.missing(_UNKNOWN_SOURCE)] * 2
    steps = [
        sum(run.stages[source].steps for source in ancestors(run, stage.name)) for stage in stages
    ]
    return [
        repeats.figure(steps, _steps_text),
        repeats.figure([cost.device_seconds for cost in before], numbers.seconds),
    ]


def _until_the_baselines(run, compared, baseline, fused):
    """The cells of both arms up to the baseline's final accuracy."""
    mine = [c for c in compared if c.plan in {stage.name for stage in run.repeats_of(fused)}]
    stages = run.repeats_of(baseline)
    reached = {c.baseline: c for c in mine if c.baseline_crossing is not None}
    ends = [
        (reached[s.name].baseline_crossing.step, reached[s.name].baseline_crossing.cost)
        if s.name in reached
        else (s.steps, own_cost(s))
        for s in stages
    ]
    goals = [reached[s.name].accuracy if s.name in reached else s.accuracy for s in stages]
    scratch = [tables.missing()] * 7
    if stages:
        costs = [cost for _, cost in ends]
        scratch = [Cell("0 steps", 0), Cell("0 s", 0), *_costs(ends, costs, goals, "not recorded")]
    if not run.repeats_of(fused):
        return scratch, [tables.missing()] * 7
    if any(cost_before(run, stage.name) is None for stage in run.repeats_of(fused)):
        return scratch, [tables.missing(_UNKNOWN_SOURCE)] * 7
    why = next((c.reason for c in mine if c.reason), "no baseline to reach")
    if "reached" in why:
        why += f" in {numbers.count(max(s.steps for s in run.repeats_of(fused)))} steps"
    own = [(c.crossing.step, c.crossing.cost) if c.crossing else (None, None) for c in mine]
    totals = [c.before + c.crossing.cost if c.crossing else None for c in mine]
    if any(cost is not None for cost in totals):
        goals = [c.accuracy for c in mine]
    else:
        goals = [stage.accuracy for stage in run.repeats_of(fused)]
    return scratch, [*_fusion(run, fused), *_costs(own, totals, goals, why)]


def _costs(ends, totals, accuracies, why):
    return [
        repeats.figure([steps for steps, _ in ends], _steps_text, why),
        repeats.figure([cost and cost.device_seconds for _, cost in ends], numbers.seconds, why),
        repeats.figure([cost and cost.device_seconds for cost in totals], numbers.seconds, why),
        repeats.figure([cost and cost.flops for cost in totals], numbers.scientific, why),
        repeats.figure(accuracies, numbers.percent),
    ]


def _steps_text(value):
    return f"{numbers.count(value)} steps"


def _how_often(run, name):
    number = len(run.repeats_of(name))
    if number < 2:
        return "single runs"
    return f"means ± population standard deviations over {repeats.seeds(number)}"


def _steps(run, size):
    """The steps of the fused stages of a size that the paper's tables show, where they agree."""
    names = {row.plan for row in (*paper.TABLE_1, *paper.TABLE_3)}
    steps = {
        stage.steps
        for stage in run.stages.values()
        if stage.size == size and stage.sources and stage.base in names
    }
    return f" ({numbers.count(steps.pop())} steps)" if len(steps) == 1 else ""
