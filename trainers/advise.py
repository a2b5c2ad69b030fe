"""Says when to fuse for a budget, from the curves of runs that exist.

    python -m trainers.advise --workdir=W --budget=1e15

reads what the stages in W have recorded (a small and a big model from random weights, however
short; self-fusions too where there are any) and fits loss against compute for each size. It prints
after how many steps to fuse the small model so that the big one gets furthest with the budget, what
to expect, what training from random weights would reach, and how sure that is; or not to fuse.
It takes seconds. trainers/advice has the formulas.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from trainers import files
from trainers.advice import choice, curves, laws
from trainers.errors import UserError, check_new_file
from trainers.programs import check_options, option, recorded, run
from trainers.runs import history
from trainers.storage import Kind

FORMAT = 2
"""Version of the form of the JSON file."""

_BUDGET = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?) *(flops|s|m|h|)", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_VERDICTS = {
    choice.FUSE: "fuse.",
    choice.PERHAPS: "fusing is expected to be better, but not surely.",
    choice.SCRATCH: "do not fuse; train from random weights.",
}
_FACTS = ("law", "curves", "noise", "observed", "cost_per_step", "fused")
_PLANS = {"best": "Plan", "within": "Best within what was observed"}


@dataclasses.dataclass(frozen=True)
class AdviseConfig:
    """Settings of the program; checks itself."""

    workdir: tuple[str, ...] = option(
        (), "Folders of runs on the same text.", required="FOLDER", place=Kind.READ
    )
    budget: str = option("", "FLOPs (1e15, 1e15flops) or device time (3600s, 60m, 1h).")
    sizes: tuple[str, ...] = option(
        (), "Two or more sizes; by default all with curves.", choices=("S", "M", "L"), distinct=True
    )
    output: str = option("", "New JSON file for the advice.", place=Kind.NEW_FILE)
    backtest: bool = option(False, "Also score forecasts of what was not seen.")
    seed: int = option(0, "Seed of the draws.", at_least=0)

    def __post_init__(self):
        check_options(self)
        if len(self.sizes) == 1:
            raise UserError("two or more sizes", f"sizes={self.sizes[0]!r}", "Add another")
        parse_budget(self.budget)
        check_new_file(self.output)


def parse_budget(text: str) -> tuple[float, str]:
    """Returns the compute that a text such as "2h" stands for, and its unit: "device_seconds"."""
    match = _BUDGET.fullmatch(text.strip())
    value = float(match[1]) * _SECONDS.get(match[2].lower(), 1) if match else 0.0
    if not 0 < value < math.inf:
        forms = "--budget in FLOPs (1e15, 1e15flops) or device time (3600s, 60m, 1h)"
        raise UserError(forms, f"budget={text!r}", "Write it in one of these forms")
    return value, "device_seconds" if match[2].lower() in _SECONDS else "flops"


def advise(config: AdviseConfig) -> dict:
    """Prints the advice, writes it where it is asked for, and returns it as JSON holds it.

    Raises:
        UserError: a run cannot be read, or its curves do not carry an advice.
    """
    budget, unit = parse_budget(config.budget)
    read = curves.read_curves([history.read_run(path) for path in config.workdir], unit)
    groups = curves.by_size(read, config.sizes)
    fused = curves.self_fusions(read, groups)
    fits = {size: laws.fit(group, fused, config.seed) for size, group in groups.items()}
    advice = choice.advise(budget, unit, fits)
    scores = choice.backtest(groups, fused) if config.backtest else []
    lines = [*describe(advice, fits), *(f"Backtest: {_words(score)}" for score in scores)]
    print("\n".join(lines))
    content = {"format": FORMAT, "settings": recorded(config), "advice": advice}
    facts = {size: dataclasses.asdict(fit) for size, fit in fits.items()}
    content |= {"fits": {s: {k: fact[k] for k in _FACTS} for s, fact in facts.items()}}
    content |= {"backtest": scores, "text": lines}
    if config.output:
        files.write_json(config.output, content)
        print(f"Wrote {config.output}")
    return content


def describe(advice: dict, fits: Mapping[str, laws.Fit]) -> list[str]:
    """Returns an advice as lines."""
    big, unit = list(fits)[-1], "FLOPs" if advice["unit"] == "flops" else "device-seconds"
    lines = [f"Budget: {advice['budget']:.3g} {unit} for a model of size {big}."]
    lines.append(f"Losses in nats per token; low to high holds {choice.LEVEL:.0%}.")
    for size, fit in fits.items():
        lines.append(
            f"  {size}: {', '.join(fit.curves)}, up to {fit.observed:.3g} {unit}; they "
            f"tend to {fit.law.floor:.3g}, noise {fit.noise:.1%}."
        )
    lines.append(f"Advice: {_VERDICTS[advice['verdict']]}")
    if advice["best"] is None:
        lines.append("  No smaller model leaves its plateau within this budget.")
    for name, title in _PLANS.items():
        plan = advice[name]
        if plan and (name == "best" or plan != advice["best"]):
            stages = zip(plan["sizes"], plan["steps"], plan["costs"], strict=True)
            stages = (f"{s} for {n:,} steps ({cost:.3g} {unit})" for s, n, cost in stages)
            lines += [
                f"  {title}: {', fused into '.join(stages)}.",
                f"    Loss: {_words(plan['loss'])}. Gain over random weights: "
                f"{_words(plan['gain'])}; probability of a gain: {plan['chance']:.0%}.",
            ]
    if advice["best"]:
        lines.append(f"  Best cost of the small model: {_words(advice['first_cost'])}.")
    lines.append(f"  From random weights: loss {_words(advice['scratch'])}.")
    for size, ratio in advice["beyond"].items():
        far = "; nothing so far away was ever checked" if ratio > choice.FAR else ""
        if ratio > 1:
            times = f"{ratio:.3g} times the compute observed"
            lines.append(f"Note: the law of size {size} is used at {times}{far}.")
    speed, runs = _words(choice.interval(fits[big].speed)), ", ".join(fits[big].fused)
    lines.append(f"Note: {runs or 'no self-fusion'} shows what fusing does here.")
    return [*lines, f"  Speed of learning over that from random weights: {speed}."]


def _words(facts):
    shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in facts.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def main(config: AdviseConfig) -> None:
    """Advises."""
    advise(config)


if __name__ == "__main__":
    run(main, AdviseConfig)
