"""What a user says of plans beside their names."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from trainers.errors import UserError
from trainers.plans.graph import SIZE_LETTERS

# Which plan reads an option.
READERS = {
    "offsets": "offsets",
    "sigmas": "zero_blocks",
    "fuse_at": "when_to_fuse",
    "budgets": "when_to_fuse",
    "step_seconds": "when_to_fuse",
    "tune_arms": "tune",
    "tune_warmups": "tune",
    "tune_scales": "tune",
    "tune_steps": "tune",
}


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """A plan of the user's own, how often all plans are trained, and values for those of lists.

    Args:
        plan_file: JSON file with a plan; see `trainers.plans.files`.
        repeats: how many seeds everything is trained with; see `trainers.plans.graph.repeated`.
        offsets, sigmas, fuse_at, budgets, step_seconds: values of the plans in
            `trainers.plans.generated`; None takes the plan's own.
        tune_arms, tune_warmups, tune_scales, tune_steps: stages that `trainers.plans.tuning` finds
            learning rates for, multiples of their own warm-up and scale, and the steps of the first
            rung of a big one.

    Raises:
        UserError: a value makes no sense.
    """

    plan_file: str | None = None
    repeats: int = 1
    offsets: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    fuse_at: tuple[int, ...] | None = None
    budgets: tuple[float, ...] | None = None
    step_seconds: Mapping[str, float] | None = None
    tune_arms: tuple[str, ...] | None = None
    tune_warmups: tuple[float, ...] | None = None
    tune_scales: tuple[float, ...] | None = None
    tune_steps: int | None = None

    def __post_init__(self):
        if self.repeats < 1:
            raise UserError(
                f"Expected --repeats to be at least 1. Received: repeats={self.repeats}. "
                "Give a larger number."
            )
        if self.tune_steps is not None and self.tune_steps < 1:
            raise UserError(
                f"Expected --tune_steps to be at least 1. Received: tune_steps={self.tune_steps}. "
                "Give a larger number."
            )
        if self.step_seconds is not None and self.budgets is None:
            raise UserError(
                "Expected --budgets in device-seconds with --step_seconds. Received: "
                "budgets=None. Add them, or leave out --step_seconds for budgets in FLOPs."
            )

    @classmethod
    def from_texts(cls, **texts) -> "PlanOptions":
        """Reads the texts of flags.

        Raises:
            UserError: a list is empty, has a value twice or one of the wrong kind.
        """
        read = {
            "offsets": lambda text: _numbers("offsets", text, int, -math.inf),
            "sigmas": lambda text: _numbers("sigmas", text, float, 0, above=True),
            "fuse_at": lambda text: _numbers("fuse_at", text, int, 0),
            "budgets": lambda text: _numbers("budgets", text, float, 0, above=True),
            "step_seconds": _step_seconds,
            "tune_arms": lambda text: tuple(part.strip() for part in text.split(",")),
            "tune_warmups": lambda text: _numbers("tune_warmups", text, float, 0, above=True),
            "tune_scales": lambda text: _numbers("tune_scales", text, float, 0, above=True),
        }
        return cls(
            **{
                name: value if value is None or name not in read else read[name](value)
                for name, value in texts.items()
            }
        )


def _numbers(
    name: str, text: str, convert: Callable, least: float, above: bool = False
) -> tuple[float, ...]:
    kind = "whole numbers" if convert is int else "numbers"
    limit = "" if least == -math.inf else f" {'above' if above else 'of at least'} {least}"
    try:
        found = tuple(convert(part) for part in text.split(","))
        good = all(math.isfinite(value) and value >= least for value in found)
    except (ValueError, OverflowError):
        found, good = (), False
    if not good or (above and least in found) or len(set(found)) < len(found):
        raise UserError(
            f"Expected --{name} to be different {kind}{limit}, comma-separated. "
            f"Received: {name}={text!r}. Correct the list."
        )
    return found


def _step_seconds(text: str) -> dict[str, float]:
    found = {}
    for part in text.split(","):
        letter, _, seconds = part.strip().partition(":")
        try:
            found[letter] = float(seconds)
        except ValueError:
            found[letter] = math.nan
        if letter not in SIZE_LETTERS or not 0 < found[letter] < math.inf:
            raise UserError(
                "Expected --step_seconds to be LETTER:SECONDS[,LETTER:SECONDS], the device-seconds "
                f"of a step at each size. Received: step_seconds={text!r}. Correct it; a finished "
                "stage's record.json has device_seconds and steps."
            )
    return found
