"""Kinds of values in the JSON files of a run, and a check of the fields of an object."""

import math

from trainers.errors import UserError

# A number is null where a run diverged.
TEXT, COUNT, FINITE = "a text", "an integer", "a finite number"
NUMBER, NAMES, STEPS = "a number or null", "a list of stage names", "the step of each source"
EVALUATIONS, OBJECT = "a list of evaluations", "a JSON object"
SCHEDULE, VALIDATIONS = "warmup_steps, offset and scale", "numbers of validation sets by name"
TEXT_OR_NULL, OBJECTS = "a text or null", "a JSON object of objects"
COUNTS = "numbers of at least 0 by name"
EXPERIMENTS = "a JSON object of objects, whose points are objects"


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value):
    return _is_number(value) and math.isfinite(value)


def _is_schedule(value):
    names = ("warmup_steps", "offset", "scale")
    return isinstance(value, dict) and all(_is_finite(value.get(name)) for name in names)


def _is_objects(value):
    return isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())


def _is_experiments(value):
    return _is_objects(value) and all(_is_objects(v.get("points") or {}) for v in value.values())


def _is_validations(value):
    names = ("loss_per_token", "accuracy")
    return _is_objects(value) and all(
        _is_finite(numbers.get(name)) for numbers in value.values() for name in names
    )


def _is_counts(value):
    return isinstance(value, dict) and all(_is_finite(v) and v >= 0 for v in value.values())


_CHECKS = {
    TEXT: lambda value: isinstance(value, str),
    TEXT_OR_NULL: lambda value: value is None or isinstance(value, str),
    COUNT: lambda value: type(value) is int,
    FINITE: _is_finite,
    NUMBER: lambda value: value is None or _is_number(value),
    NAMES: lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    STEPS: lambda value: isinstance(value, dict) and all(type(v) is int for v in value.values()),
    EVALUATIONS: lambda value: isinstance(value, list),
    COUNTS: _is_counts,
    OBJECT: lambda value: isinstance(value, dict),
    OBJECTS: _is_objects,
    EXPERIMENTS: _is_experiments,
    SCHEDULE: _is_schedule,
    VALIDATIONS: _is_validations,
}


def read(entry, fields, where):
    """Returns the fields of a JSON object, each checked to be of its kind.

    Args:
        entry: the object; further fields of it are left out.
        fields: {name: kind}.
        where: the file, and the place in it.

    Raises:
        UserError: a field is missing or of another kind.
    """
    missing = [name for name in fields if name not in entry]
    if missing:
        raise UserError(
            f"the fields {', '.join(fields)} in {where}",
            f"none of the name {', '.join(missing)}",
            "Make the report with the version that wrote it, or run the stage again",
        )
    check(entry, fields, where, "Run the stage again in an empty folder")
    return {name: _kept(entry[name]) for name in fields}


def check(entry, fields, where, do):
    """Raises a `UserError`, with what to do, unless those fields that are there have their kind."""
    for name, kind in fields.items():
        if name in entry and not _CHECKS[kind](entry[name]):
            raise UserError(f"{kind} for {name!r} in {where}", f"{name}={entry[name]!r}", do)


def _kept(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return tuple(value) if isinstance(value, list) else value
