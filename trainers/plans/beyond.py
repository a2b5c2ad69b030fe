"""Plans beyond the paper: fusions of two small models that differ by more than their seeds.

Section 6 of the paper leaves open what comes of sources that were trained on other texts, have
other shapes, or were trained on shorter sequences. Each plan has three ways to a model of size M,
its arms, at equal compute with all sources counted:

    fused      two sources that differ from each other, or from what follows, fused
    alike      two sources that do not, fused
    baseline   random weights

A source has the compute that a small model of other plans has in its steps, whatever its own steps
cost, and what is fused that of `fusion_property`. A fusion keeps
the property, and takes the flags of `fusion_property`. In the last part of the compute the learning
rate of every model of size M falls to zero, as in the plan `gains`.

`domains`: one source on the first text, one on the second. Everything else is trained on both, half
of each batch; all are evaluated on both.

`shapes`: one source with half as many heads again and half of the MLP, one with half of the heads
and half as large an MLP again; fused they have the shape of two even ones.

`lengths`: both sources on sequences of half the length, in steps of about half the cost; what is
made of them sees whole ones. They are evaluated on both lengths.

The other two arms of `shapes` and `lengths` are the same: the small models of other plans fused,
and one baseline.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.basis import Basis
from trainers.plans.gains import DECAY
from trainers.plans.graph import Stage
from trainers.plans.known import BASELINE, PLANS
from trainers.plans.plan import Plan
from trainers.plans.settings import SHORTEST

NAMES = ("domains", "shapes", "lengths")
# The arms, which the names of their last stages end with.
FUSED, ALIKE, FROM_SCRATCH = "fused", "alike", "baseline"
_SHARED = "plain"  # beginning of the names of those that two plans have

*_SMALL, _FUSION = PLANS["fusion_property"].stages

# Settings of stages by name.
Settings = Mapping[str, Mapping[str, object]]


def domains(basis: Basis) -> Plan:
    """Sources of two texts; points have `arm`, None of sources."""
    sources = {"domains_first": {"text": "first"}, "domains_second": {"text": "second"}}
    alike = {f"domains_both_{index}": {"text": "both"} for index in (0, 1)}
    validations = {"second text": {"text": "second"}}
    stages = _stages("domains", basis, sources, alike, {"text": "both"}, validations)
    words = "sources trained on two texts, fused, and trained on both"
    return _plan("domains", words, stages, "first text")


def shapes(basis: Basis) -> Plan:
    """Sources of two shapes; points as for `domains`."""
    sources = {f"shapes_{shape}": {"shape": shape} for shape in ("attention", "mlp")}
    words = "a source with more heads and one with a larger MLP, fused"
    return _plan("shapes", words, _stages("shapes", basis, sources), "the text")


def lengths(basis: Basis) -> Plan:
    """Sources of shorter sequences; points as for `domains`."""
    whole = basis.input_length or basis.size.input_length
    if whole < 2 * SHORTEST:
        raise UserError(
            f"--input_length of at least {2 * SHORTEST}, of which half is a sequence, with "
            "--plan=lengths",
            f"input_length={whole}",
            "Take longer inputs",
        )
    short = {"training_length": whole // 2}
    sources = {f"lengths_short_{index}": short for index in (0, 1)}
    validations = {f"{whole // 2} tokens": short}
    words = "sources trained on sequences of half the length, fused, and trained on whole ones"
    stages = _stages("lengths", basis, sources, validations=validations)
    return _plan("lengths", words, stages, f"{whole} tokens")


def _plan(name: str, description: str, stages: Sequence[Stage], validation: str) -> Plan:
    """The plan; its facts have its stages, and what the run's validation set is, in words."""
    arms = [None, None, FUSED, None, None, ALIKE, FROM_SCRATCH]
    names = [stage.name for stage in stages]
    shared = {stage.name for stage in _SMALL}
    points = {
        stage: {"arm": arm} for stage, arm in zip(names, arms, strict=True) if stage not in shared
    }
    return Plan(name, description, stages, points, {"stages": names, "validation": validation})


def _stages(
    name: str,
    basis: Basis,
    sources: Settings,
    alike: Settings | None = None,
    last: Mapping[str, object] | None = None,
    validations: Settings | None = None,
) -> tuple[Stage, ...]:
    """The stages of a plan.

    Args:
        name: of the plan.
        basis: as for the plan.
        sources: the two that differ.
        alike: the two that do not; None takes the small models of other plans, and what two plans
            have of them.
        last: settings of the stages of size M.
        validations: further ones of the stages that are the plan's own.
    """
    reference = name if alike else _SHARED
    *computes, compute_after = (
        basis.settings_of(model).steps * basis.cost_of(model) for model in (*_SMALL, _FUSION)
    )
    budget = sum(computes) + compute_after

    def like(model: Stage, stage: str, settings: Mapping, **fields) -> Stage:
        fields |= {"settings": settings, "like": model.like or model.name}
        if stage.startswith(name):
            fields["validations"] = validations or {}
        return dataclasses.replace(model, name=stage, **fields)

    def small(pair: Settings) -> list[Stage]:
        named = zip(_SMALL, pair.items(), computes, strict=True)
        return [
            _spending(like(model, stage, settings), compute, basis)
            for model, (stage, settings), compute in named
        ]

    def big(model: Stage, stage: str, compute: float, **fields) -> Stage:
        bare = like(model, stage, {**(last or {}), "decay_steps": 0}, **fields)
        return _spending(bare, compute, basis, decay=DECAY * budget)

    pairs = {
        f"{name}_{FUSED}": small(sources),
        f"{reference}_{ALIKE}": small(alike) if alike else _SMALL,
    }
    stages: list[Stage] = []
    for stage, pair in pairs.items():
        names = tuple(source.name for source in pair)
        stages += [*pair, big(_FUSION, stage, compute_after, sources=names)]
    return (*stages, big(BASELINE, f"{reference}_{FROM_SCRATCH}", budget))


def _spending(stage: Stage, compute: float, basis: Basis, decay: float = 0) -> Stage:
    """The stage with the steps that some compute pays for, and those of its decay."""
    cost = basis.cost_of(stage)
    steps = max(1, round(compute / cost))
    periods = {"steps": steps}
    if decay:
        periods["decay_steps"] = min(steps, round(decay / cost))
    return dataclasses.replace(stage, settings={**stage.settings, **periods})
