"""Predictions files as the benchmark takes them: `CoLA.tsv`, `MNLI-m.tsv`, …

A file has the columns `index` and `prediction`, one line per example of the test set, numbered from
0 in the order of the benchmark's file. Classes are written as the task's own files write them: 0
and 1, or words where those have words; STS-B's are numbers of 0 to 5 with three decimals.

The benchmark refuses a file with anything else in it, so a prediction that is no label is written
as the task's first class, or as 0.000; the caller learns how many they are.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from glue import metrics, tasks
from trainers.errors import UserError
from trainers.files import write_text


def write(
    folder: str | pathlib.Path, task: str, split: str, predictions: Sequence[str]
) -> tuple[pathlib.Path, int]:
    """Writes the predictions file of a test set; also returns how many predictions are no label.

    Raises:
        UserError: an unknown task, a split or a task without a predictions file, no predictions, or
            a file that is there with other contents; nothing is written then.

    Example:
        >>> write("runs/g", "rte", "test", ["entailment", "not_entailment", "?"])
        (PosixPath('runs/g/RTE.tsv'), 1)
    """
    task = tasks.find(task)
    if split not in task.submissions:
        raise UserError(
            "a test set with a predictions file: "
            f"{', '.join(task.submissions) or 'none'} of {task.name}",
            f"split={split!r}",
            "Choose one of these",
        )
    if not predictions:
        raise UserError("predictions", f"none for {split} of {task.name}", "Predict some")
    values = metrics.decode(task, predictions)
    if task.labels:
        codes = [task.codes[max(0, value)] for value in values]
    else:
        codes = [f"{value:.3f}" for value in np.clip(values, 0, 5)]
    rows = [f"{index}\t{code}\n" for index, code in enumerate(codes)]
    path = pathlib.Path(folder) / task.submissions[split]
    _write_once(path, "".join(["index\tprediction\n", *rows]))
    return path, int(np.sum(values == metrics.NO_CLASS))


def _write_once(path: pathlib.Path, text: str) -> None:
    """Writes a file in one piece; the same text may lie there already, another may not."""
    if not path.exists():
        write_text(path, text)
    elif not path.is_file() or path.read_bytes() != text.encode("utf-8"):
        received = f"file={str(path)!r}, which has other predictions"
        raise UserError("a predictions file that is new", received, "Move it away")
