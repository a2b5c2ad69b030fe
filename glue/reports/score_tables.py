"""Tables of scores: the paper's Tables 7 and 5, and what stands in neither."""

from collections.abc import Iterable, Mapping, Sequence

from glue import metrics, tasks
from glue.reports import averages, constant, published
from glue.reports.averages import Average
from glue.results import Run
from trainers.reports import numbers, tables
from trainers.reports.tables import Column, Table

NOTHING = "No run has been fine-tuned on a GLUE task."


def table_7(runs: Iterable[Run]) -> Table:
    """A row a run: the paper's twelve columns and the average; the paper's nine runs below ours."""
    mine = averages.glue_runs(runs)
    columns = (
        Column("run", "Run", align="left"),
        Column("average", "GLUE average"),
        *_score_columns(tasks.MIXTURE),
    )
    alike = constant.scores(mine)
    found = [(_name(run), run.scores) for run in mine] + [(constant.NAME, alike)] * bool(alike)
    rows = [
        (
            tables.label(name),
            averages.average_cell(_average(values)),
            *_score_cells(values, tasks.MIXTURE),
        )
        for name, values in found
    ]
    rows += [
        (
            tables.label(f"paper: {row.name}"),
            tables.paper(row.average, float(row.average)),
            *(tables.paper(text, float(text)) for text in row.scores),
        )
        for row in published.TABLE_7
    ]
    return Table(
        "table7",
        "Table 7: all tasks, a row a run.",
        columns,
        tuple(rows),
        "On the validation sets, best checkpoint of each task. Averages are cut to two decimals, "
        f"as the paper's are; scores are rounded.{'' if mine else ' ' + NOTHING}",
    )


def table_5(runs: Iterable[Run]) -> Table:
    """GLUE average by model and steps of pretraining, ours beside the paper's."""
    runs = tuple(runs)
    found = averages.averages(runs)
    steps = sorted({step for _, step in found})
    models = sorted({*published.MODELS, *(model for model, _ in found)}, key=averages.model_order)
    columns = (
        Column("model", "Model", align="left"),
        *(Column(f"steps_{step}", numbers.count(step), "This run: steps") for step in steps),
        *(
            Column(f"paper_{step}", _thousands(step), "Paper: steps", origin=tables.PAPER)
            for step in published.TABLE_5_STEPS
        ),
    )
    rows = tuple(
        (
            tables.label(_model(model)),
            *(averages.average_cell(found.get((model, step))) for step in steps),
            *_paper_5(model),
        )
        for model in models
    )
    return Table(
        "table5",
        "Table 5: GLUE average after pretraining for some steps, then fine-tuning.",
        columns,
        rows,
        "Steps of a fused model are those after its fusion. Mean ± population standard deviation "
        f"over the runs of a model; of a single run there is none.{'' if found else ' ' + NOTHING}"
        + _alike(runs, found),
    )


def _alike(runs: Iterable[Run], found: Mapping[object, Average]) -> str:
    """What the average is of a model that says the same of every example."""
    groups = averages.main_groups(found)
    average = constant.average(averages.glue_runs(runs), groups)
    if average is None:
        return ""
    return (
        f" {constant.NAME.capitalize()}, over {averages.titles(groups)}: "
        f"{averages.truncated(average)}."
    )


def synthetic_table(runs: Iterable[Run]) -> Table | None:
    """Scores on the tasks that this project makes by rules; None without any."""
    return _other_table(
        runs,
        tasks.SYNTHETIC,
        "synthetic",
        "Synthetic tasks, made by rules: not GLUE.",
        "They show that fine-tuning and evaluation work, and nothing about language. They are in "
        "no other table.",
    )


def wnli_table(runs: Iterable[Run]) -> Table | None:
    """Scores on WNLI; None without any."""
    return _other_table(
        runs,
        ("wnli",),
        "wnli",
        "WNLI.",
        "The paper and T5 leave it out of the mixture and of the average.",
    )


def _other_table(runs, names, key, title, caption):
    having = [run for run in runs if any(name in run.results for name in names)]
    if not having:
        return None
    having.sort(key=averages.run_order)
    columns = (Column("run", "Run", align="left"), *_score_columns(names))
    rows = tuple((tables.label(_name(run)), *_score_cells(run.scores, names)) for run in having)
    return Table(key, title, columns, rows, caption)


def _score_columns(names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(
        Column(score.key, score.title, tasks.TASKS[name].title)
        for name in names
        for score in tasks.TASKS[name].scores
    )


def _score_cells(scores: Mapping[str, float], names: Sequence[str]) -> tuple[tables.Cell, ...]:
    return tuple(averages.score_cell(scores.get(key)) for key in tasks.scores(names))


def _average(values: Mapping[str, float]) -> Average | None:
    groups = metrics.groups(values)
    return Average(metrics.average(values), None, 1, groups) if groups else None


def _paper_5(model: str) -> tuple[tables.Cell, ...]:
    printed = published.TABLE_5.get(model)
    if printed is None:
        return (tables.not_in_paper(),) * len(published.TABLE_5_STEPS)
    return tuple(
        tables.paper(
            text,
            float(text.split()[0]),
            note=published.TABLE_5_BASELINE if model == "baseline" and "±" in text else "",
        )
        if text
        else tables.not_in_paper()
        for text in printed
    )


def _name(run: Run) -> str:
    return f"{run.model}, {numbers.count(run.pretrain_steps)} steps, run {run.repeat + 1}"


def _model(model: str) -> str:
    printed = published.MODELS.get(model)
    return model if printed in (None, model) else f"{model} ({printed})"


def _thousands(step: int) -> str:
    return "1M" if step == 1_000_000 else f"{step // 1000}K" if step else "0"
