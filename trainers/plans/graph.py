"""The graph of a plan: stages, their sources, and checks that they can be trained at all.

A stage that is fused or continued names its sources; the stages of one or more plans are a directed
acyclic graph, which is put in order and checked here before anything is trained.

Example:
    >>> small = Stage("small", "S")
    >>> big = Stage("big", "M", "self_fusion", ("small",), copies=2)
    >>> [stage.name for stage in in_order([big, small])]
    ['small', 'big']
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from trainers.errors import UserError
from trainers.plans.sizes import SIZE_LETTERS

# Norms that a fusion keeps (section 3.2): those of the library, which takes seconds to import.
NORMS = ("property", "rule")
MOST_COPIES = 1_000
# What a run's folder holds beside its stages.
RESERVED_NAMES = ("data", "report")

# How a stage gets its first weights: the norm that its fusion keeps, and how many different
# sources it takes (at least, at most; None: no limit).
INITS = MappingProxyType(
    {
        "scratch": (None, 0, 0),
        "self_fusion": ("rule", 1, 1),
        "fusion_property": ("property", 2, None),
        "fusion_rule": ("rule", 2, None),
        "stacked": (None, 1, 1),
        "restarted": (None, 1, 1),
        "continued": (None, 1, 1),
    }
)
# Those that take their only source several times.
_COPYING = ("self_fusion", "stacked")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One model of a plan: what it starts from; it is then trained for a number of steps.

    A self-fused stage keeps one norm over the whole width (`norm="rule"`) unless told otherwise:
    copies of one model have equal statistics, so this too preserves its function, and what is
    trained on is a plain T5 like the baseline, to which the two compare by their start alone.

    Raises:
        UserError: a value is unknown, or the sources do not go with `init`.
    """

    name: str  # folder of the stage in the workdir, and its name in reports and flags
    size: str  # "S", "M" or "L"; what they are is said by `--size`
    # "scratch", "self_fusion", "fusion_property", "fusion_rule"; "stacked", whose layers are those
    # of its source, all of them, `copies` times one after the other; "restarted", with the weights
    # of its source and nothing else of it, a control of what grows; or "continued", which resumes
    # where its source ended, as if that had been longer: with its weights, optimizer, batches and
    # settings. Steps and costs of the stage are those that come on top.
    init: str = "scratch"
    sources: tuple[str, ...] = ()  # names of the stages that it is fused from, or continues
    copies: int = 1  # how many copies of its only source a self-fusion or a stack takes
    norm: str | None = None  # "property" or "rule" (section 3.2); None takes what `init` says
    seed: int = 0  # of weights, noise, dropout and batches, within a run's seed
    # Settings that the plan fixes for this stage (see trainers/plans/settings.py).
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    # Name of a stage whose flags and defaults count for this one too, where it has none.
    like: str | None = None
    # Source to the step whose checkpoint is fused; of others it is their last.
    source_steps: Mapping[str, int] = dataclasses.field(default_factory=dict)
    repeat: int = 1  # number of the repeat of the plan that it belongs to, from 1; see `repeated`
    # Name of a stage; this one ends early when it is as accurate as that was at its end.
    until: str | None = None
    # Names of stages, its source among them; it is trained only if its source is among the `keep`
    # of them whose loss is lowest. What is not trained is no rival either.
    rivals: tuple[str, ...] = ()
    keep: int = 1  # see `rivals`
    # Name of the rival that has to be among the best, where that is not the source.
    stands_for: str | None = None
    # What else it is evaluated on, besides the validation set of the run: name to "text" and
    # "training_length" of stages that are trained on such batches, where they are not the run's.
    validations: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        norm, fewest, most = INITS.get(self.init, (None, 0, 0))
        object.__setattr__(self, "norm", self.norm or norm)
        for field, holds, expected in self._rules(norm, fewest, most):
            if not holds:
                value = getattr(self, field)
                shown = list(value) if isinstance(value, tuple) else value
                do = "Rename the stage" if field == "name" else "Correct the plan"
                raise UserError(expected, f"{field}={shown!r}", do)

    def _rules(self, norm: str | None, fewest: int, most: int | None):
        """Yields a field, whether it holds what it must, and what that is; others may follow."""
        plain = self.name.replace("_", "").replace("-", "")
        letters = ", ".join(SIZE_LETTERS)
        yield "name", plain.isalnum(), "a stage name of letters, digits, '_' and '-'"
        folders = f"a stage name other than {', '.join(RESERVED_NAMES)}, folders of a run"
        yield "name", self.name not in RESERVED_NAMES, folders
        stands = f"a stage name that is no size; {letters} stand for all of a size"
        yield "name", self.name not in SIZE_LETTERS, stands
        sizes = f"the size of stage {self.name!r} to be one of {letters}"
        yield "size", self.size in SIZE_LETTERS, sizes
        inits = f"the init of stage {self.name!r} to be one of {', '.join(INITS)}"
        yield "init", self.init in INITS, inits

        where = f"stage {self.name!r} with init {self.init!r}"
        number = str(fewest) if most == fewest else f"at least {fewest}"
        enough = fewest <= len(self.sources) <= (len(self.sources) if most is None else most)
        yield "sources", enough, f"{where} to name {number} source(s)"
        is_copying = self.init in _COPYING
        few, most = (2, MOST_COPIES) if is_copying else (1, 1)
        copies = f"{where} to take {f'{few} to {most:,}' if is_copying else few} copies"
        yield "copies", few <= self.copies <= most, copies
        norms = NORMS if self.init == "self_fusion" else (norm,)
        words = f"the norm of {where} to be {' or '.join(map(str, norms))}"
        yield "norm", self.norm in norms, words
        ends = f"{where} to resume at the end of its source"
        yield "source_steps", not (self.source_steps and self.is_continued), ends
        for source, step in self.source_steps.items():
            is_usable = source in self.sources and type(step) is int and step >= 1
            steps = f"steps of at least 1 of the sources of {where}, unlike source={source}@{step}"
            yield "source_steps", is_usable, steps
        rivals = not self.rivals or (self.promoted <= set(self.rivals) and self.keep >= 1)
        among = f"rivals of {where} with its source among them, at least one to keep"
        yield "rivals", rivals, among

    @property
    def base(self) -> str:
        """Its name in the first repeat: what the repeats of a stage have in common."""
        return self.name.removesuffix(f"_r{self.repeat}") if self.repeat > 1 else self.name

    @property
    def is_fused(self) -> bool:
        """True if the stage starts from other stages' weights, placed side by side."""
        return INITS[self.init][0] is not None

    @property
    def is_stacked(self) -> bool:
        """True if the stage starts from the layers of its source, several times."""
        return self.init == "stacked"

    @property
    def has_model_of_source(self) -> bool:
        """True if the stage trains the model of its source further."""
        return self.init in ("restarted", "continued")

    @property
    def is_continued(self) -> bool:
        """True if the stage resumes where its source ended."""
        return self.init == "continued"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages that come before it: sources, rivals and the one to catch up with."""
        return (*self.sources, *self.rivals, *([self.until] if self.until else ()))

    @property
    def promoted(self) -> set[str]:
        """Names of the rivals that have to be among the best."""
        return {self.stands_for} if self.stands_for else set(self.sources)

    @property
    def parents(self) -> tuple[str, ...]:
        """The models that the stage is made of, a copy for each time one is taken."""
        return self.sources * self.copies

    def written(self, source: str) -> str:
        """A source as plan files write it: STAGE, or STAGE@STEP where it is not the last one."""
        step = self.source_steps.get(source)
        return source if step is None else f"{source}@{step}"

    def to_dict(self) -> dict:
        """The stage as JSON holds it."""
        lists = {"sources": list(self.sources), "rivals": list(self.rivals)}
        return dataclasses.asdict(self) | lists


def repeated(stages: Sequence[Stage], repeats: int) -> tuple[Stage, ...]:
    """The stages, and once more for each further repeat, with names and seeds of their own.

    The first repeat is the stages as they are, so that a run may be repeated later and trains
    only what is missing; STAGE_r2, STAGE_r3 … are what a run with the next seed would train.

    Example:
        >>> [stage.name for stage in repeated([Stage("small", "S")], 3)]
        ['small', 'small_r2', 'small_r3']
    """
    return (*stages, *(_again(s, repeat) for repeat in range(2, repeats + 1) for s in stages))


def repeat_name(stage: str, repeat: int) -> str:
    """The name of a stage in a repeat, from 1: `small`, `small_r2`, `small_r3` …"""
    return f"{stage}_r{repeat}" if repeat > 1 else stage


def _again(stage: Stage, repeat: int) -> Stage:
    name = functools.partial(repeat_name, repeat=repeat)
    return dataclasses.replace(
        stage,
        name=name(stage.name),
        sources=tuple(map(name, stage.sources)),
        source_steps={name(source): step for source, step in stage.source_steps.items()},
        until=stage.until and name(stage.until),
        rivals=tuple(map(name, stage.rivals)),
        stands_for=stage.stands_for and name(stage.stands_for),
        repeat=repeat,
    )


def fused_steps(stages: Iterable[Stage]) -> dict[str, list[int]]:
    """Stage to the steps, before its last, at which others are fused from it, ascending."""
    steps: dict[str, set[int]] = {}
    for stage in stages:
        for source, step in stage.source_steps.items():
            steps.setdefault(source, set()).add(step)
    return {source: sorted(numbers) for source, numbers in steps.items()}


def in_order(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Sorts stages so that every one comes after those that it needs, else as they were given.

    Raises:
        UserError: a name stands twice; a source is no stage; a stage needs itself.
    """
    by_name: dict[str, Stage] = {}
    for stage in stages:
        if stage.name in by_name:
            raise UserError(
                "each stage name once in a plan", f"name={stage.name!r} twice", "Rename one of them"
            )
        by_name[stage.name] = stage
    done: dict[str, Stage] = {}

    def visit(name: str, path: tuple[str, ...]):
        if name in done:
            return
        if name in path:
            cycle = " <- ".join((*path[path.index(name) :], name))
            expected = "stages that do not need themselves"
            raise UserError(expected, f"cycle={cycle}", "Correct the sources of one of them")
        if name not in by_name:
            expected = f"what stage {path[-1]!r} needs among {', '.join(by_name)}"
            raise UserError(expected, f"stage={name!r}", "Correct it or add that stage")
        for needed in by_name[name].needs:
            visit(needed, (*path, name))
        done[name] = by_name[name]

    for name in by_name:
        visit(name, ())
    return tuple(done.values())


def ancestors(stages: Sequence[Stage], name: str) -> tuple[Stage, ...]:
    """The stages that have to be trained for the stage `name`, itself included, in order."""
    needed = {name}
    for stage in reversed(in_order(stages)):
        if stage.name in needed:
            needed.update(stage.needs)
    return tuple(stage for stage in in_order(stages) if stage.name in needed)
