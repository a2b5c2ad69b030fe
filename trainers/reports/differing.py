"""Differences between runs: settings, stages, and what keeps their losses from being compared."""

from trainers.data.manifest import FILES, VOCABULARY
from trainers.plans.settings import StageSettings

ABSENT = object()
"""The value of a setting that a run did not record."""

ALL_STAGES = "all"
# Of run.json, what is no setting of the run as a whole, or has a place of its own on the page.
_NOT_COMPARED = {"command", "experiments", "planned", "versions", "corpus_unknown", *FILES}
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
        A list of (setting, stages, {name: value}), one entry for each setting of the run or of one
        stage; stages is "all" where all stages that the runs share differ alike, and empty for what
        is no setting of stages. A value is `ABSENT` where a run did not record it.
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
    shared = _shared_stages(named)
    of_stage = {
        stage: {name: run.stages[stage].settings for name, run in named.items()} for stage in shared
    }
    recorded = [values for of_run in of_stage.values() for values in of_run.values()]
    for field in dict.fromkeys(field for values in recorded for field in values):
        if field in StageSettings.OPERATIONAL:
            continue
        rows = {
            stage: {name: values.get(field, ABSENT) for name, values in of_run.items()}
            for stage, of_run in of_stage.items()
        }
        rows = {stage: values for stage, values in rows.items() if _differ(values)}
        alike = len(rows) == len(shared) > 1 and not _differ(rows)
        for stage, values in list(rows.items())[: 1 if alike else None]:
            yield field, ALL_STAGES if alike else stage, values


def _shared_stages(named):
    first, *others = named.values()
    return [stage for stage in first.stages if all(stage in run.stages for run in others)]


def stages(named):
    """Sentences about the stages that not all runs have."""
    shared = _shared_stages(named)
    alone = {
        name: [stage for stage in run.stages if stage not in shared] for name, run in named.items()
    }
    return tuple(
        f"Not all runs have these stages of {name}, whose settings are not compared: "
        f"{', '.join(names)}."
        for name, names in alone.items()
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
    if value is ABSENT:
        return "not recorded"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _differ(values):
    """True unless all values of a dictionary are equal; lists and dictionaries among them."""
    first, *others = values.values()
    return any(other != first for other in others)
