"""Guards: when a ratio of compute says nothing about a plan, and the words for it.

A guard is a function of curves that returns a `Guard` where it strikes, else None. A ratio is
given only where none strikes:

    small_model    what the plan was fused from reaches the goal alone
    standing       the baseline is not trained: its loss stands still, or has only begun to fall
    one_decay      the learning rate falls to zero at the end of one arm alone
    not_reached    the plan did not reach the goal
    wobble         the ratio rests on one evaluation

The goal is the accuracy of the baseline's last evaluation (`comparisons.DEFINITION`).
"""

import dataclasses

import numpy as np

from trainers.reports import numbers
from trainers.reports.crossings import best_accuracy

STILL = 0.005
"""The least share of its whole fall by which a baseline's loss has to fall in its last third.

A whole fall is about four nats per token here, and the losses of evaluations wobble by one or two
hundredths: what falls by less may stand still. A learning curve that follows a power law falls by
two to four per cent of the whole in its last third, at nine times the length by one.
"""

WOBBLE = 0.05
"""The share by which a ratio may differ when it is taken from other evaluations of the curves."""

_STILL, _WOBBLE = (f"{100 * share:g} %" for share in (STILL, WOBBLE))

DEFINITION = "No ratio is given where one of these guards strikes:"

RULES = (
    "A model that the plan was fused from reaches the goal alone, or the fused model does before "
    "it is trained.",
    f"In the last third of the baseline's steps its loss fell by less than {_STILL} of its whole "
    "fall, as on a plateau, or by more than in the third before, as after one; a decay of the "
    "learning rate at the end is left out.",
    "The learning rate falls to zero in the last steps of one arm alone: there any loss falls.",
    "The plan did not reach the goal.",
    f"The ratio would differ by more than {_WOBBLE} at the point from which no later evaluation "
    "falls below the goal; or if the evaluation that reaches it first, where it is above both its "
    "neighbours, were as high as the higher of them.",
)


@dataclasses.dataclass(frozen=True)
class Guard:
    """Why there is no ratio: a few words for the cell of a table, and a clause for a sentence."""

    short: str
    clause: str


def small_model(sources, goal, curve=()):
    """Strikes where what a plan comes from reaches the goal alone.

    That is one of its sources, or all of them together: a fused model computes their mean, so one
    that is at the goal before it is trained shows how low the goal is.

    Args:
        sources: `StageHistory` of every stage that it comes from.
        goal: accuracy in per cent.
        curve: the evaluations of the plan's last stage.
    """
    best = {f"{s.name}, which it comes from,": best_accuracy(s.curve) for s in sources}
    if curve and not curve[0].step:
        best["it, before any training,"] = curve[0].accuracy
    for name, accuracy in best.items():
        if accuracy is not None and accuracy >= goal:
            against = f"{numbers.percent(accuracy)} % against {numbers.percent(goal)} %"
            clause = f"{name} reaches the goal alone ({against})"
            return Guard("a source gets there alone", clause)
    return None


def standing(curve, decay_steps=0):
    """Strikes where a baseline is not trained: it stands still, or is just leaving a plateau.

    The loss of a model that learns falls quickly at first and ever more slowly. With L(t) as the
    lowest loss per token of the evaluations up to step t, on a straight line between two of them,
    and T as the last step, the guard strikes where L(2T/3) - L(T) is

    - less than `STILL` of the whole fall, L(0) - L(T): a plateau, where chance decides when the
      goal is reached;
    - or more than L(T/3) - L(2T/3) by over `STILL` of the whole fall: what came before was a
      plateau, and the end of the run says when the baseline leaves it, not how good it gets.

    A curve with fewer than two losses says nothing, and no guard strikes. Steps in which the
    learning rate falls to zero are left out: there any loss falls.

    Args:
        curve: evaluations of the baseline.
        decay_steps: its last steps, in which the learning rate falls.
    """
    points = [point for point in curve if point.loss_per_token is not None]
    points = [point for point in points if point.step <= points[-1].step - decay_steps]
    if len(points) < 2:
        return None
    steps = [point.step for point in points]
    lowest = np.minimum.accumulate([point.loss_per_token for point in points])
    thirds = np.interp(np.linspace(steps[0], steps[-1], 4), steps, lowest)
    _, middle, last = thirds[:-1] - thirds[1:]
    whole = thirds[0] - thirds[-1]
    if last <= 0 or last < STILL * whole:
        clause = (
            f"the baseline stood still: in its last third its loss fell by {last:.3f} nats, less "
            f"than {_STILL} of its whole fall of {whole:.2f}"
        )
        return Guard("the baseline stands still", clause)
    if last - middle > STILL * whole:
        clause = (
            "the baseline had only begun to learn: in its last third its loss fell by "
            f"{last:.2f} nats, in the third before by {middle:.2f}"
        )
        return Guard("the baseline leaves a plateau", clause)
    return None


def one_decay(plan, baseline):
    """Strikes where the learning rate falls to zero at the end of one arm alone.

    There any loss falls, whatever was learned before: the arm with a decay seems to be ahead.

    Args:
        plan, baseline: the `StageHistory` of either arm's last stage.
    """
    decayed = [bool(stage.learning_rate.get("decay_steps")) for stage in (plan, baseline)]
    if len(set(decayed)) == 1:
        return None
    arm = "it" if decayed[0] else "the baseline"
    clause = f"of both arms {arm} alone has a decay of the learning rate at its end"
    return Guard("one arm has a decay", clause)


def not_reached(curve, goal, finished):
    """Strikes where no evaluation of a plan has reached the goal, finished or so far."""
    best = best_accuracy(curve)
    if best is not None and best >= goal:
        return None
    so_far = "it has no evaluation" if best is None else f"its best is {numbers.percent(best)} %"
    at = f"the goal of {numbers.percent(goal)} %: {so_far}"
    if finished:
        return Guard("not reached", f"it did not reach {at}")
    return Guard("not reached yet", f"it has not yet reached {at}")


def wobble(ratio, lasting, without_peak):
    """Strikes where a ratio of compute rests on one evaluation.

    Args:
        ratio: where the curves first reach the goal.
        lasting: where no later evaluation falls below it; None where one does to the end.
        without_peak: where the curves first reach it if an evaluation above both its neighbours
            is lowered to the higher of them; None where they do not.
    """
    for other, where in (
        (lasting, "where the goal is kept"),
        (without_peak, "without a peak above both neighbours"),
    ):
        if other is None or abs(other - ratio) > WOBBLE * ratio:
            instead = "there is none" if other is None else f"it is {numbers.ratio(other)}"
            clause = f"its ratio rests on one evaluation: {instead} {where}"
            return Guard("rests on one evaluation", clause)
    return None
