"""Head starts: by how much compute fused models begin ahead of the model from random weights.

Before its first step a fused model has a loss, for which its sources were paid. The model from
random weights had that loss after some compute of its own. The difference is what the fusion gives:
where both learn alike afterwards it saves as much, however long they train. A model may learn
faster, as one of stacked layers does, which begins behind. Steps in which the learning rate falls
to zero are left out: in them any loss falls, of models that have learned no more.
"""

import dataclasses

from trainers.reports import numbers, tables
from trainers.reports.comparisons import cost_before
from trainers.reports.crossings import by_loss, first_crossing

DEFINITION = (
    "The head start of a fused model is the compute that the baseline needed for the loss with "
    "which the fused model begins, less that of all stages it comes from. A fusion after which "
    "both learn alike saves just that, at any budget. It is negative where the sources were "
    "trained for too long, or where what they had learned is not kept. The baseline's steps in "
    "which its learning rate falls do not count."
)
_AT_LEAST = "At least: the baseline is not as good before its learning rate falls, or its end."


@dataclasses.dataclass(frozen=True)
class HeadStart:
    """A fused model before its first step, against a model from random weights."""

    loss: float | None = None  # nats per token
    before: float | None = None  # FLOPs of all stages that it comes from
    reached: float | None = None  # FLOPs of the other model at that loss
    whole: float | None = None  # FLOPs of the other model's run
    is_bound: bool = False  # whether the other model needs more than `reached`
    reason: str = ""  # why a field is None, in a few words

    @property
    def flops(self):
        """The head start in FLOPs, or None."""
        return None if None in (self.reached, self.before) else self.reached - self.before

    @property
    def share(self):
        """The head start in per cent of the other model's run, or None."""
        return 100 * self.flops / self.whole if self.flops is not None and self.whole else None


def head_start(run, stage, baseline):
    """The `HeadStart` of a fused stage over a model from random weights, a stage too."""
    start = next((point for point in by_loss(stage.curve) if point.step == 0), None)
    steps = baseline.planned_steps or baseline.steps
    last = steps - baseline.learning_rate.get("decay_steps", 0)
    points = [point for point in by_loss(baseline.curve) if point.step <= last]
    if start is None or not points:
        whose = "its" if start is None else "the baseline's"
        return HeadStart(reason=f"no evaluation before {whose} first step")
    before, crossing = cost_before(run, stage.name), first_crossing(points, start.accuracy)
    return HeadStart(
        start.loss_per_token,
        before and before.flops,
        crossing.cost.flops if crossing else points[-1].flops,
        # Of one that is still running the whole, too.
        baseline.flops and baseline.flops * steps / baseline.steps,
        is_bound=crossing is None,
        reason="" if before else "the cost of one of its sources is not known",
    )


def of_comparisons(run, comparisons):
    """Plan to its `HeadStart`s, one for each seed, of the plans of `compare(run)`."""
    plans = {}
    for comparison in comparisons:
        stage, baseline = run.stages[comparison.plan], run.stages[comparison.baseline]
        if stage.curve and baseline.curve:
            plans.setdefault(stage.base, []).append(head_start(run, stage, baseline))
    return plans


def tables_of(starts, key="head_starts"):
    """The table of the head starts of some plans, as a tuple; an empty one where none is known.

    Args:
        starts: plan to its `HeadStart`s, one for each seed.
        key: of the table.
    """
    if all(told.loss is None for seeds in starts.values() for told in seeds):
        return ()

    def mean(field, style):
        def cell(plan):
            reason = next((told.reason for told in starts[plan] if told.reason), "not recorded")
            is_bound = field not in ("loss", "before") and any(t.is_bound for t in starts[plan])
            values = [getattr(told, field) for told in starts[plan]]
            return tables.mean(values, style, reason, _AT_LEAST if is_bound else "")

        return cell

    columns = (
        ("plan", "Plan", "", tables.label),
        ("loss", "Loss, token", "Before its first step", mean("loss", numbers.fine)),
        ("before", "Plan", "FLOPs until then", mean("before", numbers.scientific)),
        ("reached", "Baseline", "FLOPs until then", mean("reached", numbers.scientific)),
        ("flops", "FLOPs", "Head start", mean("flops", numbers.scientific)),
        ("share", "of the baseline's, %", "Head start", mean("share", numbers.tenth)),
    )
    return (
        tables.tabulate(
            key,
            "Head starts: what fused models begin with.",
            starts,
            columns,
            "A plan saves more only where it learns faster than the baseline after its fusion.",
        ),
    )
