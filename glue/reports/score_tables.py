"""Tables of scores: the paper's Tables 5 and 7, and the tasks that are in neither."""

from collections.abc import Iterable, Mapping, Sequence

from glue import tasks
from glue.reports import averages, constant, published
from glue.reports.averages import Average
from glue.results import FineTuning
from trainers.reports import numbers, tables
from trainers.reports.tables import Cell, Column, Table

NOTHING = "No run has been fine-tuned on a GLUE task."
_RUN = Column("run", "Run")
_NO_ROW = ("",) * len(published.TABLE_5_STEPS)


def table_7(runs: Iterable[FineTuning]) -> Table:
    """One row per run: twelve scores and the average; the paper's nine runs stand below ours."""
    runs = averages.glue_runs(runs)
    alike = constant.scores(runs)
    ours = [(_name(run), run.scores) for run in runs] + [(constant.NAME, alike)] * bool(alike)
    rows = []
    for name, scores in ours:
        average = averages.average_cell(averages.average_of([scores]))
        rows.append((tables.label(name), average, *_score_cells(scores, tasks.MIXTURE)))
    for row in published.TABLE_7:
        printed = (tables.paper(text, float(text)) for text in (row.average, *row.scores))
        rows.append((tables.label(f"paper: {row.name}"), *printed))
    return Table(
        "table7",
        "Table 7: all tasks, one row per run.",
        (_RUN, Column("average", "GLUE average"), *averages.score_columns(tasks.MIXTURE)),
        tuple(rows),
        "On the validation sets, best checkpoint of each task. Averages are cut to two decimals, "
        f"as the paper's are; scores are rounded.{'' if runs else ' ' + NOTHING}",
    )


def table_5(runs: Iterable[FineTuning]) -> Table:
    """GLUE average by model and steps of pretraining, ours beside the paper's."""
    runs = tuple(runs)
    ours = averages.averages(runs)

    def after(step):
        return lambda model: averages.average_cell(ours.get((model, step)))

    def printed(index):
        return lambda model: _paper_cell(published.TABLE_5.get(model, _NO_ROW)[index], model)

    steps, papers = sorted({step for _, step in ours}), enumerate(published.TABLE_5_STEPS)
    return tables.tabulate(
        "table5",
        "Table 5: GLUE average after pretraining for some steps, then fine-tuning.",
        dict.fromkeys([*published.MODELS, *(model for model, _ in ours)]),
        (
            ("model", "Model", "", lambda model: tables.label(_model(model))),
            *((f"steps_{s}", numbers.count(s), "This run: steps", after(s)) for s in steps),
            *((f"paper_{s}", _thousands(s), "Paper: steps", printed(i)) for i, s in papers),
        ),
        "Steps of a fused model are those after its fusion. Mean ± population standard deviation "
        f"over the runs of a model; of a single run there is none.{'' if ours else ' ' + NOTHING}"
        + _alike(runs, ours),
    )


def _alike(runs: Iterable[FineTuning], ours: Mapping[object, Average]) -> str:
    """The average of a model that gives every example the same answer, in words."""
    groups = averages.main_groups(ours)
    average = constant.average(averages.glue_runs(runs), groups)
    if average is None:
        return ""
    over, value = averages.titles(groups), averages.truncated(average)
    return f" {constant.NAME.capitalize()}, over {over}: {value}."


def synthetic_table(runs: Iterable[FineTuning]) -> Table | None:
    """Scores on the tasks that this project makes by rules; None without any."""
    return _other_table(
        runs,
        tasks.SYNTHETIC,
        "synthetic",
        "Synthetic tasks, made by rules: not GLUE.",
        "They show that fine-tuning and evaluation work, and nothing about language. They are in "
        "no other table.",
    )


def wnli_table(runs: Iterable[FineTuning]) -> Table | None:
    """Scores on WNLI; None without any."""
    caption = "The paper and T5 leave it out of the mixture and of the average."
    return _other_table(runs, ("wnli",), "wnli", "WNLI.", caption)


def _other_table(
    runs: Iterable[FineTuning], names: Sequence[str], key: str, title: str, caption: str
) -> Table | None:
    runs = sorted((run for run in runs if set(names) & set(run.results)), key=averages.run_order)
    columns = (_RUN, *averages.score_columns(names))
    rows = tuple((tables.label(_name(run)), *_score_cells(run.scores, names)) for run in runs)
    return Table(key, title, columns, rows, caption) if rows else None


def _score_cells(scores: Mapping[str, float], names: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(averages.score_cell(scores.get(key)) for key in tasks.scores(names))


def _paper_cell(text: str, model: str) -> Cell:
    if not text:
        return tables.not_in_paper()
    note = published.TABLE_5_BASELINE if model == "baseline" and "±" in text else ""
    return tables.paper(text, float(text.split()[0]), note=note)


def _name(run: FineTuning) -> str:
    return f"{run.model}, {numbers.count(run.pretrain_steps)} steps, run {run.repeat + 1}"


def _model(model: str) -> str:
    printed = published.MODELS.get(model, model)
    return model if printed == model else f"{model} ({printed})"


def _thousands(step: int) -> str:
    return "1M" if step == 1_000_000 else f"{step // 1000}K" if step else "0"
