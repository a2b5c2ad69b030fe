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
    ends,
    experiments,
    figures,
    guards,
    head_starts,
    headlines,
    openings,
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

RUN = "run"
"""The `kind` of a report about one run."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of a report."""

    title: str  # of the page
    summary: tuple[str, ...]  # paragraphs
    sections: tuple[Section, ...]  # in their order
    data: dict  # elements of `results.json`, by name
    # (name, text) pairs about the run: its command, its versions.
    facts: tuple[tuple[str, str], ...]
    opening: tuple[pictures.Picture, ...] = ()  # what the page begins with, above the summary
    kind: str = RUN  # what it is about: only a report of the same kind is replaced by it
    refresh: int | None = None  # seconds after which a browser reads the page again

    def blocks(self, kind):
        """All blocks of a type (`Table` or `Picture`), in their order."""
        blocks = [*self.opening, *(block for part in self.sections for block in part.blocks)]
        return [block for block in blocks if isinstance(block, kind)]


def pretraining_report(run, kernels=None, steps=None):
    """The report of a pretraining run; `kernels` and `steps` are those of `heat_maps`."""
    compared = comparisons.compare(run)
    curves = (*figures.figure_1(run, compared), *figures.figure_large(run))
    further = stage_tables.validations_table(run)
    stages = (
        *(stage_tables.stages_table(run), stage_tables.results_table(run)),
        *([further] if further else ()),
        dag.fusion_graph(run),
    )
    has_lines = any(curve.data["series"] for curve in curves)
    sections = (
        *experiments.gains_section(run),
        _comparison(run, compared),
        *_printed(run, compared),
        *((Section("Learning curves", curves),) if has_lines else ()),
        Section("Stages", stages),
        *experiments.sections(run),
        *fused_kernels(run, kernels, steps),
        *_not_run(run, compared),
        Section("Where the paper contradicts itself", items=paper.CONTRADICTIONS),
    )
    told = headlines.headlines(run, compared)
    return Report(
        "Deep Fusion: report of a pretraining run",
        summary.summarize(run, compared),
        sections,
        {
            "stages": [stage.to_dict() for stage in run.stages.values()],
            "comparisons": [comparison.to_dict() for comparison in compared],
            "headlines": [headline.to_dict() for headline in told],
        },
        _facts(run.settings),
        openings.opening(run, compared),
    )


def _comparison(run, compared):
    """The section of the ratios, and of the sweep, if any."""
    table, sweep = stage_tables.comparison_table(run, compared), sweep_table.tuning_table(run)
    blocks, tuning = (sweep,) if sweep else (), f"Learning rates: {summary.tuning(run.settings)}"
    if not table.rows:
        return Section("Comparison", blocks, (tuning,))
    starts = head_starts.tables_of(head_starts.of_comparisons(run, compared))
    texts = (
        *(comparisons.DEFINITION, headlines.DEFINITION, ends.DEFINITION),
        *((head_starts.DEFINITION,) if starts else ()),
        *(tuning, guards.DEFINITION),
    )
    return Section("Comparison", (table, *starts, *blocks), texts, guards.RULES)


def _printed(run, compared):
    """The section of the paper's tables of which the run has a row, if any."""
    shown = tuple(make() for make in paper_tables.of_run(run, compared).values())
    title = "The paper's tables, with the figures of this run"
    about = f"The paper: “{paper.TITLE}”. Stages that were not trained are marked “not run”."
    return (Section(title, shown, (about,)),) if shown else ()


def _not_run(run, compared):
    """A section of one line: the paper's plans, tables and experiments that are not in the run."""
    plans = (comparisons.BASELINE, *(row.plan for row in paper.TABLE_1))
    trained, shown = (
        {stage.base for stage in run.stages.values()},
        paper_tables.of_run(run, compared),
    )
    absent = [
        *(plan for plan in plans if plan not in trained),
        *(f"Table {number}" for number in paper.TABLES if number not in shown),
        *experiments.not_run(run),
        *(() if _is_fused(run) else ("heat maps of fused kernels",)),
    ]
    return (Section("Not run", paragraphs=(f"Not run: {', '.join(absent)}.",)),) if absent else ()


def fused_kernels(run, kernels, steps):
    """The section of the heat maps, where a stage is fused."""
    if not _is_fused(run):
        return ()
    # Keras reads a model's axes, and takes seconds to import.
    from trainers.reports.heatmaps import heat_maps

    return (Section("Inside the fused kernels", *heat_maps(run, kernels, steps)),)


def _is_fused(run):
    return any(stage.fused for stage in run.stages.values())


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
        "kind": report.kind,
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
