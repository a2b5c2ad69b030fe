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
source for more steps, `"until"` it is as accurate as another stage was at its end; one with
`"init": "stacked"` has the layers of its source `copies` times; `"init": "restarted"` has the
model of its source, with a fresh optimizer. A self-fusion that grows along some
axes, as with `"settings": {"grow": "mlp"}`, has the size letter of its source: its model lies
between the sizes. Settings are those of the flags; they win over flags for a size, not over flags
for the stage. `"validations": {"longer": {"training_length": 128}}` also evaluates a stage on such
batches. A stage of a known plan may be written down once more: where it says the same, it is
the same stage and is trained once.
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
    "validations": dict,
}
_WORDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def read_plan(path: str | os.PathLike) -> Plan:
    """Reads a plan from a JSON file.

    Raises:
        UserError: it cannot be read; a field is unknown, missing or of another type; a stage makes
            no sense; a source is no stage of the file; a cycle; a name that a known plan has.
    """
    path = pathlib.Path(path)
    content = _parse(path)
    try:
        _check_fields(content, _PLAN_FIELDS, ("name", "stages"), "the plan")
        stages = in_order(map(_stage, content["stages"]))
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
    raise UserError("--plan_file to be a JSON file", f"plan_file={str(path)!r}, {where}", do)


def _check(holds: object, expected: str, received: str):
    if not holds:
        raise UserError(expected, received, "Correct the file")


def _check_fields(entry: object, types: Mapping[str, type], needed: tuple[str, ...], subject: str):
    """Checks that an entry is an object whose fields are known and of their types."""
    _check(isinstance(entry, dict), f"{subject} to be a JSON object", _short(entry))
    for field, value in entry.items():
        received = f"{field}={_short(value)}"
        _check(field in types, f"the fields of {subject} among {', '.join(types)}", received)
        kind = types[field]
        _check(type(value) is kind, f"{field} of {subject} to be {_WORDS[kind]}", received)
    for field in needed:
        there = ", ".join(entry) or "no field"
        _check(field in entry, f"{subject} to have the field {field}", there)


def _stage(entry: object) -> Stage:
    subject = "a stage"
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        subject = f"stage {entry['name']!r}"
    _check_fields(entry, _STAGE_FIELDS, ("name", "size"), subject)
    fields, sources, steps = dict(entry), [], {}
    for text in fields.pop("sources", ()):
        source, at, step = text.partition("@") if isinstance(text, str) else ("", "@", "")
        received = f"source={_short(text)}"
        is_step = not at or (step.isascii() and step.isdigit() and len(step) < 19)
        _check(is_step, f"the sources of {subject} to be STAGE or STAGE@STEP", received)
        is_other = source in sources and (at or source in steps)
        beside = f"{received} beside another of it"
        _check(not is_other, f"one checkpoint of each source of {subject}", beside)
        sources.append(source)
        if at:
            steps[source] = int(step)
    seed = fields.get("seed", 0)
    _check(seed >= 0, f"the seed of {subject} to be at least 0", f"seed={seed}")
    rivals = tuple(map(str, fields.pop("rivals", ())))
    return Stage(**fields, sources=tuple(sources), source_steps=steps, rivals=rivals)


def _check_names(name: str, stages: tuple[Stage, ...]):
    """Refuses names that mean something else already, or nothing."""
    received = f"name={name!r} with {len(stages)} stages"
    _check(name and stages, "a plan with a name and stages", received)
    taken = *PLANS, *GENERATED
    other = f"a plan name other than {', '.join(taken)}, known plans"
    _check(name not in taken, other, f"name={name!r}")
    planned = {stage.name: stage for plan in PLANS.values() for stage in plan.stages}
    names = {*planned, *(stage.name for stage in stages), None}
    for stage in stages:
        new = "stage names that no known plan has, or the same stage"
        received = f"name={stage.name!r}, which is another stage there"
        _check(planned.get(stage.name, stage) == stage, new, received)
        like = f"stage {stage.name!r} to be like a stage of this or a known plan"
        _check(stage.like in names, like, f"like={stage.like!r}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
