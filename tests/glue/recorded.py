"""Folders of fine-tunings made by code. For tests only."""

import json
import random

from glue import results, tasks
from glue.reports import published

COLUMNS = tuple(tasks.scores(tasks.MIXTURE))


def predictions(task, right=0.7, size=40, seed=0):
    """Targets, and predictions of which about a share is right, for each split of a task."""
    rng, targets_rng = random.Random(f"{seed}:{right}"), random.Random(task)
    labels = tasks.TASKS[task].labels or ("0.0", "1.0", "2.0", "3.0", "4.0", "5.0")
    pairs = {}
    for split in tasks.TASKS[task].evaluated:
        targets = [targets_rng.choice(labels) for _ in range(size)]
        pairs[split] = (
            targets,
            [text if rng.random() < right else rng.choice(labels) for text in targets],
        )
    return pairs


def write_run(workdir, model, steps, names, repeat=0, right=0.7, **facts):
    """A run fine-tuned on some tasks."""
    run = f"{model}-{steps}-{repeat}"
    results.write_model(workdir, run, model=model, pretrain_steps=steps, repeat=repeat, **facts)
    for name in names:
        pairs = predictions(name, right, seed=repeat)
        results.write_result(workdir, run, name, pairs, steps=100, best_step=50)
    return run


def write_scores(workdir, model, steps, repeat, scores):
    """A run with given scores and no predictions."""
    run = f"{model}-{steps}-{repeat}"
    results.write_model(workdir, run, model=model, pretrain_steps=steps, repeat=repeat)
    for name in tasks.TASKS:
        keys = [score.key for score in tasks.TASKS[name].scores]
        if keys[0] in scores:
            folder = workdir / run / name
            folder.mkdir()
            content = {
                "format": results.FORMAT,
                "run": run,
                "task": name,
                "scores": {key: scores[key] for key in keys},
            }
            (folder / results.RESULT_FILE).write_text(json.dumps(content))


def write_paper(workdir):
    """The paper's nine runs, as if they were ours."""
    steps = {"baseline": 1_000_000, "fusion_property": 500_000, "self_fusion": 500_000}
    for number, row in enumerate(published.TABLE_7):
        scores = dict(zip(COLUMNS, map(float, row.scores), strict=True))
        write_scores(workdir, row.model, steps[row.model], number % 3, scores)


def rows(table):
    """Cells of each row by column key, by the text of its first cell."""
    keys = [column.key for column in table.columns]
    return {row[0].text: dict(zip(keys, row, strict=True)) for row in table.rows}
