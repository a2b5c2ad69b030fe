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
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from trainers.errors import UserError
from trainers.plans.graph import NORMS, Stage
from trainers.plans.sizes import SIZE_LETTERS, Size
from trainers.programs import option, options_of

ALL = ""  # the name of a value that is given without one
FORM = "VALUE or NAME:VALUE[,NAME:VALUE]"

# Those of the library, which takes seconds to import.
NOISE_KINDS = ("gaussian", "balanced")
FILLS = ("diagonal", "copies")
# Values of `grow`, and the axes of the model that then grow.
GROWTHS = MappingProxyType(
    {
        "all": ("hidden", "heads", "mlp"),
        "hidden": ("hidden",),
        "heads": ("heads",),
        "mlp": ("mlp",),
        "hidden+heads": ("hidden", "heads"),
        "hidden+mlp": ("hidden", "mlp"),
        "heads+mlp": ("heads", "mlp"),
    }
)
# Values of `optimizer_state`, and the blocks whose state is the sources', grown; None: no block's.
OPTIMIZER_STATES = MappingProxyType(
    {"fresh": None, "grown": "all", "grown_diagonal": "diagonal", "grown_first": "first"}
)
SCHEDULES = ("restart", "continue")
# Values of `depth` and `shape`, and what fields of the size's model are multiplied by. Two models,
# one of each shape but "even", have the widths of two even ones; at `tiny` as many weights, too.
DEPTHS = MappingProxyType({"whole": {}, "half": {"num_layers": 1 / 2}})
SHAPES = MappingProxyType(
    {
        "even": {},
        "attention": {"num_heads": 3 / 2, "intermediate_dim": 1 / 2},
        "mlp": {"num_heads": 1 / 2, "intermediate_dim": 3 / 2},
    }
)
# Values of `text`, and the numbers of the texts of a run that stand in a batch, in equal shares.
TEXTS = MappingProxyType({"first": (0,), "second": (1,), "both": (0, 1)})
TEXT_NAMES = ("first", "second")  # of one
# The fewest tokens that an encoder sees: one of the text, a sentinel and EOS.
SHORTEST = 3
# Settings of a further validation set of a stage.
OF_VALIDATION = ("text", "training_length")
DTYPES = ("float32", "mixed_bfloat16")
# The scale that makes 1/sqrt(max(n, warm-up)) a learning rate that the optimizer can use:
# Adafactor's step is relative to the parameter's own RMS, AdamW's is not.
OPTIMIZER_SCALES = {"adafactor": 1.0, "adamw": 0.05, "muon": 0.1}
# Optimizers whose state can grow.
GROWING_OPTIMIZERS = ("adafactor", "adamw")


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """Settings that one stage is trained with.

    `noise`, `noise_kind`, `norm` and `optimizer_state` are None where nothing is fused, `fill`,
    `asymmetry` and `grow` where no model is fused with itself, `schedule` and `rewarmup_steps`
    where the stage neither fuses nor stacks, `depth` and `shape` where it does, `decay_steps` and
    `text` where it continues another one, `clip_norm` where gradients are not clipped,
    `training_length` where it is the run's. The dtype is Keras' policy: mixed_bfloat16 has float32
    weights and bfloat16 products.
    """

    steps: int = option(help="Training steps.", at_least=1, group="Settings of stages")
    warmup_steps: int = option(
        help="Steps k of constant learning rate in scale / sqrt(max(n + offset, k)).", at_least=1
    )
    learning_rate_offset: int = option(
        help="Offset in that schedule; a negative one holds the maximum for longer."
    )
    learning_rate_scale: float = option(help="Scale in that schedule.", above=0)
    decay_steps: int | None = option(
        help="Last steps of a stage, in which the learning rate falls linearly to zero.", at_least=0
    )
    optimizer: str = option(help="Optimizer.", choices=tuple(OPTIMIZER_SCALES))
    dropout: float = option(help="Dropout rate.", at_least=0, below=1)
    noise: float | None = option(
        help="Noise of a fusion: standard deviation over the RMS of the source weight.", at_least=0
    )
    noise_kind: str | None = option(
        help="Where that noise is: off the diagonal, or balanced.", choices=NOISE_KINDS
    )
    norm: str | None = option(help="Norm of a self-fused stage.", choices=NORMS)
    fill: str | None = option(
        help="Blocks of a self-fusion: the source on the diagonal, or its copies over n in all.",
        choices=FILLS,
    )
    asymmetry: float | None = option(
        help="Largest deviation of the copies' shares from 1/n, over 1/n, with --fill=copies.",
        at_least=0,
        below=1,
    )
    grow: str | None = option(help="Axes of a self-fused model that grow.", choices=GROWTHS)
    optimizer_state: str | None = option(
        help="Optimizer state after a fusion: fresh, or the sources' grown, with their step count: "
        "in all blocks, on the diagonal (Staged Training), or in the first copy's block alone.",
        choices=OPTIMIZER_STATES,
    )
    schedule: str | None = option(
        help="Learning rate after a fusion: the schedule restarts, or continues the sources'.",
        choices=SCHEDULES,
    )
    rewarmup_steps: int | None = option(
        help="Steps after a fusion in which the learning rate rises linearly to that.", at_least=0
    )
    depth: str | None = option(
        help="Layers of a model from random weights: its size's, or half of them, to be stacked.",
        choices=DEPTHS,
    )
    shape: str | None = option(
        help="Shape of a model from random weights: its size's, or half as many heads or units of "
        "the MLP less and the others more.",
        choices=SHAPES,
    )
    text: str | None = option(help="Text to train on; see --second_data_dir.", choices=TEXTS)
    training_length: int | None = option(
        help="Tokens of a sequence that the encoder sees in training; without it --input_length.",
        at_least=SHORTEST,
    )
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

    @property
    def growing(self) -> tuple[str, ...]:
        """Axes of the model that grow where the stage fuses."""
        return GROWTHS[self.grow or "all"]

    @property
    def times(self) -> Mapping[str, float]:
        """Factors that fields of the size's model are multiplied by."""
        return {**DEPTHS[self.depth or "whole"], **SHAPES[self.shape or "even"]}

    def identity(self) -> dict:
        """The settings that make a stage what it is, for telling one run from another.

        Those that only some stages have are among them where they are not their default.
        """
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in self.OPERATIONAL
            and not (name in _OF_SOME and value in (None, _OF_SOME[name][1]))
        }


