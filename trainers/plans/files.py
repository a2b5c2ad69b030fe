"""Plans that users write: a JSON file with stages, for `--plan_file`.

    {
      "name": "two_then_one",
      "description": "two small models fused, then fused with itself",
      "stages": [
        {"name": "a", "size": "S", "seed": 0},
        {"name": "b", "size": "S", "seed": 1},
        {"name": "m", "size": "M", "init": "fusion_property", "sources": ["a@500", "b"],
         "seed": 2, "settings": {"noise": 0.05, "learning_rate_offset": -100}},
        {"name": "l", "size": "L", "init": "self_fusion", "sources": ["m"], "copies": 2,
         "norm": "property", "seed": 3}
      ]
    }

The fields of a stage are those of `trainers.plans.graph.Stage`; all but name and size may be
left out.
Stages may stand in any order. A source `a@500` is the checkpoint of `a` at step 500, which has to
be one of those that it writes (`--checkpoint_every`). A stage with `"init": "continued"` trains its
source for more steps, `"until"` it is as accurate as another stage was at its end. Settings are
those of the flags; they win over flags for a size, not over flags for the stage. A stage of a known
plan may be written down once more: where it says the same, it is the same stage and is trained
once.
"""

import json
import os
import pathlib
from collections.abc import Mapping

from trainers import files
from trainers.errors import UserError
from trainers.plans import settings
from trainers.plans.generated import GENERATED
from trainers.plans.graph import Stage, in_order
from trainers.plans.known import PLANS
from trainers.plans.plan import Plan

_LIMIT = 1 << 20  # bytes of a plan file
_PLAN_FIELDS = {"name": str, "description": str, "stages": list}
_STAGE_FIELDS = {
    "name": str,
    "size": str,
    "init": str,
    "sources": list,
    "copies": int,
    "norm": str,
    "seed": int,
    "settings": dict,
    "like": str,
    "until": str,
    "rivals": list,
    "keep": int,
}
_WORDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def read_plan(path: str | os.PathLike) -> Plan:
    """Reads a plan from a JSON file.

    Raises:
        UserError: it cannot be read; a field is unknown, missing or of another type; a stage makes
            no sense; a source is no stage of the file; a cycle; a name that a known plan has.
    """
    path = pathlib.Path(path)
    content = _fields(_parse(path), _PLAN_FIELDS, ("name", "stages"), str(path), "the plan")
    try:
        stages = in_order(_stage(entry, path) for entry in content["stages"])
        for stage in stages:
            settings.check_plan_settings(stage)
        _check_names(content["name"], stages)
    except UserError as error:
        raise UserError(f"{error} (In {path}.)") from None
    return Plan(content["name"], content.get("description", ""), stages)


def _parse(path: pathlib.Path) -> object:
    try:
        text = files.read_file(path, _LIMIT)
        json.loads(text)  # for the line of a mistake
        return files.parse_json(text)
    except OSError as error:
        where, do = error.strerror or str(error), "Check the path"
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        do = "Correct the file"
    except (ValueError, RecursionError) as error:
        where, do = str(error), "Correct the file"
    raise UserError(
        expected="--plan_file to be a JSON file",
        received=f"plan_file={str(path)!r}, {where}",
        do=do,
    )


def _fields(
    entry: object, known: Mapping[str, type], needed: tuple[str, ...], file: str, what: str
) -> dict:
    """The entry as an object whose fields are known and of their types."""

    def check(holds: bool, expected: str, received: str):
        if not holds:
            raise UserError(
                expected=expected, received=f"{received} in {file}", do="Correct the file"
            )

    check(isinstance(entry, dict), f"{what} to be a JSON object", _short(entry))
    for field, value in entry.items():
        received = f"{field}={_short(value)}"
        check(field in known, f"the fields of {what} among {', '.join(known)}", received)
        kind = known[field]
        check(type(value) is kind, f"{field} of {what} to be {_WORDS[kind]}", received)
    for field in needed:
        there = ", ".join(entry) or "no field"
        check(field in entry, f"{what} to have the field {field}", there)
    return entry


def _stage(entry: object, path: pathlib.Path) -> Stage:
    what = "a stage"
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        what = f"stage {entry['name']!r}"
    fields = dict(_fields(entry, _STAGE_FIELDS, ("name", "size"), path.name, what))
    sources, steps = [], {}
    for text in fields.pop("sources", ()):
        source, at, step = text.partition("@") if isinstance(text, str) else ("", "@", "")
        if at and not (step.isascii() and step.isdigit()):
            raise UserError(
                expected=f"the sources of {what} to be STAGE or STAGE@STEP",
                received=f"source={_short(text)}",
                do="Correct it",
            )
        if source in sources and (at or source in steps):
            raise UserError(
                expected=f"one checkpoint of each source of {what}",
                received=f"source={_short(text)} beside another of it",
                do="Leave one of them out",
            )
        sources.append(source)
        if at:
            steps[source] = int(step)
    if fields.get("seed", 0) < 0:
        raise UserError(
            expected=f"the seed of {what} to be at least 0",
            received=f"seed={fields['seed']}",
            do="Choose another one",
        )
    rivals = tuple(map(str, fields.pop("rivals", ())))
    return Stage(**fields, sources=tuple(sources), source_steps=steps, rivals=rivals)


def _check_names(name: str, stages: tuple[Stage, ...]):
    """Refuses names that mean something else already, or nothing."""
    if not name or not stages:
        raise UserError(
            expected="a plan with a name and stages",
            received=f"name={name!r} with {len(stages)} stages",
            do="Correct the file",
        )
    if name in PLANS or name in GENERATED:
        raise UserError(
            expected=f"a plan name other than {', '.join((*PLANS, *GENERATED))}, known plans",
            received=f"name={name!r}",
            do="Rename the plan",
        )
    planned = {stage.name: stage for plan in PLANS.values() for stage in plan.stages}
    names = {*planned, *(stage.name for stage in stages), None}
    for stage in stages:
        if planned.get(stage.name, stage) != stage:
            raise UserError(
                expected="stage names that no known plan has, or the same stage",
                received=f"name={stage.name!r}, which is another stage there",
                do="Rename it",
            )
        if stage.like not in names:
            raise UserError(
                expected=f"stage {stage.name!r} to be like a stage of this or a known plan",
                received=f"like={stage.like!r}",
                do="Correct it",
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
