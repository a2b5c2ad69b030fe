"""The sections of a report about experiments beside the tables, the theory and the advice.

Each is there only where its plan was asked for in the folder, and shows what has been trained so
far.
"""

from trainers.plans import beyond as plans
from trainers.reports.experiments import (
    advice,
    beyond,
    budgets,
    gains,
    noise_levels,
    offsets,
    theory_terms,
)


def sections(run):
    """The sections of experiments, without those that have nothing to show."""
    parts = (offsets, theory_terms, noise_levels, budgets, advice)
    made = [part.section(run) for part in parts]
    made += [beyond.section(run, plan) for plan in plans.NAMES]
    return tuple(section for section in made if section is not None)


def gains_section(run):
    """The section of the plan `gains`, as a tuple; empty without it."""
    section = gains.section(run)
    return (section,) if section else ()


def not_run(run):
    """Plans that vary one stage and were not asked for."""
    plans = (part.PLAN for part in (offsets, noise_levels, budgets))
    return tuple(plan for plan in plans if not run.experiment(plan))
