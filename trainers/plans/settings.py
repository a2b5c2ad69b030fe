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
from collections.abc import Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.graph import NORMS, Stage
from trainers.plans.sizes import SIZE_LETTERS, Size
from trainers.programs import option, options_of

ALL = ""  # the name of a value that is given without one
FORM = "VALUE or NAME:VALUE[,NAME:VALUE]"

# Those of the library, which takes seconds to import.
NOISE_KINDS = ("gaussian", "balanced")
DTYPES = ("float32", "mixed_bfloat16")
# The scale that makes 1/sqrt(max(n, warm-up)) a learning rate that the optimizer can use:
# Adafactor's step is relative to the parameter's own RMS, AdamW's is not.
OPTIMIZER_SCALES = {"adafactor": 1.0, "adamw": 0.05}


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """Settings that one stage is trained with.

    `noise`, `noise_kind` and `norm` are None where nothing is fused, `clip_norm` where gradients
    are not clipped. The dtype is Keras' policy: mixed_bfloat16 has float32 weights and bfloat16
    products.
    """

    steps: int = option(help="Training steps.", at_least=1, group="Settings of stages")
    warmup_steps: int = option(
        help="Steps k of constant learning rate in scale / sqrt(max(n + offset, k)).", at_least=1
    )
    learning_rate_offset: int = option(
        help="Offset in that schedule; a negative one holds the maximum for longer."
    )
    learning_rate_scale: float = option(help="Scale in that schedule.", above=0)
    optimizer: str = option(help="Optimizer.", choices=tuple(OPTIMIZER_SCALES))
    dropout: float = option(help="Dropout rate.", at_least=0, below=1)
    noise: float | None = option(
        help="Noise of a fusion: standard deviation over the RMS of the source weight.", at_least=0
    )
    noise_kind: str | None = option(
        help="Where that noise is: off the diagonal, or balanced.", choices=NOISE_KINDS
    )
    norm: str | None = option(help="Norm of a self-fused stage.", choices=NORMS)
    seed: int = option(help="Seed; a VALUE for the run, NAME:VALUE for a stage's own.", at_least=0)
    clip_norm: float | None = option(help="Largest global norm of the gradients.", above=0)
    dtype: str = option(help="Precision.", choices=DTYPES)
    eval_every: int = option(help="Steps between evaluations.", at_least=1)
    checkpoint_every: int = option(help="Steps between checkpoints.", at_least=1)
    steps_per_call: int = option(help="Training steps in one call of the device.", at_least=1)

    # Settings that say nothing about what a run computes.
    OPERATIONAL = ("checkpoint_every", "steps_per_call")
    # A stage that continues its source has that one's other settings.
    OF_CONTINUED = ("steps", "eval_every", *OPERATIONAL)

    def identity(self) -> dict:
        """The settings that make a stage what it is, for telling one run from another."""
        settings = dataclasses.asdict(self)
        return {name: value for name, value in settings.items() if name not in self.OPERATIONAL}


_OPTIONS = options_of(StageSettings)


def parse(setting: str, text: str) -> dict[str, object]:
    """Reads `NAME:VALUE[,NAME:VALUE]` or one bare value: {stage or size, or "" for all: value}.

    Raises:
        UserError: the form, a value or a name that stands twice; the message holds all of it.
    """
    values: dict[str, object] = {}
    for part in text.split(","):
        name, colon, value = part.strip().rpartition(":")
        if colon and not name:
            raise _misread(setting, text, "a name before each colon")
        if name in values:
            raise _misread(setting, text, f"{name or 'a bare value'} once")
        try:
            values[name] = _OPTIONS[setting].read(value)
        except UserError:
            raise _misread(setting, text, _OPTIONS[setting].words) from None
    return values


def _misread(setting: str, text: str, expected: str) -> UserError:
    return UserError(
        f"--{setting} to have {expected}",
        f"{setting}={text!r}",
        f"Write --{setting}=NAME:VALUE[,NAME:VALUE], NAME a stage or "
        f"{', '.join(SIZE_LETTERS)}, VALUE {_OPTIONS[setting].words}",
    )


def check_names(flags: Mapping[str, Mapping[str, object]], stages: Sequence[Stage], size: Size):
    """Checks that every name given in a flag is a stage or a size; another would have no effect."""
    of_stages = [stage.name for stage in stages]
    of_stages += [stage.like for stage in stages if stage.like]
    names = list(dict.fromkeys((ALL, *size.models, *of_stages)))
    for setting, values in flags.items():
        for name in values:
            if name not in names:
                raise UserError(
                    f"the names in --{setting} among {', '.join(names[1:])}",
                    f"{setting}={name}:{values[name]}",
                    "Correct the name, or add its --plan",
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
        flags: setting to what `parse` reads in its flag.
        tuned: setting to what a sweep found, stage to value.

    Raises:
        UserError: a norm is asked for that the stage's init does not keep.
    """
    flags = flags or {}
    check_plan_settings(stage)
    values: dict[str, object] = {}
    for setting in _OPTIONS:
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
    """Checks that what a plan fixes for a stage is a setting, and of its kind."""
    for name, value in stage.settings.items():
        if name not in _OPTIONS:
            expected = f"the settings of stage {stage.name!r} among {', '.join(_OPTIONS)}"
        elif not _OPTIONS[name].accepts(value):
            expected = f"{name} of stage {stage.name!r} to be {_OPTIONS[name].words}"
        else:
            continue
        raise UserError(expected, f"{name}={value!r}", "Correct the plan")


def _norm(stage: Stage, asked: str | None, named: bool) -> str | None:
    """The norm of a fusion; a value for all stages does not reach those without a choice."""
    if asked is None or asked == stage.norm:
        return stage.norm
    if stage.init == "self_fusion" or named:
        return dataclasses.replace(stage, norm=asked).norm
    return stage.norm
