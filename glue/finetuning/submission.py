"""Predictions files as the benchmark takes them: `CoLA.tsv`, `MNLI-m.tsv`, …

A file has the columns `index` and `prediction`, a line an example of the test set, numbered from 0
in the order of the benchmark's file. Classes are written as the task's own files write them: 0 and
1, or words where those have words; STS-B's are numbers of 0 to 5 with three decimals.

The benchmark refuses a file with anything else in it, so a prediction that is no label is written
as the task's first class, or as 0.000; how many they are is told to the caller.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from glue import metrics, tasks
from glue.tasks import Task
from trainers.errors import UserError
from trainers.files import write_text


def write(
    folder: str | pathlib.Path, task: str, split: str, predictions: Sequence[str]
) -> tuple[pathlib.Path, int]:
    """Writes the predictions file of a test set.

    Args:
        folder: where it goes; made if needed.
        task: name of a GLUE task.
        split: "test"; of MNLI "test_matched" or "test_mismatched".
        predictions: generated texts, one an example, in the order of `glue.data.load_examples`.

    Returns:
        The file, and how many predictions were no label.

    Raises:
        UserError: an unknown task, a split or a task without a predictions file, no predictions, or
            a file that is there with other contents; nothing is written then.

    Example:
        >>> write("runs/g", "rte", "test", ["entailment", "not_entailment", "?"])
        (PosixPath('runs/g/RTE.tsv'), 1)
    """
    found = tasks.find(task)
    if split not in found.submissions:
        raise UserError(
            f"Expected a test set with a predictions file: {', '.join(found.submissions) or 'none'}"
            f" of {task}. Received: split={split!r}."
        )
    if not predictions:
        raise UserError(f"Expected predictions. Received: none for {split} of {task}.")
    codes, wrong = _codes(found, predictions)
    rows = [f"{index}\t{code}\n" for index, code in enumerate(codes)]
    path = pathlib.Path(folder) / found.submissions[split]
    _write_once(path, "".join(["index\tprediction\n", *rows]))
    return path, wrong


def _codes(task: Task, predictions: Sequence[str]) -> tuple[list[str], int]:
    values = metrics.decode(task, predictions)
    wrong = int(np.sum(values == metrics.NO_CLASS))
    if not task.labels:
        return [f"{value:.3f}" for value in np.clip(values, 0, 5)], wrong
    return [task.codes[max(0, value)] for value in values], wrong


def _write_once(path: pathlib.Path, text: str) -> None:
    """Writes a file in one piece; the same text may lie there already, another may not."""
    if path.exists():
        if path.is_file() and path.read_bytes() == text.encode("utf-8"):
            return
        raise UserError(
            "Expected a predictions file that is new. Received: "
            f"file={str(path)!r}, which has other predictions. Move it away."
        )
    write_text(path, text)
