"""Compares plans with the baseline: the share of its compute at which they reach its accuracy.

`DEFINITION` is the same for both arms, so that neither gains by the noise of single evaluations.
The accuracy to reach is not the baseline's best one; the baseline's compute is taken where it gets
there, before its end if it stood still. Where a guard strikes (`trainers.reports.guards`) there is
no ratio. Repeats compare with the baseline of their own repeat. Stages that only vary another one
(a sweep, offsets, noises, fusion steps) have reports of their own and are no arms here.
"""

import dataclasses

from trainers.plans import beyond
from trainers.reports import guards
from trainers.reports.crossings import (
    COSTS,
    Cost,
    Crossing,
    crossing_without_peak,
    first_crossing,
    lasting_crossing,
    with_accuracy,
)
from trainers.runs.history import CONTINUED

BASELINE, LARGE_BASELINE, SELF_FUSION = "baseline", "figure2_1", "self_fusion"
# Plans that vary one stage, or many: what they train has a section of its own.
_VARIATIONS = ("tune", "gains", "offsets", "zero_blocks", "when_to_fuse", *beyond.NAMES)

DEFINITION = (
    "The accuracy to reach is that of the baseline's last evaluation. Either arm reaches it where "
    "the running best of its evaluations first does, on the straight line between two evaluations; "
    "the baseline's compute is taken at that point too. The lasting ratios take the point from "
    "which no later evaluation falls below it, for both arms. The compute of a fused stage starts "
    "at the sum of all the stages that it comes from, each counted once up to the step at which it "
    "was fused. A ratio below 1: the plan is cheaper than training from scratch."
)

_SHOWN = (*COSTS, *(f"lasting_{field}" for field in COSTS))
# Points of a curve from which a ratio can be taken, and the beginnings of the ratios' names.
_FINDS = {"": first_crossing, "lasting_": lasting_crossing, "peakless_": crossing_without_peak}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One plan against the baseline."""

    plan: str  # name of the plan's last stage
    baseline: str  # name of the stage that it is compared with
    # The one to reach, in per cent; None while the baseline is not finished.
    accuracy: float | None = None
    # FLOPs of the plan, all stages counted, over the baseline's; None: see `reason`.
    flops_ratio: float | None = None
    device_seconds_ratio: float | None = None  # the same in device-seconds
    lasting_flops_ratio: float | None = None  # the same where the accuracy is kept
    lasting_device_seconds_ratio: float | None = None  # the same where the accuracy is kept
    crossing: Crossing | None = None  # where either reaches it
    baseline_crossing: Crossing | None = None  # where either reaches it
    before: Cost | None = None  # cost of the stages that the plan's last stage comes from
    reason: str = ""  # why there is no ratio, in a few words; empty where there is one
    struck: tuple[guards.Guard, ...] = ()  # why it is withheld
    # The ratios that guards withhold, by the names of the fields above: to study, not to quote.
    withheld: dict = dataclasses.field(default_factory=dict)

    def to_dict(self):
        """The comparison as an element of `results.json`."""
        fields = ("plan", "baseline", "accuracy", "flops_ratio", "device_seconds_ratio", "withheld")
        clauses = [guard.clause for guard in self.struck]
        return {field: getattr(self, field) for field in fields} | {"guards": clauses}


def own_cost(stage):
    """The cost of the stage itself so far; None where its record does not say."""
    if stage.flops is None or stage.device_seconds is None:
        return None if stage.finished or stage.curve else Cost()
    return Cost(stage.flops, stage.device_seconds)


def ancestors(run, name):
    """Names of all stages that a stage comes from, each once, sources before their fusions."""
    names = {}

    def visit(current):
        for source in run.stages[current].sources if current in run.stages else ():
            visit(source)
            names[source] = True

    visit(name)
    return tuple(names)


def cost_before(run, name):
    """Cost of everything that a stage comes from; None where one of them has no record here."""
    total = Cost()
    for source, share in shares(run, name).items():
        cost = own_cost(run.stages[source]) if source in run.stages else None
        if cost is None:
            return None
        total += cost * share
    return total


def shares(run, name):
    """{ancestor: share of its training that a stage comes from}: all steps cost the same."""
    parts = dict.fromkeys(ancestors(run, name), 0.0)
    for user in (name, *parts):
        stage = run.stages.get(user)
        for source in stage.sources if stage else ():
            steps = run.stages[source].steps if source in run.stages else 0
            share = stage.source_steps.get(source, steps) / steps if steps else 1.0
            parts[source] = max(parts[source], min(1.0, share))
    return parts


def compare(run, baseline=BASELINE):
    """A `Comparison` of every fused stage of the baseline's size with the baseline, if any."""
    baselines = {stage.repeat: stage for stage in run.repeats_of(baseline)}
    left_out = variations(run)
    return tuple(
        _compare(run, baselines[stage.repeat], stage)
        for stage in run.stages.values()
        if stage.sources
        and stage.init != CONTINUED
        and stage.base not in left_out
        and stage.repeat in baselines
        and stage.size == baselines[stage.repeat].size
    )


