"""Stages that commands have asked for in the folder of a run, and which of them are trained.

run.json has them under "planned": stage name to the fields of `Stage` that are not their default.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans.graph import Stage
from trainers.runs import kinds
from trainers.runs.state import RunState
from trainers.runs.workdir import RUN_FILE

_RESTORE = "Restore the file, or start in a new folder"


def with_stages(state: RunState, stages: Iterable[Stage]) -> dict[str, dict]:
    """Returns what run.json has of all stages that were asked for, and of these."""
    return _read(state) | {stage.name: _fields(stage) for stage in stages}


def unfinished(state: RunState) -> list[str]:
    """Returns the stages that are still to be trained, without those that others beat."""
    settled, names = set(), []
    for name, fields in _read(state).items():
        stage = _stage(fields, state)
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
    content = read_json(path) if path.exists() else {}
    kinds.check(content, {"planned": kinds.OBJECTS}, path, _RESTORE)
    return content.get("planned", {})


def _fields(stage: Stage) -> dict:
    default = Stage("name", "S")
    content: Mapping = dataclasses.asdict(stage)
    kept = {n: v for n, v in content.items() if n in ("name", "size") or v != getattr(default, n)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}


def _stage(fields: dict, state: RunState) -> Stage:
    try:
        return Stage(**{field: _value(value) for field, value in fields.items()})
    except TypeError:
        expected = f"the fields of a stage in {state.path / RUN_FILE}, planned"
        raise UserError(expected, f"{fields}, of another version or program", _RESTORE) from None


def _value(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
