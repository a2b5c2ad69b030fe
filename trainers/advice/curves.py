"""Loss curves of the stages of runs, in the unit of a budget.

Example:
    >>> curves = read_curves([runs.read_run("runs/demo")], "flops")
    >>> [curve.size for curve in curves if not curve.sources]
    ['S', 'M']
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainers import files
from trainers.errors import UserError
from trainers.plans import known, tuning
from trainers.runs import workdir
from trainers.runs.history import CONTINUED, RunHistory, StageHistory, after

UNITS = ("flops", "device_seconds")

# Losses compare only where these settings of two runs are equal.
_SHARED = ("size", "input_length", "validation.tokens", "vocabulary.model")

# Plans that vary on purpose what other runs leave at its best.
_VARIED = (tuning.NAME, "offsets", "zero_blocks")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a fused stage comes from.

    Args:
        name: of the stage that was fused.
        loss: nats a token of that stage at the step where it was fused; None if not known.
        cost: what it had cost until then; None if not known.
    """

    name: str
    loss: float | None
    cost: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Evaluations of one stage, those before the first step apart.

    Args:
        name: `FOLDER/STAGE`.
        size: "S", "M" or "L".
        costs: (points,) compute of this stage alone, rising.
        losses: (points,) nats a token on the validation batches.
        steps: (points,) optimizer steps.
        start: loss before the first step; None if it was not evaluated.
        sources: what it was fused from; empty for a stage from random weights.
        parameters: of its model; 1 if not known.
        rate: what tells its learning rates from those of other stages.
    """

    name: str
    size: str
    costs: np.ndarray
    losses: np.ndarray
    steps: np.ndarray
    start: float | None = None
    parameters: int = 1
    sources: tuple[Source, ...] = ()
    rate: tuple = ()

    def until(self, cost: float) -> "Curve":
        """The curve as it was when it had cost so much."""
        known = self.costs <= cost
        return dataclasses.replace(
            self, costs=self.costs[known], losses=self.losses[known], steps=self.steps[known]
        )

    @property
    def cost_per_step(self) -> float:
        """Cost of one optimizer step, from the last evaluation."""
        return float(self.costs[-1] / self.steps[-1])


def read_curves(found: Sequence[RunHistory], unit: str) -> tuple[Curve, ...]:
    """Returns the curves of all stages of one or more runs; copies of one stage count once.

    A stage that goes on from another one gives the curve of both together. What three plans vary is
    left out: stages of a sweep are too short to learn from, and those of `offsets` and
    `zero_blocks` have learning rates and noise that nobody would choose.

    Args:
        found: runs on the same text with the same vocabulary.
        unit: "flops" or "device_seconds": what costs are counted in.

    Raises:
        UserError: two runs differ in what losses depend on.
    """
    _check_comparable(found)
    curves = [
        _curve(run, _from_its_start(run, stage), unit)
        for run in found
        for stage in run.stages.values()
        if not _is_varied(run, stage)
    ]
    longest = sorted((c for c in curves if len(c.costs)), key=lambda curve: -len(curve.costs))
    kept: list[Curve] = []
    for curve in longest:
        if not any(_is_part(curve, other) for other in kept):
            kept.append(curve)
    return tuple(sorted(kept, key=lambda curve: ("SML".find(curve.size), curve.name)))


def _is_varied(run: RunHistory, stage: StageHistory) -> bool:
    plans, name = run.settings.get("experiments") or {}, stage.base
    # What they compare with is no variation.
    if name == known.SELF_FUSION.name:
        return False
    return any(name in plans.get(plan, {}).get("points", {}) for plan in _VARIED)


def _from_its_start(run: RunHistory, stage: StageHistory) -> StageHistory:
    """A stage that goes on, as if it and what it goes on from were one."""
    first = run.stages.get(stage.sources[0]) if stage.init == CONTINUED else None
    if first is None:
        return stage
    first = _from_its_start(run, first)
    curve = (*first.curve, *(after(first, point) for point in stage.curve[1:]))
    steps = first.steps + stage.steps
    return dataclasses.replace(first, name=stage.name, curve=curve, steps=steps)


def _is_part(curve: Curve, other: Curve) -> bool:
    """Whether a curve is another one's beginning: no two trainings give equal losses."""
    _, mine, theirs = np.intersect1d(curve.steps, other.steps, return_indices=True)
    same = curve.losses[mine] == other.losses[theirs]
    return curve.size == other.size and len(same) > 0 and bool(same.all())


def _check_comparable(found):
    for run in found[1:]:
        for name in _SHARED:
            first, other = found[0].settings.get(name), run.settings.get(name)
            if first != other:
                raise UserError(
                    "Expected runs on the same text and vocabulary. Received: "
                    f"workdir={str(run.workdir)!r} with {name}={other!r}, not {first!r} as in "
                    f"{str(found[0].workdir)!r}. Give only folders whose losses compare."
                )


def _curve(run: RunHistory, stage: StageHistory, unit: str) -> Curve:
    known = [p for p in stage.curve if p.loss_per_token is not None and p.loss_per_token > 0]
    trained: list = []
    for point in known:
        if point.step > 0 and getattr(point, unit) > (getattr(trained[-1], unit) if trained else 0):
            trained.append(point)
    start = next((p.loss_per_token for p in known if p.step == 0), None)
    rate = stage.learning_rate or {}
    return Curve(
        f"{run.workdir.name}/{stage.name}",
        stage.size,
        np.array([getattr(p, unit) for p in trained], float),
        np.array([p.loss_per_token for p in trained], float),
        np.array([p.step for p in trained], float),
        start,
        stage.parameters or 1,
        _sources(run, stage, unit),
        tuple(sorted((name, str(value)) for name, value in rate.items())),
    )


def _sources(run: RunHistory, stage: StageHistory, unit: str) -> tuple[Source, ...]:
    path = run.workdir / stage.name / workdir.STAGE_FILE
    steps = files.read_json(path).get("source_steps") if stage.sources and path.exists() else {}
    return tuple(_source(run, name, (steps or {}).get(name), unit) for name in stage.sources)


def _source(run: RunHistory, name: str, step: float | None, unit: str) -> Source:
    """Loss and cost of a source where it was fused: at that step, or else where it ended."""
    points = run.stages[name].curve if name in run.stages else ()
    points = [p for p in points if p.loss_per_token is not None]
    if not points:
        return Source(name, None, None)
    step = points[-1].step if step is None else step
    steps = [p.step for p in points]
    loss, cost = (
        float(np.interp(step, steps, [getattr(p, field) for p in points]))
        for field in ("loss_per_token", unit)
    )
    return Source(name, loss, cost)


def best_rate(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """Of the curves of one size, those of the learning rates that got furthest.

    Curves of one group are taken for repeats. The groups are compared at the largest cost that
    all of them have reached.
    """
    groups: dict[tuple, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.rate, []).append(curve)
    common = min((max(c.costs[-1] for c in group) for group in groups.values()), default=0.0)

    def reached(group):
        return min(float(np.interp(common, c.costs, c.losses)) for c in group)

    return tuple(min(groups.values(), key=reached, default=()))
