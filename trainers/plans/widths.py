"""Checks that the models of a plan fit together, before anything is trained."""

from collections.abc import Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.graph import Stage

# Fields of a model's config that a fusion adds up; those that may differ between a fused model
# and its sources for other reasons. Everything else has to be equal.
GROWING_FIELDS = ("hidden_dim", "num_heads", "intermediate_dim")
FREE_FIELDS = ("dropout", "norm_groups", "blocks")


def check_widths(stages: Sequence[Stage], configs: Mapping[str, Mapping[str, object]]):
    """Checks, before anything is trained, that every fusion gives the size that its stage has.

    Raises:
        UserError: a size is not defined, or fields of a stage do not follow from its sources.
    """
    size_of = {stage.name: stage.size for stage in stages}
    for stage in stages:
        if stage.size not in configs:
            raise UserError(
                f"the sizes of all stages among {', '.join(configs)}",
                f"size={stage.size!r} of stage {stage.name!r}",
                "Choose a --size that defines it",
            )
        parents = [configs[size_of[name]] for name in stage.parents]
        if wrong := _misfits(parents, configs[stage.size]):
            raise UserError(
                f"what stage {stage.name!r} comes from "
                f"({' + '.join(stage.parents)}) to give its size {stage.size}",
                "; ".join(wrong),
                "Change its sources or its size",
            )


def _misfits(parents: Sequence[Mapping[str, object]], target: Mapping[str, object]) -> list[str]:
    """Descriptions of the fields of `target` that fusing `parents` would not give."""
    wrong = []
    for field, wanted in target.items() if parents else ():
        values = [parent[field] for parent in parents]
        if field in GROWING_FIELDS:
            if sum(values) != wanted:
                wrong.append(f"{field}={'+'.join(map(str, values))}, not {wanted}")
        elif field not in FREE_FIELDS and any(value != wanted for value in values):
            wrong.append(f"{field}={'/'.join(map(str, dict.fromkeys(values)))}, not {wanted}")
    return wrong
