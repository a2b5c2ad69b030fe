"""Plans: the models that are trained, and the sources that each of them is fused from.

A plan is data: a tuple of stages, each naming the stages that it is fused from. Several plans
together are one graph, in which a stage that two plans need stands once. Known plans are the
experiments of the paper (`trainers.plans.known`, and from lists of values
`trainers.plans.generated`); any other is a JSON file that a user writes (`trainers.plans.files`).

Example:
    >>> [stage.name for stage in stages_of(["baseline", "self_fusion"])]
    ['baseline', 'small_0', 'self_fusion']
"""

from collections.abc import Sequence

from trainers.errors import UserError, check_choice
from trainers.plans.basis import Basis
from trainers.plans.files import read_plan
from trainers.plans.generated import GENERATED
from trainers.plans.graph import Stage
from trainers.plans.known import PLANS
from trainers.plans.plan import Plan, merge

__all__ = [
    "GENERATED",
    "NAMES",
    "PLANS",
    "Basis",
    "Plan",
    "get_plan",
    "merge",
    "read_plan",
    "stages_of",
]

NAMES = (*PLANS, *GENERATED)


def get_plan(name: str, basis: Basis | None = None) -> Plan:
    """Returns the plan of a name; those in `GENERATED` are made from the basis."""
    if name in GENERATED and basis is not None:
        return GENERATED[name](basis)
    check_choice(PLANS if basis is None else NAMES, plan=name)
    return PLANS[name]


def stages_of(plan_names: Sequence[str]) -> tuple[Stage, ...]:
    """Returns the stages of the plans as one graph, sources first, each stage once.

    Raises:
        UserError: no or an unknown plan; two plans that mean different things by one stage name;
            a source that no plan has; a cycle.
    """
    if not plan_names:
        raise UserError(
            f"--plan to name at least one of {', '.join(NAMES)}", "plan=''", "Choose among these"
        )
    return merge(map(get_plan, plan_names))
