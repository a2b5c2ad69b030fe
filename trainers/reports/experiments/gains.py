"""Gains of fusion and of its peers over a tuned baseline at equal compute: the plan `gains`."""

import dataclasses
import statistics

from trainers.plans.arms import ARMS, CONTROL, REFERENCE
from trainers.reports import head_starts, headlines, numbers, pictures, tables
from trainers.reports.comparisons import cost_before, own_cost
from trainers.reports.crossings import COSTS, by_loss, lasting_crossing
from trainers.reports.experiments import points
from trainers.reports.tables import Section
from trainers.runs.history import CONTINUED, RESTARTED

PLAN = "gains"
_TITLE = "Gains at equal compute"
_ABOUT = (
    "Every arm has the same compute, all its stages counted, and a sweep of the same effort: of "
    "its candidates for the learning rate, the one with the lowest loss on the first seed was "
    "trained with the other seeds."
)
_RATIO = (
    "The ratio is the compute from which on the arm is at least as good as the reference at the "
    "end of the same budget, by the loss, over the compute from which on the reference is. Where "
    "the arm ends worse, it is the whole budget over the compute from which on the reference is as "
    "good as that: above 1. An arm and its reference are compared seed by seed. The reference is "
    "the best of those from random weights."
)
_TOO_SMALL = "Where one of them saves compute, the budget is too small for the bigger model."
_AT_ONCE = "What it starts from is there already, so the ratio says nothing of the arm itself."


@dataclasses.dataclass(frozen=True)
class Result:
    """An arm at a budget: its best candidate."""

    arm: str
    budget: int
    point: dict  # of the candidate
    seeds: dict  # repeat to the finished stage
    is_edge: bool  # whether another candidate lies on one side of it only

    @property
    def loss(self):
        """The mean loss over seeds."""
        return statistics.fmean(stage.loss_per_token for stage in self.seeds.values())

    @property
    def rank(self):
        """The most seeds come first, then the lowest loss: a sort key."""
        return -len(self.seeds), self.loss


def section(run):
    """The section, or None without the plan."""
    arms = results(run)
    references = _references(arms)
    rows = [(result, references.get(result.budget)) for result in arms]
    rows = [(result, ratios(run, result, reference)) for result, reference in rows if reference]
    alone = _without_reference(arms, references)
    if not rows:
        return Section(_TITLE, paragraphs=alone) if alone else None
    rows.sort(key=lambda row: (row[0].budget, _mean(row[1]["flops"]), row[0].loss))
    chart, starts = _chart(rows), _head_starts(run, rows, references)
    unequal = []
    for budget in references:
        stages = [s for row, _ in rows if row.budget == budget for s in row.seeds.values()]
        unequal += [points.unequal(run, stages), _unequal_decays(run, stages)]
    return Section(
        _TITLE,
        (*((chart,) if chart else ()), _table(run, rows, references), *starts),
        (
            *(_ABOUT + "".join(unequal), _RATIO, headlines.DEFINITION),
            *((head_starts.DEFINITION,) if starts else ()),
            *_conclusions(rows, references),
            *alone,
        ),
    )


def _unequal_decays(run, stages):
    """A sentence after a space where the decays of stages differ, as those of two commands may."""
    shares = []
    for stage in stages:
        decay, total = stage.learning_rate.get("decay_steps", 0), _total(run, stage)
        if total and total.flops and stage.steps:
            share = decay * stage.flops / stage.steps / total.flops
            shares.append((share, f"{share:.0%} ({stage.name})".replace("%", " %")))
    if not shares or max(shares)[0] - min(shares)[0] <= points.UNEQUAL:
        return ""
    return (
        " The part of it in which the learning rate falls to zero is not equal: from "
        f"{min(shares)[1]} to {max(shares)[1]}. There any loss falls, of models that have learned "
        "no more."
    )


def _without_reference(arms, references):
    """A sentence for each budget that has arms, but none from random weights."""
    budgets = sorted({result.budget for result in arms} - {*references})
    names = {budget: [r.arm for r in arms if r.budget == budget] for budget in budgets}
    return tuple(
        f"Budget {budget} ×: {', '.join(names[budget])}, with nothing from random weights to "
        "compare with yet."
        for budget in budgets
    )


def _head_starts(run, rows, references):
    """The table of the head starts, over the reference of the largest budget."""
    reference = references[max(references)]
    starts = {}
    for result, _ in rows:
        pairs = [
            (stage, whole)
            for repeat, stage in result.seeds.items()
            if stage.sources and (whole := _whole(run, reference, repeat))
        ]
        if pairs:
            name = f"{result.arm}, {result.budget} ×"
            starts[name] = [head_starts.head_start(run, *pair) for pair in pairs]
    return head_starts.tables_of(starts, "gains_head_starts")


