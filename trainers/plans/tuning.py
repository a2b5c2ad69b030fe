"""The plan `tune`: the best learning rate for each arm of Table 1, by successive halving.

An arm is a stage of Table 1. Its candidates are every warm-up with every scale of the schedule
scale / sqrt(max(n, warm-up)); warm-ups are multiples of the arm's own, scales of its optimizer's.
All are trained for a rung of steps; the third of them with the lowest validation loss continue for
twice as many steps more, and so on until three or fewer continue: the best of these is the arm's.
(Successive halving with reduction 3: Jamieson and Talwalkar, AISTATS 2016.) Every arm is given the
same compute: a rung of a small model has as many more steps as they cost less.

Arms come one after the other, those of Table 1 in its order: a fused arm starts from sources that
are trained with what was found for them. `trainers.runs.sweep` finds the best from the records, and
`trainers.pretrain` trains all other plans with it.

A sweep over short runs chooses what is good early. Where all candidates are still on a plateau it
chooses by noise; the report shows the losses that it had.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from trainers.errors import UserError
from trainers.plans import settings
from trainers.plans.basis import Basis
from trainers.plans.graph import Stage, ancestors, in_order
from trainers.plans.known import PLANS
from trainers.plans.plan import Plan, scaled, short

NAME = "tune"
ARMS = ("small_0", "baseline", "self_fusion")
# Arms that nobody tuned take what was found for these.
_FOLLOWERS = {"self_fusion": ("fusion_property", "fusion_rule")}
FOUND = ("warmup_steps", "learning_rate_scale")
_WARMUPS = (0.5, 1.0, 2.0)
_SCALES = (0.5, 1.0)
_REDUCTION = 3
# The first rung as a share of the steps of a big arm.
_FIRST_RUNG = 1 / 8


def tune(basis: Basis) -> Plan:
    """The sweep; points have `arm`, `rung`, `warmup_steps` and `learning_rate_scale`."""
    options = basis.options
    trained = {stage.name: stage for stage in PLANS["table1"].stages if not stage.is_continued}
    arms = options.tune_arms or ARMS
    for arm in arms:
        if arm not in trained:
            raise UserError(
                f"--tune_arms among {', '.join(trained)}", f"tune_arms={arm}", "Correct the list"
            )
    arms = [name for name in trained if name in arms]
    fused = trained["self_fusion"]
    big = settings.resolve(fused, basis.size, basis.flags).steps
    first = options.tune_steps or max(1, round(big * _FIRST_RUNG))
    stages, points, rungs = {}, {}, {}
    for arm in arms:
        for source in ancestors(tuple(trained.values()), arm)[:-1]:
            stages.setdefault(source.name, source)
        steps = max(1, round(first * basis.cost_of(fused) / basis.cost_of(trained[arm])))
        candidates = _halving(trained[arm], steps, basis)
        rungs[arm] = sorted({stage.settings["steps"] for stage, _ in candidates})
        for stage, point in candidates:
            stages[stage.name], points[stage.name] = stage, point
    return Plan(
        NAME,
        "learning rates of the arms of Table 1, by successive halving at equal compute",
        in_order(stages.values()),
        points,
        {"arms": arms, "rungs": rungs, "keep": _REDUCTION},
    )


def _halving(arm: Stage, steps: int, basis: Basis) -> list[tuple[Stage, dict]]:
    """All candidates of an arm, rung after rung, each with its point."""
    options = basis.options
    defaults = settings.resolve(arm, basis.size, basis.flags)
    warmups = [max(1, round(defaults.warmup_steps * f)) for f in options.tune_warmups or _WARMUPS]
    scale = defaults.learning_rate_scale
    scales = [scaled(scale, f) for f in options.tune_scales or _SCALES]
    candidates = list(itertools.product(dict.fromkeys(warmups), dict.fromkeys(scales)))
    stages: list[tuple[Stage, dict]] = []
    before: list[Stage] = []
    keep, rung = len(candidates), 1
    while True:
        now = []
        for index, values in enumerate(candidates):
            name = f"tune_{arm.name}_k{values[0]}_s{short(values[1])}_r{rung}"
            periods = {"steps": steps, "eval_every": steps, "checkpoint_every": steps}
            fixed = dict(zip(FOUND, values, strict=True))
            if rung == 1:
                stage = dataclasses.replace(arm, name=name, settings=fixed | periods, like=arm.name)
            else:
                stage = Stage(
                    name,
                    arm.size,
                    "continued",
                    (before[index].name,),
                    settings=periods,
                    rivals=tuple(other.name for other in before),
                    keep=keep,
                )
            now.append(stage)
            stages.append((stage, {"arm": arm.name, "rung": rung, **fixed}))
        if keep <= _REDUCTION:
            return stages
        keep = -(-keep // _REDUCTION)
        before = now
        # So that a candidate has had three times the steps of the rung before.
        steps *= 2 if rung == 1 else _REDUCTION
        rung += 1


def arm_stages(stages: Sequence[Stage], points: Mapping[str, Mapping], arm: str) -> list[Stage]:
    """The stages of a graph that the sweep of one arm needs, its sources included, in order."""
    needed = {
        stage.name
        for name, point in points.items()
        if point["arm"] == arm
        for stage in ancestors(stages, name)
    }
    return [stage for stage in stages if stage.name in needed]


def settings_of(winners: Mapping[str, Mapping]) -> dict[str, dict]:
    """Winners in the form of `trainers.plans.settings.resolve`: setting to stage to value.

    Example:
        >>> settings_of({"baseline": {"warmup_steps": 500, "learning_rate_scale": 1.0}})
        {'warmup_steps': {'baseline': 500}, 'learning_rate_scale': {'baseline': 1.0}}
    """
    tuned: dict[str, dict] = {setting: {} for setting in FOUND} if winners else {}
    for arm, best in winners.items():
        for name in (arm, *(other for other in _FOLLOWERS.get(arm, ()) if other not in winners)):
            for setting in FOUND:
                tuned[setting][name] = best[setting]
    return tuned


def survivors(points: Mapping[str, Mapping], rung: int) -> int:
    """Number of candidates of an arm that are trained on a rung."""
    count = sum(point["rung"] == 1 for point in points.values())
    for _ in range(1, rung):
        count = -(-count // _REDUCTION)
    return count
