"""Advice in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from trainers.advice.backtests import Score
from trainers.advice.choice import FAR, LEVEL, PERHAPS, SCRATCH, SURE, Advice, Candidate, Interval
from trainers.advice.curves import Curve
from trainers.advice.fusions import Effect
from trainers.advice.laws import Fit

LITTLE = 0.05
"""Of a last stage with less than this share of the budget it is said that it adds little."""

_UNITS = {"flops": "FLOPs", "device_seconds": "device-seconds"}
_VERDICTS = {
    "fuse": "fuse.",
    "perhaps": "fusing is expected to be better, but not surely.",
    "scratch": "do not fuse; train from random weights.",
}
_FAR_OFF = "fusing is expected to be better, if the laws hold so far beyond what was observed."


def describe(advice: Advice, fits: Mapping[str, Fit], effect: Effect) -> list[str]:
    """The advice as lines.

    Args:
        advice: what was found.
        fits: of each size.
        effect: what fusing does.
    """
    amount, big = _amounts(advice.unit), list(fits)[-1]
    lines = [
        f"Budget: {amount(advice.budget)} for a model of size {big}.",
        *(_rests_on(size, fit, amount) for size, fit in fits.items()),
        f"Advice: {_verdict(advice)}",
    ]
    if advice.best is None:
        lines.append("  No smaller model leaves its plateau within this budget.")
    else:
        lines.append(
            f"  {'Best fusion' if advice.verdict == SCRATCH else 'Plan'}: "
            f"{_plan(advice.best, amount)}."
        )
        lines += _expected(advice, fits, amount)
    lines.append(f"  From random weights: {_interval(advice.scratch)} nats a token.")
    lines.append(_pays(advice, amount))
    return lines + [f"Note: {note}" for note in notes(advice, effect)]


def _verdict(advice: Advice) -> str:
    far_off = advice.verdict == PERHAPS and advice.best.chance >= SURE
    return _FAR_OFF if far_off else _VERDICTS[advice.verdict]


def notes(advice: Advice, effect: Effect) -> list[str]:
    """What the reader has to know before the advice is relied on."""
    found = []
    if advice.best is not None and advice.best.costs[-1] < LITTLE * advice.budget:
        found.append(
            f"little is left for size {advice.best.sizes[-1]}: without fusing, "
            f"{advice.best.sizes[-2]} would do nearly as well for this budget."
        )
    for size, ratio in advice.beyond.items():
        if ratio > 1:
            far = "; nothing so far away was ever checked" if ratio > FAR else ""
            found.append(
                f"the law of size {size} is used at {ratio:.3g} times the compute observed{far}."
            )
    speed = Interval.of(np.exp(effect.log_speed))
    rates = f"it learns {speed.median:.2g} times as fast as a model from random weights would"
    if effect.measured:
        found.append(
            f"{len(effect.measured)} self-fusion(s) showed what fusing does: then {rates}."
        )
    else:
        found.append(
            f"no self-fusion shows what fusing does here; it is assumed that then {rates} "
            f"({LEVEL:.0%}: {speed.low:.2g} to {speed.high:.2g})."
        )
    return found


def left_out(curves: Sequence[Curve], fits: Mapping[str, Fit]) -> list[str]:
    """Names of the curves from random weights that no law was fitted to."""
    used = {name for fit in fits.values() for name in fit.same}
    return [c.name for c in curves if not c.sources and c.size in fits and c.name not in used]


def describe_scores(scores: Sequence[Score]) -> list[str]:
    """Backtests as lines."""
    lines = [f"Backtest (intervals of {LEVEL:.0%}):"]
    for score in scores:
        found = score.to_dict()
        what = f"{score.kind}, {score.share:.0%} seen" if score.share else score.kind
        if not score.forecasts:
            lines.append(f"  {what}: no run could be forecast ({found['refused']} refused).")
            continue
        lines.append(
            f"  {what}: {found['runs']} runs, {found['points']} evaluations, "
            f"{found['refused']} refused; error {found['error']:.1%}, at the end "
            f"{found['end_error']:.1%}, bias {found['bias']:+.1%}; "
            f"coverage {found['coverage']:.0%}."
        )
    return lines


def _amounts(unit):
    def amount(value):
        number = f"{value:.3g}" if unit == "flops" else f"{value:,.0f}"
        return f"{number} {_UNITS[unit]}"

    return amount


def _rests_on(size, fit, amount):
    where = "beyond the plateau" if fit.has_plateau else "without a plateau"
    return (
        f"  {size}: {fit.points} evaluations {where}, {len(fit.same)} curve(s) up to "
        f"{amount(fit.observed)}; they tend to {fit.law.floor:.3g}, noise {fit.noise:.1%}."
    )


def _plan(candidate: Candidate, amount):
    stages = [
        f"{size} for {steps:,} steps ({amount(cost)})"
        for size, steps, cost in zip(candidate.sizes, candidate.steps, candidate.costs, strict=True)
    ]
    return ", fused into ".join(stages)


def _expected(advice, fits, amount):
    best, first = advice.best, advice.best.sizes[0]
    per_step = fits[first].cost_per_step
    low, high = (round(cost / per_step) for cost in (advice.first_cost.low, advice.first_cost.high))
    lines = [
        f"  Best step to fuse {first} at, {LEVEL:.0%}: {low:,} to {high:,}.",
        f"  Expected: {_interval(best.loss)} nats a token.",
        f"  Gain over random weights: {_interval(best.gain)}; better with a probability of "
        f"{best.chance:.0%}.",
    ]
    if advice.within is not None and advice.within.costs != best.costs:
        lines.append(
            f"  With {first} no longer than observed: {_plan(advice.within, amount)}; gain "
            f"{_interval(advice.within.gain)}."
        )
    return lines


def _interval(interval: Interval) -> str:
    return f"{interval.median:.3f} ({LEVEL:.0%}: {interval.low:.3f} to {interval.high:.3f})"


def _pays(advice, amount):
    around = f"{amount(advice.looked_at[0])} to {amount(advice.looked_at[1])}"
    if advice.pays is None:
        return f"Fusing pays, by the median, at no budget from {around}."
    low, high = (amount(budget) for budget in advice.pays)
    return f"Fusing pays, by the median, at budgets from {low} to {high} (looked at: {around})."