def results(run):
    """A `Result` for each arm and budget of which a candidate is finished."""
    points = run.experiment(PLAN).get("points") or {}
    groups = {}
    for name, point in points.items():
        if point.get("arm") in ARMS:
            stages = [stage for stage in run.repeats_of(name) if stage.finished]
            seeds = {s.repeat: s for s in stages if s.loss_per_token is not None}
            groups.setdefault((point["arm"], point["budget"]), []).append((point, seeds))
    chosen = []
    for (arm, budget), candidates in groups.items():
        tried = [Result(arm, budget, point, seeds, False) for point, seeds in candidates if seeds]
        if tried:
            best = min(tried, key=lambda result: result.rank)
            chosen.append(dataclasses.replace(best, is_edge=_is_edge(best.point, candidates)))
    return chosen


def _is_edge(best, candidates):
    """True where the sweep has values of a setting on one side of the best one only."""
    for setting in ("warmup_steps", "learning_rate_scale"):
        values = sorted({point[setting] for point, _ in candidates})
        if len(values) > 1 and best[setting] in (values[0], values[-1]):
            return True
    return False


def _references(arms):
    """Budget to the best arm from random weights."""
    best = {}
    for result in sorted(arms, key=lambda result: result.rank):
        if ARMS[result.arm].kind == REFERENCE:
            best.setdefault(result.budget, result)
    return best


def _whole(run, reference, repeat):
    """A seed of a reference with what it restarted from, as one stage; None without their cost."""
    stage = reference.seeds.get(repeat)
    if stage is None or cost_before(run, stage.name) is None:
        return None
    return run.from_its_start(stage, (CONTINUED, RESTARTED))


def ratios(run, result, reference):
    """{cost: {repeat: ratio}} of the seeds that an arm and its reference both have.

    Args:
        run: a `RunHistory`.
        result, reference: a `Result` each.
    """
    values = {field: {} for field in COSTS}
    for repeat, stage in result.seeds.items():
        other, before = _whole(run, reference, repeat), cost_before(run, stage.name)
        if other is None or before is None:
            continue
        curve, base = by_loss(stage.curve), by_loss(other.curve)
        goal = min(curve[-1].accuracy, base[-1].accuracy)
        cost, whole = before + own_cost(stage), lasting_crossing(base, goal)
        if goal == base[-1].accuracy:
            cost = before + lasting_crossing(curve, goal).cost
        for field in COSTS:
            if getattr(whole.cost, field):
                values[field][repeat] = getattr(cost, field) / getattr(whole.cost, field)
    return values


def starts_there(result, reference):
    """True where an arm is as good as the reference's end before it is trained itself."""
    return any(
        by_loss(stage.curve)[0].accuracy >= by_loss(reference.seeds[repeat].curve)[-1].accuracy
        for repeat, stage in result.seeds.items()
        if repeat in reference.seeds
    )


def _mean(ratios):
    return statistics.fmean(ratios.values()) if ratios else float("inf")


def _total(run, stage):
    """Cost of a stage and of all that it comes from."""
    before, after = cost_before(run, stage.name), own_cost(stage)
    return None if before is None or after is None else before + after


def _table(run, rows, references):
    def over_seeds(field, style):
        return lambda row: tables.mean([getattr(s, field) for s in row[0].seeds.values()], style)

    def ratio(field):
        def cell(row):
            values = list(row[1][field].values())
            note = _AT_ONCE if starts_there(row[0], references[row[0].budget]) else ""
            return tables.mean(values, numbers.ratio, "no pair", note)

        return cell

    def interval(row):
        ends = headlines.paired_interval(list(row[1]["flops"].values()))
        text = ends and " to ".join(map(numbers.ratio, ends))
        return tables.figure(text or None, str, otherwise="one seed")

    def spent(row):
        totals = [_total(run, stage) for stage in row[0].seeds.values()]
        return tables.mean([total and total.flops for total in totals], numbers.scientific)

    def setting(name, style):
        note = "At the edge of the sweep: a value beyond it may be better."
        return lambda row: tables.figure(
            row[0].point[name], style, note=note if row[0].is_edge else ""
        )

    columns = (
        ("budget", "Budget", "", lambda row: tables.label(f"{row[0].budget} ×")),
        ("arm", "Arm", "", lambda row: tables.label(row[0].arm)),
        ("about", "What it is", "", lambda row: tables.label(ARMS[row[0].arm].about)),
        ("loss_per_token", "Loss, token", "", over_seeds("loss_per_token", numbers.fine)),
        ("accuracy", "Acc., %", "", over_seeds("accuracy", numbers.percent)),
        ("flops_ratio", "FLOPs", "Ratio", ratio("flops")),
        ("interval", "95 % interval", "Ratio", interval),
        ("device_seconds_ratio", "Device-seconds", "Ratio", ratio("device_seconds")),
        ("seeds", "Seeds", "", lambda row: tables.figure(len(row[0].seeds), str)),
        ("flops", "FLOPs", "Spent", spent),
        ("learning_rate_scale", "Scale", "Chosen", setting("learning_rate_scale", "{:g}".format)),
        ("warmup_steps", "Warm-up k", "Chosen", setting("warmup_steps", numbers.count)),
    )
    return tables.tabulate(
        PLAN,
        "Ways to a big model at equal compute, the cheapest first.",
        rows,
        columns,
        "Budgets are multiples of the compute of the baseline's own run. Means ± population "
        "standard deviations over seeds. FLOPs are those of the models, not of optimizers.",
    )


