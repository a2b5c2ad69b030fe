"""Plans made from lists of values: the experiments of sections 5.4, 5.5 and of the zero blocks.

Each fuses the small model of `table1` with itself. What the lists are by default is scaled from
the paper's numbers to the run at hand, so that the same command works at every size. A point that
is the stage `self_fusion` or `baseline` of `table1` in all settings is that stage, trained once.
All fused stages of a plan have the same seed: they start from the same fused weights (but for what
the plan varies) and see the same batches.

`offsets` (Figures 4, 7): learning rate scale / sqrt(max(n + o, k)) for offsets o with the sign of
section 5.4: negative holds the maximum longer. The paper's k is 1 % of its run and its offsets go
to 5 %; so are ours. A size whose tuned k is another share of the run keeps its tuned maximum: the
scale makes up for it.

`zero_blocks`: noise in the blocks that the fusion property leaves zero: none, and each kind at each
standard deviation, over the RMS of the source weight.

`when_to_fuse` (Figure 6): the same budget for different fusion steps. The small model is trained
once and its checkpoints at these steps are fused. Without a decay the learning rate does not know
how long a run is, so that what a smaller budget reaches is a point on the curve of the largest one:
a fusion step is one stage, and `points` says at which step each budget ends there. With
`decay_steps` every budget is a stage of its own. The paper's budgets of 50, 60 and 70
hours are 0.86, 1.03 and 1.20 of what its self-fusion cost (58.4 hours, Table 2); so are ours.

`tune`, the sweep of learning rates, is in `trainers.plans.tuning`; `table5` and `gains` are in
modules of their own, as are `domains`, `shapes` and `lengths` (`trainers.plans.beyond`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.basis import Basis
from trainers.plans.beyond import domains, lengths, shapes
from trainers.plans.gains import gains
from trainers.plans.graph import Stage
from trainers.plans.known import BASELINE, PLANS, SELF_FUSION
from trainers.plans.plan import Plan, short
from trainers.plans.settings import NOISE_KINDS
from trainers.plans.table5 import table5
from trainers.plans.tuning import tune
from trainers.programs import LARGEST

_PAPER_STEPS = 1_000_000
_PAPER_WARMUP = 10_000
_PAPER_OFFSETS = (-50_000, -25_000, 0, 25_000, 50_000)
_PAPER_BUDGETS = (50 / 58.4, 60 / 58.4, 70 / 58.4)
_SIGMAS = (0.01, 0.1, 0.5)
_FUSION_PARTS = 4

_SMALL = PLANS["self_fusion"].stages[0]


def offsets(basis: Basis) -> Plan:
    """Self-fusion with each offset of the learning rate; points have `offset`."""
    fused = basis.settings_of(SELF_FUSION)
    warmup = max(1, round(fused.steps * _PAPER_WARMUP / _PAPER_STEPS))
    shape = {}
    if warmup != fused.warmup_steps:
        scale = fused.learning_rate_scale * math.sqrt(warmup / fused.warmup_steps)
        shape = {"warmup_steps": warmup, "learning_rate_scale": scale}
    scaled = [round(offset * fused.steps / _PAPER_STEPS) for offset in _PAPER_OFFSETS]
    return _around_self_fusion(
        "offsets",
        "Figures 4 and 7: self-fusion with offsets of the learning rate",
        basis,
        {
            f"offset_{offset}": ({"offset": offset}, {"learning_rate_offset": offset, **shape})
            for offset in basis.options.offsets or scaled
        },
        {
            "tuning": "the largest learning rate is that of self_fusion; no sweep was made with "
            "offsets"
        },
    )


def zero_blocks(basis: Basis) -> Plan:
    """Self-fusion with each noise in the zero blocks; points have `noise` and `noise_kind`."""
    wanted = {"noise_0": ({"noise": 0.0, "noise_kind": None}, {"noise": 0.0})}
    for kind in NOISE_KINDS:
        for sigma in basis.options.sigmas or _SIGMAS:
            fixed = {"noise": sigma, "noise_kind": kind}
            wanted[f"noise_{kind}_{short(sigma)}"] = (fixed, fixed)
    return _around_self_fusion(
        "zero_blocks", "noise of several kinds and sizes in the zero blocks", basis, wanted
    )


def _around_self_fusion(
    name: str,
    description: str,
    basis: Basis,
    wanted: Mapping[str, tuple[Mapping, Mapping]],
    facts: Mapping[str, object] | None = None,
) -> Plan:
    """A plan of self-fusions that differ by settings: stage name to its point and its settings."""
    stages, points = [], {}
    for stage_name, (point, fixed) in wanted.items():
        stage = dataclasses.replace(
            SELF_FUSION, name=stage_name, settings=fixed, like=SELF_FUSION.name
        )
        stages.append(basis.unless_same(stage, SELF_FUSION))
        points[stages[-1].name] = point
    return Plan(name, description, (_SMALL, *stages), points, facts or {})


def when_to_fuse(basis: Basis) -> Plan:
    """Self-fusion at different steps of the small model at the same budgets.

    Points have `fusion_step` (0: no fusion) and `steps`, the step of the stage at which each of
    the facts' `budgets` is spent, sources counted; None where the small model alone takes more.
    """
    options = basis.options
    small, fused = basis.settings_of(_SMALL), basis.settings_of(SELF_FUSION)
    costs = {"S": basis.cost_of(_SMALL), "M": basis.cost_of(SELF_FUSION)}
    whole = small.steps * costs["S"] + fused.steps * costs["M"]
    budgets = sorted(options.budgets or [share * whole for share in _PAPER_BUDGETS])
    if budgets[-1] > LARGEST * costs["M"]:
        raise UserError(
            f"budgets of at most {LARGEST * costs['M']:.3g}, which are {LARGEST:,} steps",
            f"budgets={budgets[-1]:g}",
            "Lower the budget",
        )
    fusion_steps = options.fuse_at or _fusion_steps(small.steps, small.checkpoint_every)
    stages, points = [], {}
    decays = any(basis.settings_of(stage).decay_steps for stage in (BASELINE, SELF_FUSION))
    for fusion_step in sorted({0, *fusion_steps}):
        left = [budget - fusion_step * costs["S"] for budget in budgets]
        cost = costs["M"] if fusion_step else basis.cost_of(BASELINE)
        ends = [int(rest / cost) or None if rest > 0 else None for rest in left]
        if ends[-1] is None:
            raise UserError(
                "budgets that leave something to train the fused model with",
                f"fuse_at={fusion_step}, which takes {fusion_step * costs['S']:.3g} of "
                f"the largest budget={budgets[-1]:.3g}",
                "Fuse earlier, or raise the budget",
            )
        lasts = dict.fromkeys(filter(None, ends)) if decays else (ends[-1],)
        for last in lasts:
            steps = [end if end == last else None for end in ends] if decays else ends
            stages.append(_fused_at(fusion_step, last, basis, exactly=decays))
            points[stages[-1].name] = {"fusion_step": fusion_step, "steps": steps}
    unit = "flops" if options.step_seconds is None else "device_seconds"
    return Plan(
        "when_to_fuse",
        "Figure 6: when to fuse at a given budget",
        (_SMALL, *stages),
        points,
        {"unit": unit, "budgets": budgets, "step_cost": costs},
    )


def _fused_at(fusion_step: int, steps: int, basis: Basis, exactly: bool) -> Stage:
    """The stage that fuses the small model at a step and trains on, so many steps or at least."""
    usual = SELF_FUSION if fusion_step else BASELINE
    on_the_way = 0 < fusion_step != basis.settings_of(_SMALL).steps
    if not on_the_way and not exactly:
        # Longer than it has to be, it may be a stage that is there.
        steps = max(steps, basis.settings_of(usual).steps)
    name = f"fuse_at_{fusion_step}" if fusion_step else "fuse_never"
    stage = dataclasses.replace(
        usual,
        name=f"{name}_for_{steps}" if exactly else name,
        settings={"steps": steps},
        like=usual.name,
        source_steps={_SMALL.name: fusion_step} if on_the_way else {},
    )
    return basis.unless_same(stage, usual)


def _fusion_steps(steps: int, period: int) -> Sequence[int]:
    """Fusion steps in equal parts of the small model's run, where it has checkpoints."""
    parts = range(1, _FUSION_PARTS)
    near = {round(part * steps / _FUSION_PARTS / period) * period for part in parts}
    return [*sorted(step for step in near if 0 < step < steps), steps]


def steps_to_keep(basis: Basis) -> dict[str, list[int]]:
    """Stage to the steps at which `when_to_fuse` fuses it by default.

    Whatever plan trains the stage first keeps these, so that plans can be asked for one by one.
    """
    small = basis.settings_of(_SMALL)
    return {_SMALL.name: _fusion_steps(small.steps, small.checkpoint_every)[:-1]}


GENERATED: dict[str, Callable[[Basis], Plan]] = {
    plan.__name__: plan
    for plan in (
        *(tune, offsets, zero_blocks, when_to_fuse, table5, gains),
        *(domains, shapes, lengths),
    )
}
