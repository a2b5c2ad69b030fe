"""Examples of a task as T5 reads them: an input text and a target text.

They come from TensorFlow Datasets (`glue/cola`, …), from the benchmark's own files below a data
folder, or, for the synthetic tasks, from rules. The first two give the same texts for the same row.

Example:
    >>> load_examples("cola", "validation", data_dir="glue_data")[0]
    ('cola sentence: The sailors rode the breeze clear of the rocks.', 'acceptable')
"""

import pathlib
from collections.abc import Callable, Iterable

from glue import tasks
from glue.data import synthetic, tsv
from glue.tasks import HIDDEN, Split, Task
from trainers.data import tfds_versions
from trainers.errors import UserError, check_choice


def load_examples(
    task: str, split: str, data_dir: str | pathlib.Path | None = None
) -> list[tuple[str, str]]:
    """Reads a split.

    Args:
        task: a key of `glue.tasks.TASKS`.
        split: "train", "validation" or "test"; MNLI has "validation_matched",
            "validation_mismatched", "test_matched", "test_mismatched" and "test_diagnostic" (AX)
            instead of the last two.
        data_dir: folder with the benchmark's files (`CoLA/train.tsv`, …); None for TensorFlow
            Datasets, which finds its own. The synthetic tasks need neither.

    Returns:
        (input text, target text) of each example, in the order of the benchmark's file. The target
        of a test set is `<unk>`.

    Raises:
        UserError: an unknown task or split, a file that is not there (`MissingFile`) or cannot be
            used; then the message names file, line and value.
    """
    task = tasks.find(task)
    check_choice(task.splits, split=split)
    read = _open(task, split, data_dir)
    return [(task.text(texts), task.target(label)) for texts, label in read()]


def available(
    names: Iterable[str], data_dir: str | pathlib.Path | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the tasks whose data is there, and for each of the others the reason.

    Test sets are not looked for: nothing but the predictions files needs them.
    """
    if data_dir is not None and not pathlib.Path(data_dir).is_dir():
        received = f"data_dir={str(data_dir)!r}, which is no folder"
        raise UserError("the folder of the benchmark's files", received, "Check the path")
    ready, missing = [], {}
    for task in map(tasks.find, dict.fromkeys(names)):
        try:
            for split in ("train", *task.evaluated):
                _open(task, split, data_dir)
            ready.append(task.name)
        except tsv.MissingFile as error:
            missing[task.name] = str(error)
    if not ready:
        raise UserError(
            "at least one task with its data",
            f"tasks={','.join(missing)}, none of which has it",
            next(iter(missing.values()), "Name a task"),
        )
    return tuple(ready), missing


def _open(task: Task, name: str, data_dir: str | pathlib.Path | None) -> Callable[[], list]:
    """Finds the data of a split; the function reads texts by feature and label of each example."""
    split = task.splits[name]
    if task.synthetic:
        return lambda: synthetic.examples(task.name, name)
    if data_dir:
        tsv.path_of(task, split, data_dir)
        return lambda: tsv.read(task, split, data_dir)
    dataset = _open_tfds(task, name)
    return lambda: _read_tfds(task, split, dataset)


def _read_tfds(task: Task, split: Split, dataset) -> list:
    # TensorFlow Datasets stores examples in an order of its own; `idx` is their row in the file.
    rows = sorted(dataset.as_numpy_iterator(), key=lambda row: row["idx"])
    return [
        (
            {feature: row[feature].decode("utf-8", "replace") for feature in task.fields},
            row["label"].item() if split.labelled else HIDDEN,
        )
        for row in rows
    ]


def _open_tfds(task: Task, name: str):
    """The `tf.data.Dataset` of a split."""
    config, name = task.splits[name].dataset or (task.name, name)
    try:
        return tfds_versions.open_split(f"glue/{config}", name)[1]
    except ImportError as error:
        raise UserError(
            f"tensorflow_datasets for the task {task.name}",
            error,
            "Install it, or give the benchmark's files with --data_dir",
        ) from error
    except tfds_versions.NotPrepared as error:
        is_there = f"it is there as {', '.join(error.versions)}, which cannot be read"
        raise tsv.MissingFile(
            f"glue/{config} {error.wanted} or another version, prepared by TensorFlow Datasets",
            "no data_dir, and "
            + (is_there if error.versions else "it is not in the folder of TensorFlow Datasets"),
            f"Run `tfds build glue/{config}`, or give the benchmark's files with --data_dir",
        ) from error
