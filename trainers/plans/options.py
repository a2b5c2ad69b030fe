"""Options of plans, beside their names."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

from trainers.errors import UserError
from trainers.plans.sizes import SIZE_LETTERS
from trainers.programs import check_options, option
from trainers.storage import Kind

# The plan that reads an option.
READERS = MappingProxyType(
    {"offsets": "offsets", "sigmas": "zero_blocks"}
    | dict.fromkeys(("fuse_at", "budgets", "step_seconds"), "when_to_fuse")
    | dict.fromkeys(("tune_arms", "tune_warmups", "tune_scales", "tune_steps"), "tune")
    | {
        f"gains_{name}": "gains"
        for name in ("arms", "budgets", "seeds", "warmups", "scales", "decay")
    }
)


def _step_seconds(name: str, text: str) -> dict[str, float]:
    seconds = {}
    for part in text.split(","):
        letter, _, number = part.strip().partition(":")
        try:
            seconds[letter] = float(number)
        except ValueError:
            seconds[letter] = math.nan
        if letter not in SIZE_LETTERS or not 0 < seconds[letter] < math.inf:
            raise UserError(
                f"--{name} to be LETTER:SECONDS[,LETTER:SECONDS], the device-seconds per "
                "step at each size",
                f"{name}={text!r}",
                "Correct it; a finished stage's record.json has device_seconds and steps",
            )
    return seconds


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """A plan of the user's own, repeats of all plans, and values for the plans made from lists.

    None takes the values of the plan itself; see `trainers.plans.generated` and
    `trainers.plans.tuning`.
    """

    plan_file: str | None = option(
        None,
        'JSON file with a plan of your own: {"name": "mine", "stages": [{"name": "a", "size": "S"},'
        ' {"name": "b", "size": "M", "init": "self_fusion", "sources": ["a"], "copies": 2}]}; '
        "trainers/plans/files.py has all fields.",
        group="Plans",
        place=Kind.FILE,
    )
    repeats: int = option(1, "Number of seeds to train all with: STAGE, STAGE_r2, …", at_least=1)
    offsets: tuple[int, ...] | None = option(
        None, "Plan offsets: steps, such as --offsets=-100,0,100.", distinct=True
    )
    sigmas: tuple[float, ...] | None = option(
        None, "Plan zero_blocks: standard deviations of the noise.", above=0, distinct=True
    )
    fuse_at: tuple[int, ...] | None = option(
        None, "Plan when_to_fuse: steps of the small model.", at_least=0, distinct=True
    )
    budgets: tuple[float, ...] | None = option(
        None,
        "Plan when_to_fuse: FLOPs; device-seconds with --step_seconds.",
        above=0,
        distinct=True,
    )
    step_seconds: Mapping[str, float] | None = option(
        None,
        "Plan when_to_fuse: device-seconds per step, such as S:0.025,M:0.058.",
        parse=_step_seconds,
    )
    tune_arms: tuple[str, ...] | None = option(
        None, "Plan tune: stages; without it small_0,baseline,self_fusion."
    )
    tune_warmups: tuple[float, ...] | None = option(
        None, "Plan tune: multiples of each arm's warm-up.", above=0, distinct=True
    )
    tune_scales: tuple[float, ...] | None = option(
        None, "Plan tune: multiples of each arm's scale.", above=0, distinct=True
    )
    tune_steps: int | None = option(
        None, "Plan tune: steps of the first rung of a big arm.", at_least=1
    )
    gains_arms: tuple[str, ...] | None = option(
        None, "Plan gains: arms of trainers/plans/arms.py, or best; without it all."
    )
    gains_budgets: tuple[int, ...] | None = option(
        None,
        "Plan gains: multiples of the baseline's compute; without it 1.",
        at_least=1,
        distinct=True,
    )
    gains_seeds: int | None = option(
        None, "Plan gains: seeds of each arm; without it 2.", at_least=1
    )
    gains_warmups: tuple[float, ...] | None = option(
        None, "Plan gains: multiples of each arm's warm-up.", above=0, distinct=True
    )
    gains_scales: tuple[float, ...] | None = option(
        None, "Plan gains: multiples of each arm's scale.", above=0, distinct=True
    )
    gains_decay: float | None = option(
        None,
        "Plan gains: last share of a budget, in which the learning rate falls to zero; without it "
        "0.2.",
        at_least=0,
        below=1,
    )

    def __post_init__(self):
        check_options(self)
        if self.step_seconds is not None and self.budgets is None:
            raise UserError(
                "--budgets in device-seconds with --step_seconds",
                "budgets=None",
                "Add them, or leave out --step_seconds for budgets in FLOPs",
            )
