"""Says when to fuse for a budget, from the curves of runs that exist.

    python -m trainers.advise --workdir=W --budget=1e15

reads what the stages in W have recorded (a small and a big model from random weights, however
short; fused ones too where there are any) and fits loss against compute for each size. It prints
after how many steps to fuse the small model so that the big one gets furthest with the budget, what
to expect, what training from random weights would reach, and how sure that is; or not to fuse.
The budget is in FLOPs (1e15, 1e15flops) or in device-seconds, -minutes or -hours (3600s, 60m, 1h).
`--backtest` adds how well the same forecasts do on parts of the curves that they did not see.
It takes seconds. trainers/advice has the formulas.
"""

import dataclasses
import math
import re

from absl import flags

from trainers import advice, files, programs
from trainers.advice import texts
from trainers.errors import UserError, check_new_file
from trainers.runs import history

FORMAT = 1
"""Version of the form of the JSON file."""

_UNITS = {
    "": ("flops", 1.0),
    "flops": ("flops", 1.0),
    "s": ("device_seconds", 1.0),
    "m": ("device_seconds", 60.0),
    "h": ("device_seconds", 3600.0),
}
_BUDGET = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?) *([a-z]*)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class AdviseConfig:
    """Settings of the binary; checks itself.

    Args:
        workdir: folders of runs on the same text.
        budget: compute, such as "1e15" (FLOPs) or "3600s" (device-seconds).
        sizes: letters of the sizes to use, from small to big; empty for all that have curves.
        output: JSON file to write; empty for none.
        backtest: whether to score the forecasts.
        seed: of the draws that stand for the uncertainty.

    Raises:
        UserError: a value is missing or cannot be used, or the output exists.
    """

    workdir: tuple[str, ...]
    budget: str
    sizes: tuple[str, ...] = ()
    output: str = ""
    backtest: bool = False
    seed: int = 0

    def __post_init__(self):
        if not self.workdir:
            raise UserError(
                "Expected --workdir to name the folder of a run. "
                "Received: workdir=''. Add --workdir=FOLDER."
            )
        parse_budget(self.budget)
        if self.sizes and (len(set(self.sizes)) < 2 or not set(self.sizes) <= set("SML")):
            raise UserError(
                "Expected --sizes to be two or more of S, M, L. "
                f"Received: sizes={','.join(self.sizes)!r}. Write it as --sizes=S,M."
            )
        if self.seed < 0:
            raise UserError(f"Expected a seed of at least 0. Received: seed={self.seed}.")
        check_new_file(self.output)


def parse_budget(text: str) -> tuple[float, str]:
    """Reads a budget.

    Args:
        text: a number and what it counts: nothing or "flops", "s", "m" or "h".

    Returns:
        The compute, and its unit: "flops" or "device_seconds".

    Raises:
        UserError: it is not of this form, or not a positive number.

    Example:
        >>> parse_budget("2h")
        (7200.0, 'device_seconds')
    """
    found = _BUDGET.fullmatch((text or "").strip())
    unit, factor = _UNITS.get(found[2].lower(), (None, 0.0)) if found else (None, 0.0)
    try:
        value = float(found[1]) * factor if unit else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise UserError(
            "Expected --budget in FLOPs (1e15, 1e15flops) or device time (3600s, 60m, 1h). "
            f"Received: budget={text!r}. Write it in one of these forms."
        )
    return value, unit


def advise(config: AdviseConfig) -> dict:
    """Prints the advice, writes it where it is asked for, and returns it as JSON holds it.

    Args:
        config: what is asked.

    Raises:
        UserError: a run cannot be read, or its curves do not carry an advice.
    """
    budget, unit = parse_budget(config.budget)
    curves = advice.read_curves([history.read_run(path) for path in config.workdir], unit)
    sizes = advice.sizes_of(curves, config.sizes)
    fits, effect = advice.learn(curves, sizes, config.seed)
    found = advice.advise(budget, unit, sizes, fits, effect)
    lines = texts.describe(found, fits, effect)
    unused = texts.left_out(curves, fits)
    if unused:
        lines.append(
            f"Note: not fitted, by their learning rates or their plateau: {', '.join(unused)}."
        )
    scores = advice.backtest(curves, sizes, seed=config.seed) if config.backtest else ()
    lines += texts.describe_scores(scores) if scores else []
    print("\n".join(lines))
    content = {
        "format": FORMAT,
        "settings": dataclasses.asdict(config),
        "advice": found.to_dict(),
        "fits": {size: fit.to_dict() for size, fit in fits.items()},
        "fused_runs": [dataclasses.asdict(run) for run in effect.measured],
        "left_out": unused,
        "backtest": [score.to_dict() for score in scores],
        "text": lines,
    }
    if config.output:
        files.write_json(config.output, content)
        print(f"Wrote {config.output}")
    return content


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares this binary's flags in `values`."""
    how = {"flag_values": values}
    flags.DEFINE_list("workdir", None, "Folders of runs on the same text.", **how)
    flags.DEFINE_string("budget", None, "FLOPs (1e15) or device time (3600s, 60m, 1h).", **how)
    flags.DEFINE_list("sizes", None, "Sizes, such as S,M; all that have curves.", **how)
    flags.DEFINE_string("output", None, "New JSON file for the advice.", **how)
    flags.DEFINE_bool("backtest", False, "Also score forecasts of what was not seen.", **how)
    flags.DEFINE_integer("seed", 0, "Seed of the draws.", **how)


def config_from_flags(values: flags.FlagValues) -> AdviseConfig:
    """Reads the flags into the configuration.

    Raises:
        UserError: the configuration refuses itself.
    """
    given = {field.name: values[field.name].value for field in dataclasses.fields(AdviseConfig)}
    for name in ("workdir", "sizes"):
        given[name] = tuple(text.strip() for text in given[name] or () if text.strip())
    return AdviseConfig(
        **{**given, "output": given["output"] or "", "budget": given["budget"] or ""}
    )


def main(argv):
    """Reads the flags, and advises."""
    del argv
    advise(config_from_flags(flags.FLAGS))


if __name__ == "__main__":
    define_flags()
    programs.run(main)
