"""Compares plans with the baseline: the share of its compute at which they reach its accuracy.

`DEFINITION` is the same for both arms, so that neither gains by the noise of single evaluations.
The accuracy to reach is not the baseline's best one; the baseline's compute is taken where it gets
there, before its end if it stood still. Where a ratio and the lasting one differ much, the curves
are too noisy for the comparison. Repeats compare with the baseline of their own repeat. Stages that
only vary another one (a sweep, offsets, noises, fusion steps) have reports of their own and are no
arms here.
"""

import dataclasses

from trainers.runs.history import CONTINUED

BASELINE, LARGE_BASELINE, SELF_FUSION = "baseline", "figure2_1", "self_fusion"
# Plans that vary one stage: what they train is not compared with the baseline.
_VARIATIONS = ("tune", "offsets", "zero_blocks", "when_to_fuse")

DEFINITION = (
    "The accuracy to reach is that of the baseline's last evaluation. Either arm reaches it where "
    "the running best of its evaluations first does, on the straight line between two evaluations; "
    "the baseline's compute is taken at that point too. The lasting ratios take the point from "
    "which no later evaluation falls below it, for both arms. The compute of a fused stage starts "
    "at the sum of all the stages that it comes from, each counted once up to the step at which it "
    "was fused. A ratio below 1: the plan is cheaper than training from scratch."
)


COSTS = ("flops", "device_seconds")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Compute: floating-point operations, and seconds times devices."""

    flops: float = 0.0
    device_seconds: float = 0.0

    def __add__(self, other):
        return Cost(self.flops + other.flops, self.device_seconds + other.device_seconds)

    def __mul__(self, share):
        return Cost(self.flops * share, self.device_seconds * share)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """The point where a curve reaches an accuracy: steps and cost of its own stage alone."""

    step: float
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One plan against the baseline."""

    plan: str  # name of the plan's last stage
    baseline: str  # name of the stage that it is compared with
    # The one to reach, in per cent; None while the baseline is not finished.
    accuracy: float | None = None
    # FLOPs of the plan, all stages counted, over the baseline's; None: not reached.
    flops_ratio: float | None = None
    device_seconds_ratio: float | None = None  # the same in device-seconds
    lasting_flops_ratio: float | None = None  # the same where the accuracy is kept
    lasting_device_seconds_ratio: float | None = None  # the same where the accuracy is kept
    crossing: Crossing | None = None  # where either reaches it
    baseline_crossing: Crossing | None = None  # where either reaches it
    before: Cost | None = None  # cost of the stages that the plan's last stage comes from
    reason: str = ""  # why there is no ratio; empty where there is one

    def to_dict(self):
        """The comparison as an element of `results.json`."""
        fields = ("plan", "baseline", "accuracy", "flops_ratio", "device_seconds_ratio")
        return {field: getattr(self, field) for field in fields}


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


def first_crossing(curve, accuracy):
    """The `Crossing` where the running best of evaluations first reaches an accuracy, or None.

    Example: evaluations 30, 50, 40, 60 at the steps 0, 1, 2, 3 reach 55 at step 2.5, since the
    running best is 30, 50, 50, 60.
    """
    best = previous = None
    for point in _with_accuracy(curve):
        if point.accuracy >= accuracy:
            return _between(previous, best, point, accuracy)
        best = point.accuracy if best is None else max(best, point.accuracy)
        previous = point
    return None


def lasting_crossing(curve, accuracy):
    """The point from which no later evaluation of a curve falls below an accuracy, or None."""
    points = _with_accuracy(curve)
    below = max((i for i, point in enumerate(points) if point.accuracy < accuracy), default=-1)
    if below == len(points) - 1:
        return None
    last = points[below] if below >= 0 else None
    return _between(last, last and last.accuracy, points[below + 1], accuracy)


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
    plans = run.settings.get("experiments") or {}
    points = {name: set(plan.get("points") or ()) for name, plan in plans.items()}
    varied = set().union(*(points.get(name, set()) for name in _VARIATIONS))
    return varied - set().union(*(points[name] for name in points if name not in _VARIATIONS))


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A baseline that continued past its end, and the accuracy of a fused stage at its end."""

    accuracy: float  # the fused stage's, in per cent
    fused: Cost  # the cost of that, all stages counted
    # The point where the baseline reached it, from its start; None if it did not.
    crossing: Crossing | None
    steps: int  # of the baseline in all


def meetings(run, fused, baseline=BASELINE):
    """A `Meeting` for each repeat of a fused stage whose baseline continued past its end."""
    met = []
    arms = {stage.repeat: stage for stage in run.repeats_of(fused)}
    for stage in run.stages.values():
        first = run.stages.get(stage.sources[0]) if stage.init == CONTINUED else None
        arm = arms.get(stage.repeat)
        if first is None or arm is None or first.base != baseline:
            continue
        before, own = cost_before(run, arm.name), own_cost(arm)
        if before is None or own is None or arm.accuracy is None or own_cost(first) is None:
            continue
        whole = run.from_its_start(stage)
        crossing = first_crossing(whole.curve, arm.accuracy)
        met.append(Meeting(arm.accuracy, before + own, crossing, whole.steps))
    return met


def _compare(run, baseline, plan):
    before, evaluations = cost_before(run, plan.name), _with_accuracy(baseline.curve)
    result = Comparison(plan.name, baseline.name, before=before)
    if not baseline.finished or not evaluations:
        lacks = "has no evaluation" if baseline.finished else "is not finished"
        return dataclasses.replace(result, reason=f"the baseline {lacks}")
    accuracy, reason, ratios = evaluations[-1].accuracy, "", {}
    crossing, end = first_crossing(plan.curve, accuracy), first_crossing(baseline.curve, accuracy)
    if before is None:
        reason = "the cost of one of its sources is not known"
    elif crossing is None:
        reason = "not reached" if plan.finished else "not reached yet"
    elif not end.cost.flops or not end.cost.device_seconds:
        reason = "the baseline's compute is zero at that point"
    else:
        curves = plan.curve, baseline.curve
        lasting, lasting_end = (lasting_crossing(curve, accuracy) for curve in curves)
        for field in COSTS:
            ratios[f"{field}_ratio"] = _ratio(before, crossing, end, field)
            ratios[f"lasting_{field}_ratio"] = _ratio(before, lasting, lasting_end, field)
    reached = {"accuracy": accuracy, "crossing": crossing, "baseline_crossing": end}
    return dataclasses.replace(result, **reached, **ratios, reason=reason)


def _ratio(before, crossing, baseline, field):
    whole = baseline and getattr(baseline.cost, field)
    return getattr(before + crossing.cost, field) / whole if crossing and whole else None


def _with_accuracy(curve):
    return [point for point in curve if point.accuracy is not None]


def _between(previous, best, point, accuracy):
    """The point between two evaluations where the line from `best` to `point` is `accuracy`."""
    if previous is None:
        return Crossing(point.step, Cost(point.flops, point.device_seconds))
    share = (accuracy - best) / (point.accuracy - best)

    step, *costs = (
        getattr(previous, field) + share * (getattr(point, field) - getattr(previous, field))
        for field in ("step", *COSTS)
    )
    return Crossing(step, Cost(*costs))