def variations(run):
    """Names of the stages, in the first repeat, that only serve plans that vary another stage."""
    return run.varied(_VARIATIONS)


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A baseline that continued past its end, and the accuracy of a fused stage at its end."""

    accuracy: float  # the fused stage's, in per cent
    fused: Cost  # the cost of that, all stages counted
    # The point where the baseline reached it, from its start; None if it did not.
    crossing: Crossing | None
    steps: int  # of the baseline in all
    struck: tuple[guards.Guard, ...] = ()  # why the ratio of both costs says nothing


def meetings(run, fused, baseline=BASELINE):
    """A `Meeting` for each repeat of a fused stage whose baseline continued past its end."""
    met = []
    arms = {stage.repeat: stage for stage in run.repeats_of(fused)}
    for stage in run.stages.values():
        first = run.stages.get(stage.sources[0]) if stage.init == CONTINUED else None
        arm = arms.get(stage.repeat)
        if first is None or arm is None or first.base != baseline:
            continue
        before, after = cost_before(run, arm.name), own_cost(arm)
        if before is None or after is None or arm.accuracy is None or own_cost(first) is None:
            continue
        fused, whole = before + after, run.from_its_start(stage)
        ends = [find(whole.curve, arm.accuracy) for find in _FINDS.values()]
        ratios = [fused.flops / end.cost.flops if end and end.cost.flops else None for end in ends]
        struck = _guards(run, arm, whole, arm.accuracy, ratios)
        met.append(Meeting(arm.accuracy, fused, ends[0], whole.steps, tuple(filter(None, struck))))
    return met


def _compare(run, baseline, plan):
    before, evaluations = cost_before(run, plan.name), with_accuracy(baseline.curve)
    result = Comparison(plan.name, baseline.name, before=before)
    if not baseline.finished or not evaluations:
        lacks = "has no evaluation" if baseline.finished else "is not finished"
        return dataclasses.replace(result, reason=f"the baseline {lacks}")
    goal = evaluations[-1].accuracy
    end, crossing = (first_crossing(stage.curve, goal) for stage in (baseline, plan))
    reached = {"accuracy": goal, "crossing": crossing, "baseline_crossing": end}
    result = dataclasses.replace(result, **reached)
    if before is None:
        return dataclasses.replace(result, reason="the cost of one of its sources is not known")
    if not end.cost.flops or not end.cost.device_seconds:
        return dataclasses.replace(result, reason="the baseline's compute is zero at that point")
    ratios = _ratios(before, plan.curve, baseline.curve, goal) if crossing else {}
    struck = (
        guards.not_reached(plan.curve, goal, plan.finished),
        # Device-seconds wobble as FLOPs do: both are proportional to the steps of a stage.
        *_guards(run, plan, baseline, goal, [ratios.get(f"{at}flops") for at in _FINDS]),
    )
    struck = tuple(filter(None, struck))
    named = {f"{name}_ratio": ratio for name, ratio in ratios.items() if name in _SHOWN}
    if not struck:
        return dataclasses.replace(result, **named)
    return dataclasses.replace(result, struck=struck, reason=struck[0].short, withheld=named)


def _guards(run, plan, baseline, goal, ratios):
    """Yields what the guards say of a plan, its baseline, and the ratios at `_FINDS`."""
    sources = [run.stages[name] for name in ancestors(run, plan.name) if name in run.stages]
    yield guards.small_model(sources, goal, plan.curve)
    yield guards.standing(baseline.curve, baseline.learning_rate.get("decay_steps", 0))
    yield guards.one_decay(plan, baseline)
    if ratios[0] is not None:
        yield guards.wobble(*ratios)


def _ratios(before, plan, baseline, goal):
    """{beginning and measure: ratio}, a ratio for each of `_FINDS` and of `COSTS`."""
    ratios = {}
    for name, find in _FINDS.items():
        crossing, end = find(plan, goal), find(baseline, goal)
        for field in COSTS:
            whole = end and getattr(end.cost, field)
            reached = crossing and whole
            ratio = getattr(before + crossing.cost, field) / whole if reached else None
            ratios[f"{name}{field}"] = ratio
    return ratios
