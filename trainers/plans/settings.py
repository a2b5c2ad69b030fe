"""Settings of a stage, and the one syntax in which flags give them: `NAME:VALUE[,NAME:VALUE]`.

NAME is a stage (`self_fusion:-500`) or a size letter (`S:3000`, all stages of that size); a value
without a name is for all stages. From strongest to weakest: the flag's value for the stage, what
the plan fixes for it, the flag's value for a stage that it is like, for its size, for all, what a
sweep found for it or for one that it is like, then the same of the size's defaults.

Example:
    >>> parse("steps", "S:3000,M:4000")
    {'S': 3000, 'M': 4000}
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.graph import SIZE_LETTERS, Stage
from trainers.plans.sizes import Size

ALL = ""  # the name of a value that is given without one

# The scale that makes 1/sqrt(max(n, warm-up)) a learning rate that the optimizer can use:
# Adafactor's step is relative to the parameter's own RMS, AdamW's is not.
OPTIMIZER_SCALES = {"adafactor": 1.0, "adamw": 0.05}


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """How one stage is trained.

    Args:
        steps: training steps of the stage.
        warmup_steps: steps k of constant learning rate in scale / sqrt(max(n + offset, k)).
        learning_rate_offset: the paper's offset (section 5.4); negative holds the maximum longer.
        learning_rate_scale: factor of the schedule.
        optimizer: "adafactor" or "adamw".
        dropout: rate, 0 to below 1.
        noise: standard deviation of the noise of a fusion over the RMS of the source weight;
            None, as the next two, where nothing is fused.
        noise_kind: "gaussian" or "balanced".
        norm: norm that the fusion keeps, "property" or "rule".
        seed: of weights, noise, dropout and batches.
        clip_norm: largest global norm of the gradients; None does not clip.
        dtype: Keras' dtype policy, "float32" or "mixed_bfloat16" (float32 weights, bfloat16
            products).
        eval_every: steps between evaluations.
        checkpoint_every: steps between checkpoints.
        steps_per_call: training steps that the device runs in one call.
    """

    steps: int
    warmup_steps: int
    learning_rate_offset: int
    learning_rate_scale: float
    optimizer: str
    dropout: float
    noise: float | None
    noise_kind: str | None
    norm: str | None
    seed: int
    clip_norm: float | None
    dtype: str
    eval_every: int
    checkpoint_every: int
    steps_per_call: int

    # How often a run saves and reports says nothing about what it computes.
    OPERATIONAL = ("checkpoint_every", "steps_per_call")
    # A stage that goes on has the other settings of what it goes on from.
    OF_CONTINUED = ("steps", "eval_every", *OPERATIONAL)

    def identity(self) -> dict:
        """The settings that make a stage what it is, for telling one run from another."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if name not in self.OPERATIONAL}


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How the value of a setting is read: converter, check, and both in words."""

    convert: Callable[[str], object]
    accepts: Callable[[object], bool]
    words: str

    def fits(self, value: object) -> bool:
        """Whether a value that is not a text has the type and range of the setting."""
        of_type = isinstance(value, int | float if self.convert is float else self.convert)
        return of_type and not isinstance(value, bool) and self.accepts(value)


def _one_of(*values: str) -> _Kind:
    return _Kind(str, lambda value: value in values, " or ".join(values))


def _whole(least: int) -> _Kind:
    return _Kind(int, lambda value: value >= least, f"a whole number of at least {least}")


_KINDS: dict[str, _Kind] = {
    "steps": _whole(1),
    "warmup_steps": _whole(1),
    "learning_rate_offset": _Kind(int, lambda value: True, "a whole number"),
    "learning_rate_scale": _Kind(float, lambda v: 0 < v < math.inf, "a number above 0"),
    "optimizer": _one_of(*OPTIMIZER_SCALES),
    "dropout": _Kind(float, lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    "noise": _Kind(float, lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "noise_kind": _one_of("gaussian", "balanced"),
    "norm": _one_of("property", "rule"),
    "seed": _whole(0),
    "clip_norm": _Kind(float, lambda v: 0 < v < math.inf, "a number above 0"),
    "dtype": _one_of("float32", "mixed_bfloat16"),
    "eval_every": _whole(1),
    "checkpoint_every": _whole(1),
    "steps_per_call": _whole(1),
}

NAMES = tuple(_KINDS)


def parse(setting: str, text: str) -> dict[str, object]:
    """Reads `NAME:VALUE[,NAME:VALUE]` or one bare value.

    Args:
        setting: name of the setting, which is that of the flag.
        text: what the flag was given.

    Returns:
        Name (of a stage or size, or "" for all) to value.

    Raises:
        UserError: the form, a value or a name that stands twice; the message holds all of it.
    """
    kind = _KINDS[setting]
    found: dict[str, object] = {}
    for part in text.split(","):
        name, colon, value = part.strip().rpartition(":")
        if colon and not name:
            _refuse(setting, text, kind, "a name before each colon")
        if name in found:
            _refuse(setting, text, kind, f"{name or 'a bare value'} once")
        try:
            found[name] = kind.convert(value)
        except ValueError:
            _refuse(setting, text, kind, kind.words)
        if not kind.accepts(found[name]):
            _refuse(setting, text, kind, kind.words)
    return found


def _refuse(setting: str, text: str, kind: _Kind, expected: str):
    raise UserError(
        f"Expected --{setting} to have {expected}. Received: {setting}={text!r}. Write "
        f"--{setting}=NAME:VALUE[,NAME:VALUE], NAME a stage or {', '.join(SIZE_LETTERS)}, "
        f"VALUE {kind.words}."
    )


def check_names(flags: Mapping[str, Mapping[str, object]], stages: Sequence[Stage], size: Size):
    """Checks that every name given in a flag is a stage of the plan or a letter of the size.

    Raises:
        UserError: a name is neither, so its value would silently have no effect.
    """
    names = [*(stage.name for stage in stages), *(stage.like for stage in stages if stage.like)]
    known = list(dict.fromkeys((ALL, *size.models, *names)))
    for setting, values in flags.items():
        for name in values:
            if name not in known:
                raise UserError(
                    f"Expected the names in --{setting} among {', '.join(known[1:])}. Received: "
                    f"{setting}={name}:{values[name]}. Correct the name, or add its --plan."
                )


def resolve(
    stage: Stage,
    size: Size,
    flags: Mapping[str, Mapping[str, object]] | None = None,
    tuned: Mapping[str, Mapping[str, object]] | None = None,
) -> StageSettings:
    """Finds the settings of a stage.

    A seed given for the run or for a size is combined with the stage's own, so that the stages of
    a run differ and runs share none; one given for the stage by name is taken as it is. The
    second repeat of a stage has the seed that a run with the next seed would give it.

    What is said of a stage by name is said of its repeats, and, where they have nothing of their
    own, of the stages that are like it.

    Args:
        stage: stage of a plan.
        size: what `--size` says.
        flags: setting to what `parse` found.
        tuned: setting to what a sweep found, stage to value.

    Raises:
        UserError: a norm is asked for that the stage's init does not keep.
    """
    flags = flags or {}
    check_plan_settings(stage)
    values: dict[str, object] = {}
    for setting in NAMES:
        given = flags.get(setting, {})
        default = parse(setting, size.defaults[setting]) if setting in size.defaults else {}
        layers = (
            (given, (stage.name, stage.base)),
            (stage.settings, (setting,)),
            (given, (stage.like, stage.size, ALL)),
            ((tuned or {}).get(setting, {}), (stage.base, stage.like)),
            (default, (stage.base, stage.like, stage.size, ALL)),
        )
        values[setting] = next(
            (layer[name] for layer, names in layers for name in names if name in layer), None
        )
    values["seed"] = _seed(stage, values["seed"], flags.get("seed", {}))
    if values["learning_rate_scale"] is None:
        values["learning_rate_scale"] = OPTIMIZER_SCALES[values["optimizer"]]
    if not stage.is_fused:
        values |= {"noise": None, "noise_kind": None}
    values["norm"] = _norm(
        stage, values["norm"], named=not {stage.name, stage.base}.isdisjoint(flags.get("norm", {}))
    )
    return StageSettings(**values)


def _seed(stage: Stage, value: int, given: Mapping[str, object]) -> int:
    """The seed of a stage, from the value that counts for it."""
    if stage.name in given:
        return value
    if stage.base not in given and "seed" not in stage.settings:
        value = 1000 * value + stage.seed
    return value + 1000 * (stage.repeat - 1)


def check_plan_settings(stage: Stage):
    """Checks what a plan fixes for a stage.

    Raises:
        UserError: nobody would read it, or it is not of its setting's kind.
    """
    for name, value in stage.settings.items():
        if name not in _KINDS:
            expected = f"the settings of stage {stage.name!r} among {', '.join(NAMES)}"
        elif not _KINDS[name].fits(value):
            expected = f"{name} of stage {stage.name!r} to be {_KINDS[name].words}"
        else:
            continue
        raise UserError(f"Expected {expected}. Received: {name}={value!r}. Correct the plan.")


def _norm(stage: Stage, asked: str | None, named: bool) -> str | None:
    """The norm of a fusion; a value for all stages does not reach those without a choice."""
    if asked is None or asked == stage.norm:
        return stage.norm
    if stage.init == "self_fusion" or named:
        return dataclasses.replace(stage, norm=asked).norm
    return stage.norm