_OPTIONS = options_of(StageSettings)

# Settings that some stages have: which, their default, and those stages in words.
_SELF_FUSED = (lambda stage: stage.init == "self_fusion"), "stages that fuse a model with itself"
_FUSED = (lambda stage: stage.is_fused), "stages that are fused"
_BEGUN_ANEW = (
    (lambda stage: stage.sources and not stage.is_continued),
    "stages that are fused, stacked or restarted",
)
_SCRATCH = (lambda stage: not stage.sources), "stages from random weights"
_NOT_CONTINUED = (lambda stage: not stage.is_continued), "stages that do not continue another one"
_OF_SOME = {
    "noise": (_FUSED, None),  # their default is the size's
    "noise_kind": (_FUSED, None),
    "decay_steps": (_NOT_CONTINUED, 0),
    "depth": (_SCRATCH, "whole"),
    "shape": (_SCRATCH, "even"),
    "text": (_NOT_CONTINUED, "first"),
    "training_length": (_NOT_CONTINUED, None),
    "fill": (_SELF_FUSED, "diagonal"),
    "asymmetry": (_SELF_FUSED, 0.0),
    "grow": (_SELF_FUSED, "all"),
    "optimizer_state": (_FUSED, "fresh"),
    "schedule": (_BEGUN_ANEW, "restart"),
    "rewarmup_steps": (_BEGUN_ANEW, 0),
}


