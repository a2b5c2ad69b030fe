"""Loss curves of the stages of runs, in the unit of a budget: "flops" or "device_seconds"."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from trainers.errors import UserError
from trainers.plans import beyond, gains, known, tuning
from trainers.plans.settings import default_of

# Losses compare only where these settings of two runs are equal.
_SHARED = (
    *("size", "input_length", "objective", "noise_density", "mean_span_length"),
    *("validation.tokens", "vocabulary.model"),
)

# Settings of stages that make their steps others, and those that make another model of a size.
_OF_DATA = ("text", "training_length")
_OF_MODEL = ("depth", "shape")

# Plans that vary on purpose what other runs leave at its best.
_VARIED = (tuning.NAME, gains.NAME, "offsets", "zero_blocks", *beyond.NAMES)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Evaluations of one stage after its first step."""

    name: str  # FOLDER/STAGE
    size: str  # "S", "M" or "L"
    costs: np.ndarray  # (points,) compute of this stage alone, rising
    losses: np.ndarray  # (points,) nats per token on the validation batches
    steps: np.ndarray  # (points,) optimizer steps
    sources: tuple[str, ...] = ()  # names of what it was fused from
    source: tuple[float, float] | None = None  # of a self-fusion: loss and cost of its source then
    rate: tuple = ()  # its learning rate, to tell it from others
    data: tuple = ()  # text and length that it is trained on, where not the run's own

    def part(self, kept) -> "Curve":
        """The curve with some of its evaluations: a mask, or a slice."""
        parts = {name: getattr(self, name)[kept] for name in ("costs", "losses", "steps")}
        return dataclasses.replace(self, **parts)


def read_curves(runs: Sequence, unit: str) -> list[Curve]:
    """Returns the curves of all stages of histories of runs; copies of one stage count once.

    A stage that continues another one gives the curve of both together. What plans vary is left
    out, as are models of another depth or shape than their size's, and the steps in which a
    learning rate falls to zero: there any loss falls.

    Raises:
        UserError: two runs differ in what losses depend on.
    """
    for run, name in ((run, name) for run in runs[1:] for name in _SHARED):
        if run.settings.get(name) != runs[0].settings.get(name):
            raise UserError(
                f"{name}={runs[0].settings.get(name)!r} in every run, as in the first",
                f"workdir={str(run.workdir)!r} with {name}={run.settings.get(name)!r}",
                "Give folders of the same text and vocabulary",
            )
    curves = []
    for run in runs:
        # Self-fusion is what those plans compare with, and no variation.
        varied = run.varied(_VARIED) - {known.SELF_FUSION.name}
        kept = [s for s in run.stages.values() if s.base not in varied]
        curves += [_curve(run, s, unit) for s in kept if not _differing(s, _OF_MODEL)]
    # No two trainings have equal losses; of copies and beginnings the longest stays.
    curves.sort(key=lambda curve: -len(curve.costs))
    longest = {(c.size, float(c.losses[0])): c for c in reversed(curves) if len(c.losses)}
    return sorted(longest.values(), key=lambda c: ("SML".find(c.size), c.name))


def _differing(stage, names):
    """Settings of a stage that are not those of most stages, as (name, value) pairs."""
    values = [(name, stage.settings.get(name)) for name in names]
    return tuple(pair for pair in values if pair[1] not in (None, default_of(pair[0])))


def _curve(run, stage, unit):
    name, stage = f"{run.workdir.name}/{stage.name}", run.from_its_start(stage)
    points = costs, _, steps = _points(stage, unit)
    is_kept = steps <= stage.planned_steps - stage.learning_rate.get("decay_steps", 0)
    is_kept &= (steps > 0) & (costs > np.maximum.accumulate([0.0, *costs])[:-1])
    source, previous = None, run.stages.get(stage.sources[0]) if stage.sources else None
    is_self_fused = previous and stage.fused and len(stage.sources) == 1
    if is_self_fused and (before := _points(previous, unit)).size:
        step = stage.source_steps.get(previous.name, previous.steps)
        source = tuple(float(np.interp(step, before[2], before[row])) for row in (1, 0))
    rate = tuple(sorted((key, str(value)) for key, value in stage.learning_rate.items()))
    data = _differing(stage, _OF_DATA)
    return Curve(name, stage.size, *points[:, is_kept], stage.sources, source, rate, data)


def _points(stage, unit):
    """(3, points) costs, losses and steps, where the loss was a positive number."""
    points = [p for p in stage.curve if p.loss_per_token is not None and p.loss_per_token > 0]
    fields = (unit, "loss_per_token", "step")
    return np.array([[getattr(p, field) for p in points] for field in fields], float)


def by_size(curves: Sequence[Curve], wanted: Sequence[str] = ()) -> dict[str, list[Curve]]:
    """Returns the curves from random weights of each size, small to big, at its best rate and data.

    Raises:
        UserError: there are none of two sizes, or of a size wanted.
    """
    groups = {size: [c for c in curves if c.size == size and not c.sources] for size in "SML"}
    sizes = [size for size, group in groups.items() if group]
    if not set(wanted) <= set(sizes) or len(sizes) < 2:
        raise UserError(
            f"curves from random weights of {', '.join(wanted) or 'two sizes'}",
            f"curves of {', '.join(sizes) or 'none'}",
            "Train the others (trainers.pretrain --plan=baseline,self_fusion), or name --sizes",
        )
    groups = {size: groups[size] for size in sizes if size in (wanted or sizes)}
    best = {size: min(group, key=lambda c: c.losses.min()) for size, group in groups.items()}
    return {
        size: [c for c in group if (c.rate, c.data) == (best[size].rate, best[size].data)]
        for size, group in groups.items()
    }


def self_fusions(curves: Sequence[Curve], groups: Mapping[str, Sequence[Curve]]) -> list[Curve]:
    """Returns the curves of self-fusions that are trained on what those of their size are."""
    data = {size: group[0].data for size, group in groups.items()}
    return [c for c in curves if c.source and c.data == data.get(c.size)]
