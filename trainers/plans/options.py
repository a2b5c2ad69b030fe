"""What a user says of plans beside their names."""

import dataclasses

from trainers.errors import UserError


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """A plan of the user's own, and how often all plans are trained.

    Args:
        plan_file: JSON file with a plan; see `trainers.plans.files`.
        repeats: how many seeds everything is trained with; see `trainers.graphs.repeated`.

    Raises:
        UserError: a value makes no sense.
    """

    plan_file: str | None = None
    repeats: int = 1

    def __post_init__(self):
        if self.repeats < 1:
            raise UserError(
                f"Expected --repeats to be at least 1. Received: repeats={self.repeats}. "
                "Give a larger number."
            )
