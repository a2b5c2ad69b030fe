"""Widths and depths of the models of a plan: they fit together, before anything is trained."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.plans.settings import GROWTHS

# Axes of a model, and the fields of its config that a fusion adds up where they grow; those that
# may differ between a fused model and its sources for other reasons. Everything else has to be
# equal.
GROWING_FIELDS = MappingProxyType(
    {"hidden": "hidden_dim", "heads": "num_heads", "mlp": "intermediate_dim"}
)
FREE_FIELDS = ("dropout", "norm_groups", "blocks")

Fields = Mapping[str, object]


def check_widths(
    stages: Sequence[Stage],
    configs: Mapping[str, Fields],
    growths: Mapping[str, Sequence[str]] = MappingProxyType({}),
    resized: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
):
    """Checks, before anything is trained, that every fusion gives the size that its stage has.

    A stage that is stacked, or that grows along some axes and has the size letter of its source,
    is a model between the sizes.

    Args:
        stages: all stages, sources first.
        configs: size letter to the fields of its model.
        growths: stage to the axes along which it grows, where these are not all.
        resized: stage to what fields of its size are multiplied by, where any are.

    Raises:
        UserError: a size is not defined, or fields of a stage do not follow from its sources.
    """
    by_name = {stage.name: stage for stage in stages}
    for stage in stages:
        if stage.size not in configs:
            raise UserError(
                f"the sizes of all stages among {', '.join(configs)}",
                f"size={stage.size!r} of stage {stage.name!r}",
                "Choose a --size that defines it",
            )
        parents = [by_name[name] for name in stage.parents]
        between = stage.name in growths or stage.has_model_of_source
        if stage.is_stacked or (between and parents[0].size == stage.size):
            continue
        fields = [model_fields(parent, by_name, configs, growths, resized) for parent in parents]
        axes = growths.get(stage.name, GROWTHS["all"])
        if wrong := _misfits(fields, configs[stage.size], axes):
            raise UserError(
                f"what stage {stage.name!r} comes from "
                f"({' + '.join(stage.parents)}) to give its size {stage.size}",
                "; ".join(wrong),
                "Change its sources or its size",
            )


def model_fields(
    stage: Stage,
    stages: Mapping[str, Stage],
    configs: Mapping[str, Fields],
    growths: Mapping[str, Sequence[str]] = MappingProxyType({}),
    resized: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Fields:
    """Fields of the config of a stage's model, groups and blocks of its fusion aside.

    They are those of its size, or follow from its source where it is a model between the sizes.

    Args:
        stage: the stage.
        stages: the stages that it comes from, by name.
        configs, growths, resized: as for `check_widths`.

    Raises:
        UserError: a field that is multiplied to no whole number.
    """
    if stage.name in resized:
        return configs[stage.size] | _multiplied(stage, configs[stage.size], resized[stage.name])
    if not (stage.is_stacked or stage.has_model_of_source or stage.name in growths):
        return configs[stage.size]
    source = stages[stage.sources[0]]
    fields = dict(model_fields(source, stages, configs, growths, resized))
    if stage.is_stacked:
        fields["num_layers"] *= stage.copies
    for axis in growths.get(stage.name, ()):
        fields[GROWING_FIELDS[axis]] *= stage.copies
    return fields


def _multiplied(stage: Stage, whole: Fields, times: Mapping[str, float]) -> dict[str, int]:
    """The fields of a model that differ from those of its size."""
    fields = {}
    for field, factor in times.items():
        if not (whole[field] * factor).is_integer():
            raise UserError(
                f"{factor:g} times the {field} of size {stage.size} to be a whole number, as "
                f"stage {stage.name!r} has so many",
                f"{field}={whole[field]}",
                "Leave out its --depth or --shape, or take another --size",
            )
        fields[field] = int(whole[field] * factor)
    return fields


def _misfits(parents: Sequence[Fields], target: Fields, axes: Sequence[str]) -> list[str]:
    """Descriptions of the fields of `target` that fusing `parents` would not give."""
    wrong = []
    growing = [GROWING_FIELDS[axis] for axis in axes]
    for field, wanted in target.items() if parents else ():
        values = [parent[field] for parent in parents]
        if field in growing:
            if sum(values) != wanted:
                wrong.append(f"{field}={'+'.join(map(str, values))}, not {wanted}")
        elif field not in FREE_FIELDS and any(value != wanted for value in values):
            wrong.append(f"{field}={'/'.join(map(str, dict.fromkeys(values)))}, not {wanted}")
    return wrong
