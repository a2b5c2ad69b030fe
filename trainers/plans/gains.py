"""The plan `gains`: how much compute fusion saves, against a tuned baseline and against its peers.

A budget is a whole number of times the FLOPs of the baseline's own run. At each budget every arm
(`trainers.plans.arms`) is trained with each candidate of its learning rate, all its sources
counted; the candidate with the lowest loss is trained with further seeds, those of repeats. So
every arm has a sweep of the same effort. In the last part of a budget the learning rate of every
arm falls to zero: without that, one whose rate is lower at the end, as after a restart with another
scale, looks better than it is. Candidates are the warm-up of the baseline, or of
self-fusion, and the optimizer's scale, each times some factors.

    --plan=gains                                                     all arms, one budget, two seeds
    --plan=gains --gains_arms=best --gains_budgets=1,3,9 --gains_seeds=5

The first command is the screening, the second the finals: of the best reference, the best two fused
arms and the best peer. Either may be stopped and given again, and `--gains_arms` takes arms one by
one: what is trained is not trained again.

Small models are trained once for each seed and optimizer: stages that continue one another, up to
every point at which a budget fuses, named by the steps that they have had.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.arms import (
    ARMS,
    FUSED,
    HALF,
    PEER,
    REFERENCE,
    REWARMUP,
    SHARES,
    SMALL,
    WHOLE,
    Arm,
)
from trainers.plans.basis import Basis
from trainers.plans.graph import Stage, ancestors, in_order, repeated
from trainers.plans.known import BASELINE, PLANS, SELF_FUSION
from trainers.plans.plan import Plan, scaled, short
from trainers.plans.settings import GROWTHS, OPTIMIZER_SCALES
from trainers.plans.widths import GROWING_FIELDS

NAME = "gains"
BEST = "best"
_FACTOR = 3  # from one usual budget to the next
_FINALISTS = {REFERENCE: 1, FUSED: 2, PEER: 1}
_SEEDS = 2
_WARMUPS = (1.0,)
_SCALES = (0.5, 1.0, 2.0)
# Budgets fuse at multiples of this share of the first one, one source or two.
_UNIT = 1 / 8
_EVALUATIONS = 25  # of a stage
# Last share of a budget, in which the learning rate falls to zero.
DECAY = 0.2

# Settings of a model of size M with half of the layers.
_HALF = {"depth": "half"}
_SMALL = PLANS["fusion_rule"].stages[:2]
# Stages that make a model from the ones before, and their points.
Candidates = dict[str, tuple[list[Stage], dict]]


def gains(basis: Basis) -> Plan:
    """The plan; points have `arm`, `budget`, `warmup_steps` and `learning_rate_scale`.

    A point with `on_the_way` is a stage that others start from, not a candidate.
    """
    options = basis.options
    budgets = sorted(options.gains_budgets or [1])
    maker = _Maker(basis, budgets)
    points: dict[str, dict] = {}
    stages: list[Stage] = []
    for name, budget in itertools.product(_arms(basis), budgets):
        made = maker.candidates(name, ARMS[name], budget)
        for last, (parts, point) in made.items():
            points |= {part.name: {"on_the_way": True} for part in parts[:-1]}
            points[last] = point
        stages += maker.with_seeds(made, options.gains_seeds or _SEEDS)
    small = maker.small_stages(stages)
    points |= {stage.name: {"on_the_way": True} for stage in small if stage.repeat == 1}
    return Plan(
        NAME,
        "gains of fusion over a tuned baseline and over its peers, at equal compute",
        in_order((*stages, *small)),
        points,
        {"flops": maker.budget},
        # Also those that arms of a later command fuse.
        {s.name: [s.settings["checkpoint_every"]] for s in small if s.repeat == 1},
        (BASELINE, SELF_FUSION, *_SMALL),
    )


def _arms(basis: Basis) -> list[str]:
    """Names of the arms that were asked for, in the order of all."""
    asked = basis.options.gains_arms or tuple(ARMS)
    if asked == (BEST,):
        if not basis.finalists:
            counts = ", ".join(f"{count} {kind}" for kind, count in _FINALISTS.items())
            raise UserError(
                f"--gains_arms={BEST} in the --workdir of a screening of at least {counts} arms",
                f"gains_arms={BEST!r}",
                "Screen first, without --gains_arms, or name the arms",
            )
        asked = basis.finalists
    for name in asked:
        if name not in ARMS:
            raise UserError(
                f"--gains_arms among {', '.join(ARMS)}, or {BEST}",
                f"gains_arms={name!r}",
                "Correct the list",
            )
    return [name for name in ARMS if name in asked]


def finalists(losses: Mapping[str, float]) -> tuple[str, ...]:
    """The arms of the finals, from the losses of those that were screened; () of too few.

    Example:
        >>> finalists({"baseline": 2.0, "mlp": 1.9, "heads": 1.8, "balanced": 1.7, "net2net": 2.1})
        ('baseline', 'balanced', 'heads', 'net2net')
    """
    best: set[str] = set()
    for kind, count in _FINALISTS.items():
        of_kind = sorted((n for n in losses if ARMS[n].kind == kind), key=losses.__getitem__)
        if len(of_kind) < count:
            return ()
        best.update(of_kind[:count])
    return tuple(name for name in ARMS if name in best)


@dataclasses.dataclass(frozen=True)
class _Small:
    """A small model that arms start from."""

    name: str  # of its stages, up to the steps
    model: Stage  # size, seed, settings besides the usual ones, and what it is like
    cost: float  # of a step
    unit: int  # steps between two points at which a budget may fuse it

    def stage(self, units: int) -> str:
        """Name of the stage that ends after some units of steps."""
        return f"{self.name}_{units * self.unit}"


class _Maker:
    """Makes the stages of arms at budgets."""

    def __init__(self, basis: Basis, budgets: Sequence[int]):
        self.basis = basis
        self.budget = basis.settings_of(BASELINE).steps * basis.cost_of(BASELINE)
        # Where stages of small models end, in their units: where budgets of 1, 3, 9, … fuse them.
        # Other budgets fuse checkpoints between, so that all commands train the same stages.
        powers = (_FACTOR**power for power in itertools.count())
        chained = itertools.takewhile(lambda usual: usual < _FACTOR * max(budgets), powers)
        self.ends = sorted({round(share * b / _UNIT) for b in chained for share in SHARES})

    def candidates(self, name: str, arm: Arm, budget: int) -> Candidates:
        """Stages and point of each candidate of an arm, by the name of its last stage."""
        options = self.basis.options
        tuned = self.basis.settings_of(_alone(arm) or SELF_FUSION)
        scale = tuned.learning_rate_scale
        if arm.optimizer not in (None, tuned.optimizer):
            scale = OPTIMIZER_SCALES[arm.optimizer]
        warmups = [max(1, round(tuned.warmup_steps * f)) for f in options.gains_warmups or _WARMUPS]
        scales = [scaled(scale, f) for f in options.gains_scales or _SCALES]
        made: Candidates = {}
        for rate in itertools.product(dict.fromkeys(warmups), dict.fromkeys(scales)):
            rates = dict(zip(("warmup_steps", "learning_rate_scale"), rate, strict=True))
            last = f"gains_{name}_b{budget}_k{rate[0]}_s{short(rate[1])}"
            point = {"arm": name, "budget": budget, **rates}
            made[last] = (self._stages(last, arm, budget, rates | _optimizer(arm)), point)
        return made

    def with_seeds(self, made: Candidates, seeds: int) -> Iterator[Stage]:
        """The stages of candidates; those of further seeds are trained for the best one alone."""
        for last, (parts, _) in made.items():
            yield from parts
            for stage in repeated(parts, seeds)[len(parts) :]:
                yield dataclasses.replace(stage, rivals=tuple(made), stands_for=last)

    def _stages(self, name: str, arm: Arm, budget: int, common: Mapping) -> list[Stage]:
        """The stages of an arm after the small models."""
        left = budget * self.budget
        if model := _alone(arm):
            fixed = {**common, **(_HALF if arm.source == HALF else {}), "decay_steps": 0}
            bare = dataclasses.replace(model, name=name, settings=fixed, like=model.name)
            periods = self._periods(left, self.basis.cost_of(bare), budget)
            return [dataclasses.replace(bare, settings=fixed | periods)]
        number = 2 if arm.init in ("fusion_property", "fusion_rule") else 1
        units = round(arm.share * budget / _UNIT) // number
        small = [self._small(arm, index) for index in range(number)]
        places = [self._place(model, units) for model in small]
        sources, source_steps = tuple(link for link, _ in places), dict(filter(all, places))
        left -= sum(units * model.unit * model.cost for model in small)
        copies = 1 if arm.source == WHOLE else 3 - number
        if arm.init == "stacked" and arm.source == SMALL:
            copies = self._layers()
        times = dict(self.basis.settings_of(small[0].model).times)
        stages: list[Stage] = []
        for index, growth in enumerate(arm.growth, start=1):
            is_last = index == len(arm.growth)
            is_big = _multiply(times, arm, growth, copies)
            bare = Stage(
                name if is_last else f"{name}_{growth}",
                "M" if is_big or arm.init in ("stacked", "restarted") else "S",
                arm.init,
                sources,
                copies=copies,
                seed=SELF_FUSION.seed,
                settings={**common, "decay_steps": 0},
                like=SELF_FUSION.name,
                source_steps=source_steps,
            )
            made_from = {} if is_big else {"size": small[0].model.size, "times": times}
            cost = self.basis.cost_of(bare, **made_from)
            periods = self._periods(left / len(arm.growth), cost, budget if is_last else 0)
            settings = _settings(arm, growth, {**common, **periods})
            stages.append(dataclasses.replace(bare, settings=settings))
            sources, source_steps = (bare.name,), {}
        return stages

    def _layers(self) -> int:
        """Number of stacked small models that has M's parameters most nearly."""
        count = self.basis.parameters
        one_layer, two_layers = count("S"), count("S", times={"num_layers": 2})
        return max(2, round(1 + (count("M") - one_layer) / (two_layers - one_layer)))

    def _periods(self, flops: float, cost: float, budget: int) -> dict:
        """Steps of a cost that some FLOPs pay for, and the last ones of a budget, of the decay."""
        steps = max(1, round(flops / cost))
        share = self.basis.options.gains_decay
        decay = budget * self.budget * (DECAY if share is None else share)
        periods = {"steps": steps, "eval_every": -(-steps // _EVALUATIONS)}
        return periods | {"decay_steps": min(steps, round(decay / cost))}

    def _place(self, small: _Small, units: int) -> tuple[str, int | None]:
        """The stage in which a small model has had some units of steps, and at which step of it.

        The step is None where it is the last.
        """
        end = next(end for end in self.ends if end >= units)
        start = max((before for before in self.ends if before < end), default=0)
        return small.stage(end), (units - start) * small.unit if units < end else None

    def _small(self, arm: Arm, index: int) -> _Small:
        """The small model that an arm starts from, or its other one."""
        words = ["gains_small", *([arm.optimizer] if arm.optimizer else []), *(["other"] * index)]
        settings = _optimizer(arm)
        model = dataclasses.replace(_SMALL[index], like=_SMALL[0].name)
        if arm.optimizer:
            settings["learning_rate_scale"] = OPTIMIZER_SCALES[arm.optimizer]
        if arm.source != SMALL:
            words.append(arm.source)
            settings |= _HALF if arm.source == HALF else {}
            # Another seed than that of what starts from it, which then sees other batches.
            model = dataclasses.replace(BASELINE, seed=_SMALL[index].seed, like=BASELINE.name)
        model = dataclasses.replace(model, settings=settings)
        cost = self.basis.cost_of(model)
        unit = max(1, round(_UNIT * self.budget / cost))
        return _Small("_".join(words), model, cost, unit)

    def small_stages(self, users: Iterable[Stage]) -> list[Stage]:
        """The small models that stages start from, and all that these continue."""
        users = list(users)
        small = [self._small(arm, index) for arm in ARMS.values() for index in (0, 1)]
        models = {model.name: model for model in small}
        chains = [stage for model in models.values() for stage in self._chain(model)]
        repeats = max((stage.repeat for stage in users), default=1)
        links = repeated(chains, repeats)
        starts = {source for stage in users for source in stage.sources}
        starts &= {link.name for link in links}
        needed = {link.name for start in starts for link in ancestors(links, start)}
        return [link for link in links if link.name in needed]

    def _chain(self, small: _Small) -> Iterator[Stage]:
        """The stages of one small model, each continuing the one before."""
        start, before = 0, None
        for end in self.ends:
            name = small.stage(end)
            periods = {
                "steps": (end - start) * small.unit,
                "eval_every": small.unit,
                "checkpoint_every": small.unit,
            }
            if before:
                yield Stage(name, small.model.size, "continued", (before,), settings=periods)
            else:
                settings = {**small.model.settings, **periods}
                yield dataclasses.replace(small.model, name=name, settings=settings)
            start, before = end, name


def _multiply(times: dict[str, float], arm: Arm, growth: str, copies: int) -> bool:
    """Multiplies what a model has of the small one; returns whether it then is of size M."""
    not_wider = {"stacked": ["num_layers"], "restarted": []}
    grown = not_wider.get(arm.init, map(GROWING_FIELDS.get, GROWTHS[growth]))
    times |= {field: copies * times.get(field, 1) for field in grown}
    return all(field in times for field in GROWING_FIELDS.values())


def _alone(arm: Arm) -> Stage | None:
    """Stage that an arm without a fusion trains from random weights; None for the others."""
    if arm.init != "scratch":
        return None
    return BASELINE if arm.kind == REFERENCE or arm.source == HALF else _SMALL[0]


def _settings(arm: Arm, growth: str, common: Mapping) -> dict:
    """The settings of a stage of an arm, from those that do not depend on the arm."""
    settings = {**common, **arm.settings}
    if arm.rewarms:
        settings["rewarmup_steps"] = max(1, round(REWARMUP * settings["steps"]))
    return settings if growth == "all" else settings | {"grow": growth}


def _optimizer(arm: Arm) -> dict:
    return {"optimizer": arm.optimizer} if arm.optimizer else {}
