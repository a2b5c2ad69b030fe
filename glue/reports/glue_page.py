"""The report of a folder of fine-tunings: the paper's GLUE tables and figure, and one page."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from glue import metrics, tasks
from glue.reports import averages, constant, differences, figure3, published, score_tables, table6
from glue.results import FineTuning, read_runs
from trainers.reports import page, write
from trainers.reports.page import Report, Section
from trainers.reports.paper import TITLE
from trainers.runs import history
from trainers.versions import installed_versions

SYNTHETIC_SUMMARY = (
    "Synthetic tasks, made by rules, were also run. They are not GLUE and enter no average."
)
_NO_PAIR = "No two models that the paper compares were fine-tuned."


def glue_report(
    runs: Sequence[FineTuning], pretraining: history.RunHistory | None = None
) -> Report:
    """The report of some fine-tunings; without their pretraining run Table 6 has no costs."""
    noise = differences.differences_table(runs)
    others = (score_tables.wnli_table(runs), score_tables.synthetic_table(runs))
    others = tuple(table for table in others if table)
    tables = (
        score_tables.table_5(runs),
        table6.table_6(runs, pretraining),
        score_tables.table_7(runs),
    )
    sections = (
        Section(
            "The paper's tables, with the figures of this run",
            tables,
            (f"The paper: “{TITLE}”. What was not run says so.",),
        ),
        Section("GLUE average over pretraining", (figure3.figure_3(runs),)),
        Section("Is it more than noise?", (noise,) if noise else (), () if noise else (_NO_PAIR,)),
        *([Section("Outside the average", others)] if others else []),
        Section("Where the paper contradicts itself", items=(published.TABLE_5_BASELINE,)),
    )
    return Report(
        "Deep Fusion: report of fine-tuning on GLUE",
        _summary(runs),
        sections,
        {"runs": [_run(run) for run in runs]},
        _facts(runs),
    )


def write_report(
    workdir: str | os.PathLike, pretraining: str | os.PathLike | None = None
) -> tuple[Path, Report]:
    """Reads fine-tunings, and their pretraining run for Table 6, and writes their report.

    Returns:
        The path of report.html, and the report; beside it lie report.md, results.json, tables.tex
        and figure3.png.
    """
    trained = None if pretraining is None else history.read_run(pretraining)
    report = glue_report(read_runs(workdir), trained)
    return write.write_files(report, workdir, {"tables.tex": page.to_latex}), report


def _summary(runs: Sequence[FineTuning]) -> tuple[str, ...]:
    lines = [_best(runs) if averages.averages(runs) else score_tables.NOTHING]
    if any(tasks.TASKS[name].synthetic for run in runs for name in run.results):
        lines.append(SYNTHETIC_SUMMARY)
    return tuple(lines)


def _best(runs: Sequence[FineTuning]) -> str:
    reached, runs = averages.averages(runs), averages.glue_runs(runs)
    groups = averages.main_groups(reached)
    alike = {key: average.mean for key, average in reached.items() if average.groups == groups}
    means = {key: mean for key, mean in alike.items() if math.isfinite(mean)}
    opening = (
        f"{len(runs)} fine-tunings of {len(reached)} models, a model being one way of pretraining "
        "and its steps."
    )
    if not means:
        return f"{opening} No average is defined."
    model, steps = max(means, key=means.get)
    least = constant.average(runs, groups)
    least = f"; {constant.NAME} has {averages.truncated(least)}" if least is not None else ""
    return (
        f"{opening} The best average over {averages.titles(groups)} ({len(groups)} of the paper's "
        f"{len(tasks.MIXTURE)} groups) is {averages.truncated(means[model, steps])}, of {model} "
        f"after {steps:,} steps{least}. A table of differences says which are more than noise."
    )


def _run(run: FineTuning) -> dict:
    return {
        **run.facts,
        "tasks": {name: dict(result.facts) for name, result in run.results.items()},
        "groups": list(metrics.groups(run.scores)),
    }


def _facts(runs: Sequence[FineTuning]) -> tuple[tuple[str, str], ...]:
    commands = dict.fromkeys(str(run.facts["command"]) for run in runs if "command" in run.facts)
    versions = ", ".join(f"{name} {number}" for name, number in installed_versions().items())
    return (
        ("Commands", "; ".join(commands) or "not recorded"),
        ("Versions where this report was written", versions),
    )