def default_of(setting: str) -> object:
    """Returns what a setting is in most stages; None where none is more usual than others."""
    return _OF_SOME[setting][1] if setting in _OF_SOME else None


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
            expected = _OPTIONS[setting].words + _OPTIONS[setting].beyond(value)
            raise _misread(setting, text, expected) from None
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
        UserError: a norm is asked for that the stage's init does not keep, or another setting
            that the stage cannot have or that does not go with its others.
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
    named = {name for name in flags if not {stage.name, stage.base}.isdisjoint(flags[name])}
    values["norm"] = _norm(stage, values["norm"], named="norm" in named)
    for setting, ((has_it, which), default) in _OF_SOME.items():
        if has_it(stage):
            values[setting] = default if values[setting] is None else values[setting]
        elif setting in named or setting in stage.settings:
            received = f"{setting}={values[setting]!r} for stage {stage.name!r}"
            raise UserError(f"--{setting} of {which} only", received, "Leave it out there")
        else:
            values[setting] = None
    settings = StageSettings(**values)
    _check_together(stage, settings)
    return settings


def takes_second(stage: Stage, settings: StageSettings) -> bool:
    """Returns whether a stage is trained or evaluated on the second text."""
    texts = [settings.text, *(of.get("text") for of in stage.validations.values())]
    return any(1 in TEXTS[text or "first"] for text in texts)


def _check_together(stage: Stage, settings: StageSettings):
    """Checks that settings of a stage go together."""
    is_grown = OPTIMIZER_STATES[settings.optimizer_state or "fresh"] is not None
    for holds, expected, name, do in (
        (
            not settings.asymmetry or settings.fill == "copies",
            "an asymmetry of copies",
            "fill",
            "Give --fill=copies, or leave out --asymmetry",
        ),
        (
            (settings.decay_steps or 0) <= settings.steps,
            f"a decay within the {settings.steps} steps",
            "decay_steps",
            "Shorten it",
        ),
        (
            not is_grown or settings.optimizer in GROWING_OPTIMIZERS,
            f"an optimizer whose state can grow ({', '.join(GROWING_OPTIMIZERS)})",
            "optimizer",
            "Take one of them, or --optimizer_state=fresh",
        ),
    ):
        if not holds:
            received = f"{name}={getattr(settings, name)!r}"
            raise UserError(f"{expected} in stage {stage.name!r}", received, do)


def _seed(stage: Stage, value: int, given: Mapping[str, object]) -> int:
    """The seed of a stage, from the value that counts for it."""
    if stage.name in given:
        return value
    if stage.base not in given and "seed" not in stage.settings:
        value = 1000 * value + stage.seed
    return value + 1000 * (stage.repeat - 1)


def check_plan_settings(stage: Stage):
    """Checks that what a plan fixes for a stage is a setting, and of its kind."""
    _check_plan_settings(f"stage {stage.name!r}", stage.settings, _OPTIONS)
    for name, content in stage.validations.items():
        where = f"validation {name!r} of stage {stage.name!r}"
        # It stands in tables, pictures and the tags of TensorBoard.
        if not re.fullmatch(r"[\w-]+( [\w-]+)*", name):
            words = f"the name of a validation of stage {stage.name!r} in letters, digits, '_', '-'"
            raise UserError(f"{words} and single spaces", f"name={name!r}", "Correct the plan")
        if not isinstance(content, Mapping):
            raise UserError(f"settings of {where}", repr(content), "Correct the plan")
        _check_plan_settings(where, content, OF_VALIDATION)


def _check_plan_settings(where: str, content: Mapping, names: Collection[str]):
    for name, value in content.items():
        if name not in names:
            expected = f"the settings of {where} among {', '.join(names)}"
        elif not _OPTIONS[name].accepts(value):
            words = _OPTIONS[name].words + _OPTIONS[name].beyond(value)
            expected = f"{name} of {where} to be {words}"
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