def _chart(rows):
    """The picture of the ratio over the budget; None of arms that have one budget only."""
    lines = {}
    for result, ratio in rows:
        if ratio["flops"] and ARMS[result.arm].kind != REFERENCE:
            lines.setdefault(result.arm, []).append((result.budget, *_band(ratio["flops"])))
    curves = [
        {"stage": arm, **dict(zip(("x", "y", "low", "high"), zip(*at, strict=True), strict=True))}
        for arm, at in lines.items()
        if len(at) > 1
    ]
    if not curves:
        return None
    names = ", ".join(curve["stage"] for curve in curves)
    return pictures.Picture(
        "gains_over_budget",
        "FLOPs over those of the tuned reference, over the budget.",
        "Below 1 an arm is cheaper. Bands: the lowest and the highest of the seeds.",
        f"A line chart, ratio of FLOPs over budget, of {names}.",
        {"curves": curves},
        _draw,
    )


def _band(ratios):
    values = list(ratios.values())
    return statistics.fmean(values), min(values), max(values)


def _draw(data, theme):
    styles = pictures.line_styles(data["curves"], theme)

    def draw(axes, curves):
        x, y = "Budget, in runs of the baseline", "FLOPs, arm over reference"
        pictures.label_axes(axes, x, y)
        axes.axhline(1, color=theme.muted, linewidth=0.8, zorder=1)
        axes.set_xscale("log")
        budgets = sorted({budget for curve in curves for budget in curve["x"]})
        axes.set_xticks(budgets, [f"{budget} ×" for budget in budgets], minor=False)
        axes.minorticks_off()
        for curve in curves:
            pictures.draw_line(axes, curve["x"], curve["y"], curve["stage"], styles)
            color = styles[curve["stage"]]["color"]
            axes.fill_between(
                curve["x"], curve["low"], curve["high"], color=color, alpha=0.18, linewidth=0
            )

    return pictures.draw_panels([data["curves"]], draw, (pictures.WIDTH, 4.2))


def _conclusions(rows, references):
    """A sentence for each budget: what saved compute, by the intervals, and what did not."""
    texts = []
    for budget, reference in sorted(references.items()):
        others = [row for row in rows if row[0].budget == budget and row[0].arm != reference.arm]
        intervals = {
            row[0].arm: headlines.paired_interval(list(row[1]["flops"].values())) for row in others
        }
        alone = {arm: intervals.pop(arm) for arm in [*intervals] if ARMS[arm].kind == CONTROL}
        listed = _grouped(intervals) or "no other arm"
        texts.append(f"Budget {budget} ×, against {reference.arm}: {listed}.")
        if alone:
            texts[-1] += f" Models that stay smaller: {_grouped(alone)}. {_TOO_SMALL}"
    return texts


def _grouped(intervals):
    """Arms in words, by what their intervals say; empty without any."""
    sure = {arm: ends for arm, ends in intervals.items() if ends}
    groups = {
        "saved compute": [arm for arm, (_, high) in sure.items() if high < 1],
        "cost more": [arm for arm, (low, _) in sure.items() if low > 1],
        "within noise": [arm for arm, (low, high) in sure.items() if low <= 1 <= high],
        "one seed, so unknown": [arm for arm, ends in intervals.items() if not ends],
    }
    return "; ".join(f"{text}: {', '.join(arms)}" for text, arms in groups.items() if arms)
