"""Plans: which models are trained, and what each of them is fused from.

A plan is data: a tuple of stages, each naming the stages that it is fused from. Several plans
together are one graph, in which a stage that two plans need stands once. The four plans below are
the experiments of section 5.1 of the paper (Tables 1 and 2, Figure 1).

Example:
    >>> [stage.name for stage in stages_of(["baseline", "self_fusion"])]
    ['baseline', 'small_0', 'self_fusion']
"""

import dataclasses
from collections.abc import Sequence

from trainers.errors import UserError
from trainers.graphs import Stage, in_order


@dataclasses.dataclass(frozen=True)
class Plan:
    """Stages that belong together; the last one is what the plan is after.

    Args:
        name: what `--plan` calls it.
        description: one line for people.
        stages: every stage that the plan needs, sources included.
    """

    name: str
    description: str
    stages: tuple[Stage, ...]

    @property
    def final(self) -> str:
        """Name of the stage whose result is the plan's."""
        return self.stages[-1].name


# Seeds: the two small models differ. All models of size M share a third one, so that they see the
# same batches in the same order, none of them those that their sources were trained on.
_SMALL_0 = Stage("small_0", "S", seed=0)
_SMALL_1 = Stage("small_1", "S", seed=1)
_BOTH = ("small_0", "small_1")
_M_SEED = 2

PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            "baseline",
            "the big model from random weights",
            (Stage("baseline", "M", seed=_M_SEED),),
        ),
        Plan(
            "self_fusion",
            "one small model fused with itself",
            (
                _SMALL_0,
                Stage("self_fusion", "M", "self_fusion", ("small_0",), copies=2, seed=_M_SEED),
            ),
        ),
        Plan(
            "fusion_property",
            "two small models fused, each half normalised apart",
            (
                _SMALL_0,
                _SMALL_1,
                Stage("fusion_property", "M", "fusion_property", _BOTH, seed=_M_SEED),
            ),
        ),
        Plan(
            "fusion_rule",
            "two small models fused, normalised as one",
            (_SMALL_0, _SMALL_1, Stage("fusion_rule", "M", "fusion_rule", _BOTH, seed=_M_SEED)),
        ),
    )
}


def get_plan(name: str) -> Plan:
    """Returns the plan of that name.

    Raises:
        UserError: there is none; the message lists those that there are.
    """
    if name not in PLANS:
        raise UserError(
            f"Expected --plan to be a comma-separated list of {', '.join(PLANS)}. "
            f"Received: plan={name!r}. Choose among these."
        )
    return PLANS[name]


def stages_of(plan_names: Sequence[str]) -> tuple[Stage, ...]:
    """Returns the stages of the plans as one graph, sources first, each stage once.

    Args:
        plan_names: names in the registry.

    Raises:
        UserError: no or an unknown plan; two plans that mean different things by one stage name;
            a source that no plan has; a cycle.
    """
    if not plan_names:
        raise UserError(
            f"Expected --plan to name at least one of {', '.join(PLANS)}. "
            "Received: plan=''. Choose among these."
        )
    found: dict[str, Stage] = {}
    for plan in map(get_plan, plan_names):
        for stage in plan.stages:
            if found.setdefault(stage.name, stage) != stage:
                raise UserError(
                    f"Expected one meaning of stage {stage.name!r} in all plans. Received: "
                    f"plan={plan.name!r}, which declares it differently. Run it in another workdir."
                )
    return in_order(found.values())
