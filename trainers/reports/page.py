"""The report as a whole: what goes into it, and its three forms (HTML, Markdown, JSON)."""

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
from trainers.versions import installed_versions

# In `results.json`, a list of nothing but numbers: the numbers and the white space around them.
_NUMBERS = re.compile(r'\[\n[^\[\]{}"]+\]')


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that a report says.

    Args:
        title: of the page.
        summary: paragraphs.
        sections: in their order.
        data: elements of `results.json`, by name.
        facts: (name, text) pairs about the run: its command, its versions.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    data: dict
    facts: tuple[tuple[str, str], ...]

    def blocks(self, kind):
        """All blocks of a type (`Table` or `Picture`), in their order."""
        found = [block for section in self.sections for block in section.blocks]
        return [block for block in found if isinstance(block, kind)]


def pretraining_report(run, kernels=None, steps=None):
    """The report of a pretraining run.

    Args:
        run: a `RunHistory`.
        kernels, steps: of the heat maps, as for `heat_maps`.

    Returns:
        A `Report`.

    Raises:
        UserError: as for `heat_maps`.
    """
    compared = comparisons.compare(run)
    sections = (
        Section(
            "Comparison",
            (stage_tables.comparison_table(run, compared), *_sweep(run)),
            (comparisons.DEFINITION, f"Learning rates: {summary.tuning(run.settings)}"),
        ),
        Section(
            "The paper's tables, with the figures of this run",
            (
                paper_tables.table_1(run),
                paper_tables.table_2(run, compared),
                paper_tables.table_3(run),
                paper_tables.table_4(run),
            ),
            (f"The paper: “{paper.TITLE}”. What was not run says so.",),
        ),
        Section("Learning curves", (*figures.figure_1(run, compared), *figures.figure_large(run))),
        Section(
            "Stages",
            (
                stage_tables.stages_table(run),
                stage_tables.results_table(run),
                dag.fusion_graph(run),
            ),
        ),
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


def _sweep(run):
    table = sweep_table.tuning_table(run)
    return () if table is None else (table,)


def _inside(run, kernels, steps):
    """The section of the heat maps."""
    title = "Inside the fused kernels"
    fused = [run.workdir / stage.name for stage in run.stages.values() if stage.sources]
    if not any(any(folder.glob("checkpoints/step_*")) for folder in fused):
        nothing = "No fused stage in this folder has a checkpoint, so there are no heat maps."
        return Section(title, paragraphs=(nothing,))
    # To read a model's axes takes Keras, and seconds to import it.
    from trainers.reports.heatmaps import heat_maps

    return Section(title, *heat_maps(run, kernels, steps))


def to_html(report):
    """The report as one HTML file: pictures inside it, no script, nothing loaded from elsewhere."""
    return _render("html", report)


def to_markdown(report):
    """The report in Markdown; its pictures are the PNG files beside it."""
    return _render("md", report)


def to_json(report):
    """The text of `results.json`; what is not a finite number is null."""
    results = {
        "format": history.FORMAT,
        "summary": list(report.summary),
        **report.data,
        "tables": {table.key: table.to_dict() for table in report.blocks(tables.Table)},
        "figures": {picture.key: picture.data for picture in report.blocks(pictures.Picture)},
        "facts": dict(report.facts),
    }
    text = json.dumps(_finite(results), indent=1, ensure_ascii=False, allow_nan=False)
    # A line for each of a heat map's numbers would make the file thrice as long.
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text) + "\n"


def to_latex(report):
    """The tables of the report for a LaTeX document; the text around them is the author's."""
    return "\n".join(tables.render(table, "tex") for table in report.blocks(tables.Table))


def _render(form, report):
    return (
        tables.environment()
        .get_template(f"page.{form}.j2")
        .render(
            report=report,
            render_table=tables.render,
            is_table=lambda block: isinstance(block, tables.Table),
            data_uri=_data_uri,
            themes=(pictures.LIGHT, pictures.DARK),
        )
    )


def _data_uri(picture, theme):
    encoded = base64.b64encode(picture.png(theme)).decode("ascii")
    return markupsafe.Markup(f"data:image/png;base64,{encoded}")


def _facts(settings):
    command = settings.get("command")
    versions = settings.get("versions")
    if versions:
        named = "Versions", versions
    else:
        named = "Versions where this report was written", installed_versions()
    return (
        ("Command", command or "not recorded in run.json"),
        ("Corpus", summary.corpus(settings)),
        ("Learning rates", summary.tuning(settings)),
        (named[0], ", ".join(f"{name} {number}" for name, number in named[1].items())),
    )


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
