"""The sections of a report about experiments that vary one stage, the theory and the advice.

Each is there only where its plan was asked for in the folder, and shows what has been trained so
far.
"""

from trainers.reports.experiments import advice, budgets, noise, offsets, theory


def sections(run):
    """The sections of a run's experiments, those without anything to show left out.

    Args:
        run: a `RunHistory`.

    Returns:
        A tuple of `Section`.
    """
    parts = (offsets, theory, noise, budgets, advice)
    found = (part.section(run) for part in parts)
    return tuple(section for section in found if section is not None)
