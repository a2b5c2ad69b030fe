"""Stages that commands have asked for in the folder of a run, and which of them are trained.

run.json has them under "planned": stage name to the fields of `Stage` that are not their default.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from trainers.files import read_json
from trainers.plans.graph import Stage
from trainers.runs.state import RunState
from trainers.runs.workdir import RUN_FILE


def with_stages(state: RunState, stages: Iterable[Stage]) -> dict[str, dict]:
    """Returns what run.json has of all stages that were asked for, and of these."""
    return _read(state) | {stage.name: _fields(stage) for stage in stages}


def unfinished(state: RunState) -> list[str]:
    """Returns the stages that are still to be trained, without those that others beat."""
    settled, names = set(), []
    for name, fields in _read(state).items():
        stage = Stage(**{field: _value(value) for field, value in fields.items()})
        is_beaten = stage.rivals and settled.issuperset(stage.rivals)
        if state.record(name) is not None or (is_beaten and not is_promoted(stage, state)):
            settled.add(name)
        else:
            names.append(name)
    return names


def is_promoted(stage: Stage, state: RunState) -> bool:
    """Returns whether what a stage stands for is among the `keep` finished rivals of lowest loss.

    Of equal ones the one that is named first counts as better. Without rivals it is.
    """
    if not stage.rivals:
        return True
    finished = [name for name in stage.rivals if state.record(name) is not None]
    best = sorted(finished, key=lambda name: state.record(name)["loss_per_token"])[: stage.keep]
    return stage.promoted <= set(best)


def _read(state: RunState) -> dict[str, dict]:
    path = state.path / RUN_FILE
    return read_json(path).get("planned", {}) if path.exists() else {}


def _fields(stage: Stage) -> dict:
    default = Stage("name", "S")
    content: Mapping = dataclasses.asdict(stage)
    kept = {n: v for n, v in content.items() if n in ("name", "size") or v != getattr(default, n)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}


def _value(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
