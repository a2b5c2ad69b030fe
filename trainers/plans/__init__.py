"""Plans: which models are trained, and what each of them is fused from.

A plan is data: a tuple of stages, each naming the stages that it is fused from. Several plans
together are one graph, in which a stage that two plans need stands once. Known plans are the
experiments of the paper (`trainers.plans.known`); any other is a JSON file that a user writes
(`trainers.plans.files`).

Example:
    >>> [stage.name for stage in stages_of(["baseline", "self_fusion"])]
    ['baseline', 'small_0', 'self_fusion']
"""

from collections.abc import Sequence

from trainers.errors import UserError
from trainers.graphs import Stage
from trainers.plans.files import read_plan
from trainers.plans.known import PLANS
from trainers.plans.plan import Plan, merge

__all__ = ["PLANS", "Plan", "get_plan", "merge", "read_plan", "stages_of"]


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
    return merge(map(get_plan, plan_names))
