"""Plans beyond the paper: losses on each text, or of each length, of every stage."""

from trainers.plans.beyond import ALIKE, FROM_SCRATCH, FUSED
from trainers.reports import head_starts, numbers, pictures, tables
from trainers.reports.comparisons import cost_before, own_cost
from trainers.reports.ends import mean_interval
from trainers.reports.experiments import points
from trainers.reports.tables import Section

_TITLES = {
    "domains": "Sources of two texts",
    "shapes": "Sources of two shapes",
    "lengths": "Sources of shorter sequences",
}
_ABOUT = (
    "Section 6 of the paper leaves this open. The fused models, the one of sources that differ and "
    "the one of sources that do not, and the baseline have the same compute, all stages counted."
)


def section(run, plan):
    """The section of a plan, or None without it."""
    facts = run.experiment(plan).get("facts") or {}
    stages = [run.stages[name] for name in facts.get("stages", ()) if name in run.stages]
    stages = [stage for stage in stages if stage.curve]
    if not stages:
        return None
    sets = _sets(facts["validation"], stages)
    arms = {at.settings["arm"]: at for at in points.trained(run, plan, str)}
    last = [arms[arm].stage for arm in (FUSED, ALIKE, FROM_SCRATCH) if arm in arms]
    about = _ABOUT + points.unequal(run, [stage for stage in last if stage.finished])
    starts = _head_starts(run, plan, arms)
    return Section(
        _TITLES[plan],
        (_chart(run, plan, stages, sets), _table(run, plan, stages, sets), *starts),
        (
            about,
            *(_conclusion(run, arms, *one) for one in sets.items()),
            *((head_starts.DEFINITION,) if starts else ()),
        ),
    )


def _sets(first, stages):
    """Name of each validation set to the function from an evaluation to its loss per token."""
    others = dict.fromkeys(name for stage in stages for name in stage.curve[0].validations)

    def loss(name):
        return lambda at: at.validations.get(name, {}).get("loss_per_token")

    return {first: lambda at: at.loss_per_token} | {name: loss(name) for name in others}


def _chart(run, plan, stages, sets):
    """A panel for each validation set, loss over the FLOPs of all stages."""

    def line(stage, loss):
        before = cost_before(run, stage.name)
        start = before.flops if before else 0.0
        x, y = [start + at.flops for at in stage.curve], [loss(at) for at in stage.curve]
        return {"name": stage.name, "x": x, "y": y}

    panels = []
    for name, loss in sets.items():
        lines = [line(stage, loss) for stage in stages]
        lines = [line for line in lines if any(value is not None for value in line["y"])]
        panels.append(pictures.panel(name, "FLOPs, all stages", "Loss per token, nats", lines))
    return pictures.chart(
        plan,
        f"{_TITLES[plan]}: loss over the FLOPs of all stages.",
        "A fused model starts at the FLOPs of its sources. First seed.",
        f"{len(panels)} line charts, loss over FLOPs, of {', '.join(s.name for s in stages)}.",
        panels,
    )


def _table(run, plan, stages, sets):
    def spent(stage):
        before, after = cost_before(run, stage.name), own_cost(stage)
        whole = before + after if before and after else None
        return tables.figure(whole and whole.flops, numbers.scientific)

    def of_seeds(loss, index):
        def cell(stage):
            seeds = [seed for seed in run.repeats_of(stage.base) if seed.finished or not index]
            values = [loss(seed.curve[index]) for seed in seeds if seed.curve]
            return tables.mean(values, numbers.loss, "not measured")

        return cell

    columns = [
        ("stage", "Stage", "", lambda stage: tables.stage_name(run, stage.name)),
        ("from", "From", "", lambda s: tables.label(" + ".join(s.sources) or "random weights")),
        ("steps", "Steps", "", lambda stage: tables.figure(stage.steps, numbers.count)),
        ("flops", "FLOPs, all stages", "", spent),
    ]
    for number, (name, loss) in enumerate(sets.items()):
        for index, title in ((0, "Start"), (-1, "End")):
            key = f"{title.lower()}_{number}"
            columns.append((key, title, f"Loss, token: {name}", of_seeds(loss, index)))
    return tables.tabulate(
        plan,
        f"{_TITLES[plan]}: the loss of each stage at its start and its end.",
        stages,
        columns,
        "Nats per token. Means ± population standard deviations where there are several seeds.",
    )


def _head_starts(run, plan, arms):
    """The table of the head starts over the baseline, by the run's validation set."""
    seeds = {arm: run.repeats_of(at.stage.base) for arm, at in arms.items() if arm}
    references = {stage.repeat: stage for stage in seeds.get(FROM_SCRATCH, ()) if stage.curve}
    starts = {}
    for arm in (FUSED, ALIKE):
        for stage in seeds.get(arm, ()):
            if stage.curve and stage.repeat in references:
                start = head_starts.head_start(run, stage, references[stage.repeat])
                starts.setdefault(stage.base, []).append(start)
    return head_starts.tables_of(starts, f"{plan}_head_starts")


def _conclusion(run, arms, name, loss):
    """A sentence about a validation set: how far from the baseline the fused models end."""

    def ends(arm):
        seeds = run.repeats_of(arms[arm].stage.base) if arm in arms else ()
        values = {seed.repeat: loss(seed.curve[-1]) for seed in seeds if seed.finished}
        return {repeat: value for repeat, value in values.items() if value is not None}

    texts = []
    for arm, about in ((FUSED, "that differ"), (ALIKE, "that do not")):
        gains = points.gains(ends(arm), ends(FROM_SCRATCH))
        if gains:
            interval = mean_interval(gains)
            low_high = interval and f" ({interval[0]:+.3f} to {interval[1]:+.3f})"
            mean = sum(gains) / len(gains)
            texts.append(f"{mean:+.3f}{low_high or ''} of sources {about}")
    if not texts:
        is_there = FROM_SCRATCH in arms and arms[FROM_SCRATCH].stage.finished
        why = ", which was not evaluated on it" if is_there and not ends(FROM_SCRATCH) else " yet"
        return f"On {name} no fused model can be compared with the baseline{why}."
    seeds = numbers.seeds(max(len(ends(FUSED)), len(ends(ALIKE))))
    return (
        f"Loss per token on {name}, fused minus baseline at the end, {seeds}: {'; '.join(texts)}."
    )
