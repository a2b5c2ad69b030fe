"""Differences between runs: settings, stages, and what keeps their losses from being compared."""

from trainers.data.manifest import FILES, VOCABULARY
from trainers.plans.settings import StageSettings

ABSENT, NO_STAGE = "not recorded", "no such stage"
"""In place of a value: a run did not record the setting, or does not have the stage."""

ALL_STAGES = "all"
# Of run.json, what is no setting of the run as a whole, or has a place of its own on the page.
_NOT_COMPARED = {
    *("command", "experiments", "planned", "versions", "corpus_unknown", "second_text"),
    *FILES,
}
# Settings of a run that have to be the same; what they are, and what follows where they differ.
_INCOMPARABLE = (
    ((VOCABULARY,), "vocabularies, so that losses per token and accuracies do not compare"),
    (
        tuple(name for name in FILES if name != VOCABULARY),
        "tokens to train and to evaluate on, so that losses and accuracies do not compare",
    ),
    (
        ("objective", "noise_density", "mean_span_length"),
        "pretraining tasks, so that losses and accuracies do not compare",
    ),
    (
        ("batch_size", "input_length", "eval_batches"),
        "validation batches, so that small differences of loss and accuracy say nothing",
    ),
)


def settings(named):
    """Settings in which runs differ.

    Args:
        named: {name: `RunHistory`}.

    Returns:
        A list of (setting, stage, {name: value}), one entry for each setting of the run or of one
        stage; the stage is "all" where all stages that are compared differ alike, and empty for
        what is no setting of stages. A value may be `ABSENT` or `NO_STAGE`.
    """
    return [*_of_runs(named), *_of_stages(named)]


def _of_runs(named):
    flat = {name: _flat(run.settings) for name, run in named.items()}
    fields = dict.fromkeys(field for values in flat.values() for field in values)
    for field in fields:
        values = {name: content.get(field, ABSENT) for name, content in flat.items()}
        if _differ(values):
            yield field, "", values


def _flat(content):
    kept = {name: value for name, value in content.items() if name not in _NOT_COMPARED}
    versions = content.get("versions") or {}
    return kept | {f"version of {package}": number for package, number in versions.items()}


def _of_stages(named):
    compared = _compared_stages(named)
    recorded = [run.stages[name].settings for name in compared for run in _with(named, name)]
    for field in dict.fromkeys(field for values in recorded for field in values):
        if field in StageSettings.OPERATIONAL:
            continue
        rows = {stage: _row(named, stage, field) for stage in compared}
        rows = {stage: row for stage, row in rows.items() if _differ(row)}
        of_all = {name: {row[name] for row in rows.values()} - {NO_STAGE} for name in named}
        if len(rows) == len(compared) > 1 and all(len(values) == 1 for values in of_all.values()):
            rows = {ALL_STAGES: {name: value for name, (value,) in of_all.items()}}
        for stage, row in rows.items():
            yield field, stage, row


def _row(named, stage, field):
    """{run: value of a setting of a stage}."""
    return {
        name: run.stages[stage].settings.get(field, ABSENT) if stage in run.stages else NO_STAGE
        for name, run in named.items()
    }


def _compared_stages(named):
    """Stages that at least two runs have."""
    stages = dict.fromkeys(stage for run in named.values() for stage in run.stages)
    return [stage for stage in stages if len(_with(named, stage)) > 1]


def _with(named, stage):
    return [run for run in named.values() if stage in run.stages]


def alone(named):
    """Sentences about the stages that only one run has, so that nothing compares to them."""
    compared = _compared_stages(named)
    stages = {
        name: [stage for stage in run.stages if stage not in compared]
        for name, run in named.items()
    }
    return tuple(
        f"Only {name} has {', '.join(names)}, whose settings are not compared."
        for name, names in stages.items()
        if names
    )


def incomparable(named):
    """Sentences that name what keeps the losses of runs from being compared; none if nothing."""
    told = []
    for fields, consequence in _INCOMPARABLE:
        of_field = {
            field: {name: run.settings.get(field, ABSENT) for name, run in named.items()}
            for field in fields
        }
        shown = [
            f"{field} ({', '.join(f'{name}: {text(value)}' for name, value in values.items())})"
            for field, values in of_field.items()
            if _differ(values)
        ]
        if shown:
            told.append(f"The runs have different {consequence}: {'; '.join(shown)}.")
    return tuple(told)


def text(value):
    """A value as the page shows it."""
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _differ(values):
    """True unless all values of a dictionary are equal, those of runs without the stage aside."""
    first, *others = [value for value in values.values() if value is not NO_STAGE]
    return any(other != first for other in others)
