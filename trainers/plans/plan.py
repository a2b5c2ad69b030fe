"""A plan: stages that belong together."""

import dataclasses
import decimal
from collections.abc import Iterable, Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.graph import Stage, in_order


@dataclasses.dataclass(frozen=True)
class Plan:
    """Stages that belong together; the last one is what the plan is after."""

    name: str  # what `--plan` calls it
    description: str  # one line for people
    stages: tuple[Stage, ...]  # every stage that the plan needs, sources included
    # What a stage stands for in the plan's table or figure, where its name does not say it: stage
    # to facts such as {"offset": -100}.
    points: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    # What else the plan's report has to know, such as budgets.
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)
    # Stage to the steps whose checkpoints stay.
    keep: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    # Stages that it may not have, but whose settings it is made from.
    made_from: tuple[Stage, ...] = ()

    @property
    def final(self) -> str:
        """Name of the stage whose result is the plan's."""
        return self.stages[-1].name


def merge(plans: Iterable[Plan]) -> tuple[Stage, ...]:
    """Returns the stages of plans as one graph, sources first, each stage once.

    Raises:
        UserError: two plans mean different things by one stage name; a source that no plan has;
            a cycle.
    """
    stages: dict[str, Stage] = {}
    for plan in plans:
        for stage in plan.stages:
            if stages.setdefault(stage.name, stage) != stage:
                raise UserError(
                    f"one meaning of stage {stage.name!r} in all plans",
                    f"plan={plan.name!r}, which declares it differently",
                    "Run it in another workdir",
                )
    return in_order(stages.values())


def short(value: float) -> str:
    """A number above 0 as a name can have it.

    Example:
        >>> [short(value) for value in (0.01, 0.25, 1.0, 30.0)]
        ['1e-2', '25e-2', '1', '3e1']
    """
    _, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    return "".join(map(str, digits)) + (f"e{exponent}" if exponent else "")


def scaled(value: float, factor: float) -> float:
    """A number times a factor, in decimals: rounding would give some products long names.

    Example:
        >>> scaled(0.05, 1.4), 0.05 * 1.4
        (0.07, 0.06999999999999999)
    """
    return float(decimal.Decimal(repr(value)) * decimal.Decimal(repr(factor)))
