"""The report as a whole: its content, and its forms (HTML, Markdown, JSON, LaTeX)."""

import base64
import dataclasses
import json
import math
import re

import markupsafe

from trainers.reports import (
    comparisons,
    dag,
    experiments,
    figures,
    paper,
    paper_tables,
    pictures,
    stage_tables,
    summary,
    sweep_table,
    tables,
)
from trainers.reports.tables import Section
from trainers.runs import history
from trainers.runs.workdir import RUN_FILE
from trainers.versions import installed_versions

# In `results.json`, a list of numbers alone, with the white space around them.
_NUMBERS = re.compile(r'\[\n[^\[\]{}"]+\]')


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of a report."""

    title: str  # of the page
    summary: tuple[str, ...]  # paragraphs
    sections: tuple[Section, ...]  # in their order
    data: dict  # elements of `results.json`, by name
    # (name, text) pairs about the run: its command, its versions.
    facts: tuple[tuple[str, str], ...]

    def blocks(self, kind):
        """All blocks of a type (`Table` or `Picture`), in their order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [block for block in blocks if isinstance(block, kind)]


def pretraining_report(run, kernels=None, steps=None):
    """The report of a pretraining run; `kernels` and `steps` are those of `heat_maps`."""
    compared = comparisons.compare(run)
    sweep = sweep_table.tuning_table(run)
    printed = (
        paper_tables.table_1(run),
        paper_tables.table_2(run, compared),
        paper_tables.table_3(run),
        paper_tables.table_4(run),
    )
    curves = (*figures.figure_1(run, compared), *figures.figure_large(run))
    stages = stage_tables.stages_table(run), stage_tables.results_table(run), dag.fusion_graph(run)
    sections = (
        Section(
            "Comparison",
            (stage_tables.comparison_table(run, compared), *((sweep,) if sweep else ())),
            (comparisons.DEFINITION, f"Learning rates: {summary.tuning(run.settings)}"),
        ),
        Section(
            "The paper's tables, with the figures of this run",
            printed,
            (f"The paper: “{paper.TITLE}”. Stages that were not trained are marked “not run”.",),
        ),
        Section("Learning curves", curves),
        Section("Stages", stages),
        *experiments.sections(run),
        _inside(run, kernels, steps),
        Section("Where the paper contradicts itself", items=paper.CONTRADICTIONS),
    )
    return Report(
        "Deep Fusion: report of a pretraining run",
        summary.summarize(run, compared),
        sections,
        {
            "stages": [stage.to_dict() for stage in run.stages.values()],
            "comparisons": [comparison.to_dict() for comparison in compared],
        },
        _facts(run.settings),
    )


def _inside(run, kernels, steps):
    """The section of the heat maps."""
    title = "Inside the fused kernels"
    if not any(stage.sources for stage in run.stages.values()):
        nothing = "No stage in this folder is fused, so there are no heat maps."
        return Section(title, paragraphs=(nothing,))
    # Keras reads a model's axes, and takes seconds to import.
    from trainers.reports.heatmaps import heat_maps

    return Section(title, *heat_maps(run, kernels, steps))


def to_html(report):
    """The report as one HTML file: pictures inside it, no script, nothing loaded from elsewhere."""
    return _render("html", report)


def to_markdown(report):
    """The report in Markdown; its pictures are the PNG files beside it."""
    return _render("md", report)


def to_json(report):
    """The text of `results.json`; numbers that are not finite are null."""
    results = {
        "format": history.FORMAT,
        "summary": list(report.summary),
        **report.data,
        "tables": {table.key: table.to_dict() for table in report.blocks(tables.Table)},
        "figures": {picture.key: picture.data for picture in report.blocks(pictures.Picture)},
        "facts": dict(report.facts),
    }
    text = json.dumps(_finite(results), indent=1, ensure_ascii=False, allow_nan=False)
    # One line per number of a heat map would make the file three times as long.
    return _NUMBERS.sub(lambda match: f"[{' '.join(match[0][1:-1].split())}]", text) + "\n"


def to_latex(report):
    """The tables of the report for a LaTeX document."""
    return "\n".join(tables.render(table, "tex") for table in report.blocks(tables.Table))


def _render(form, report):
    return tables.template(f"page.{form}.j2").render(
        report=report,
        render_table=tables.render,
        is_table=lambda block: isinstance(block, tables.Table),
        data_uri=_data_uri,
        themes=(pictures.LIGHT, pictures.DARK),
    )


def _data_uri(picture, theme):
    encoded = base64.b64encode(picture.png(theme)).decode("ascii")
    return markupsafe.Markup(f"data:image/png;base64,{encoded}")


def _facts(settings):
    versions, name = settings.get("versions"), "Versions"
    if not versions:
        versions, name = installed_versions(), "Versions where this report was written"
    return (
        ("Command", settings.get("command") or f"not recorded in {RUN_FILE}"),
        ("Corpus", summary.corpus(settings)),
        ("Learning rates", summary.tuning(settings)),
        (name, ", ".join(f"{package} {number}" for package, number in versions.items())),
    )


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
