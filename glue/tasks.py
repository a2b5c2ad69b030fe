"""The tasks as one table: where their columns lie, what their labels are called, how they score.

Readers, text formats, metrics, predictions files and report columns are all driven by `TASKS`; a
new task is one more entry. Names, features and labels are those of TensorFlow Datasets (`glue/*`),
since T5's texts are made of them; columns and files are those that the benchmark publishes.

`grammar`, `sentiment`, `paraphrase` and `similarity` are no GLUE tasks: this project makes them by
rules (see glue/data/synthetic.py), so their names begin with `synthetic_` and no GLUE table has
them.
"""

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping

import numpy as np

from trainers.errors import UserError

UNKNOWN = "<unk>"
"""Target text of an example whose label is hidden, as T5 writes it."""

HIDDEN = -1
"""Label of an example of a test set, as TensorFlow Datasets gives it."""


@dataclasses.dataclass(frozen=True)
class Split:
    """One split and the file that holds it.

    Args:
        file: its name in the task's folder; empty for the synthetic tasks.
        labelled: whether its labels are known; a test set's are not, whatever its file says.
        columns: names of the columns of a file that has no header line.
    """

    file: str = ""
    labelled: bool = True
    columns: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Score:
    """One number that a task is judged by.

    Args:
        key: its name in a dict of scores and in tables.
        metric: key of `glue.metrics.METRICS`.
        split: whose examples it is computed from.
        title: its heading below the task's.
    """

    key: str
    metric: str
    split: str = "validation"
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name: in TensorFlow Datasets, on the command line, and the first word of every input.
        title: as the benchmark writes it.
        fields: column of each text feature.
        label_column: column of the label.
        labels: target texts, by class; empty for STS-B and its like, whose label is a number of
            0 to 5.
        codes: how files and submissions write the classes, in the same order.
        scores: what it is judged by.
        folder: folder of its files below the data folder.
        splits: by name.
        submissions: name of the predictions file of each test split.
        skips_broken_rows: whether rows that lack columns or the label are left out, as TensorFlow
            Datasets leaves them out, instead of refused.
        synthetic: whether this project makes its examples by rules.
    """

    name: str
    title: str
    fields: Mapping[str, str]
    label_column: str
    labels: tuple[str, ...]
    codes: tuple[str, ...]
    scores: tuple[Score, ...]
    folder: str = ""
    splits: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    submissions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    skips_broken_rows: bool = False
    synthetic: bool = False

    def text(self, values: Mapping[str, str]) -> str:
        """The input: the task's name, then each feature's name and text, sorted by name.

        Example:
            >>> TASKS["mnli"].text({"premise": "It rains.", "hypothesis": "It is wet."})
            'mnli hypothesis: It is wet. premise: It rains.'
        """
        parts = [part for name in sorted(self.fields) for part in (f"{name}:", values[name])]
        return " ".join((self.name, *parts))

    def target(self, label: int | float) -> str:
        """The target text of a label: its name, or a number in steps of a fifth; -1 is `<unk>`.

        Raises:
            ValueError: no such class, or a number out of 0 to 5.
        """
        if label == HIDDEN:
            return UNKNOWN
        if self.labels:
            if not 0 <= label < len(self.labels):
                raise ValueError(f"a class of 0 to {len(self.labels) - 1}")
            return self.labels[int(label)]
        if not 0 <= label <= 5:
            raise ValueError("a number of 0 to 5")
        # In float32 and half to even, as T5 does: 2.5 · 5 = 12.5 becomes 12, so 2.4.
        return f"{np.rint(np.float32(label) * np.float32(5)) / np.float32(5):.1f}"

    def parse_label(self, text: str) -> int | float:
        """The label that a file writes as `text`.

        Raises:
            ValueError: it is none; the message says what would be one.
        """
        if self.labels:
            if text not in self.codes:
                raise ValueError(f"a label of {', '.join(self.codes)}")
            return self.codes.index(text)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 5:
            raise ValueError("a number of 0 to 5")
        return value

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that its scores are computed from."""
        return tuple(dict.fromkeys(score.split for score in self.scores))


def _splits(validation: tuple[str, ...] = ("",), columns: tuple[str, ...] = ()) -> dict[str, Split]:
    """train, then validation and test for each suffix, in files as the benchmark names them."""
    found = {"train": Split("train.tsv", columns=columns)}
    for suffix in validation:
        found[f"validation{suffix}"] = Split(f"dev{suffix}.tsv", columns=columns)
    for suffix in validation:
        found[f"test{suffix}"] = Split(f"test{suffix}.tsv", labelled=False)
    return found


_SENTENCE = {"sentence": "sentence"}
_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_BITS = ("0", "1")
_INFERENCE = ("entailment", "not_entailment")
_INFERENCE_3 = ("entailment", "neutral", "contradiction")

_GLUE = (
    Task(
        "cola",
        "CoLA",
        _SENTENCE,
        "label",
        ("unacceptable", "acceptable"),
        _BITS,
        (Score("cola", "matthews", title="Matthews"),),
        "CoLA",
        _splits(columns=("source", "label", "original", "sentence")),
        {"test": "CoLA.tsv"},
    ),
    Task(
        "sst2",
        "SST-2",
        _SENTENCE,
        "label",
        ("negative", "positive"),
        _BITS,
        (Score("sst2", "accuracy", title="accuracy"),),
        "SST-2",
        _splits(),
        {"test": "SST-2.tsv"},
    ),
    Task(
        "mrpc",
        "MRPC",
        {"sentence1": "#1 String", "sentence2": "#2 String"},
        "Quality",
        ("not_equivalent", "equivalent"),
        _BITS,
        (Score("mrpc_f1", "f1", title="F1"), Score("mrpc_accuracy", "accuracy", title="accuracy")),
        "MRPC",
        _splits(),
        {"test": "MRPC.tsv"},
    ),
    Task(
        "stsb",
        "STS-B",
        _PAIR,
        "score",
        (),
        (),
        (
            Score("stsb_pearson", "pearson", title="Pearson"),
            Score("stsb_spearman", "spearman", title="Spearman"),
        ),
        "STS-B",
        _splits(),
        {"test": "STS-B.tsv"},
    ),
    Task(
        "qqp",
        "QQP",
        {"question1": "question1", "question2": "question2"},
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        _BITS,
        (Score("qqp_accuracy", "accuracy", title="accuracy"), Score("qqp_f1", "f1", title="F1")),
        "QQP",
        _splits(),
        {"test": "QQP.tsv"},
        skips_broken_rows=True,
    ),
    Task(
        "mnli",
        "MNLI",
        {"premise": "sentence1", "hypothesis": "sentence2"},
        "gold_label",
        _INFERENCE_3,
        _INFERENCE_3,
        (
            Score("mnli_m", "accuracy", "validation_matched", "matched"),
            Score("mnli_mm", "accuracy", "validation_mismatched", "mismatched"),
        ),
        "MNLI",
        _splits(("_matched", "_mismatched")),
        {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    ),
    Task(
        "qnli",
        "QNLI",
        {"question": "question", "sentence": "sentence"},
        "label",
        _INFERENCE,
        _INFERENCE,
        (Score("qnli", "accuracy", title="accuracy"),),
        "QNLI",
        _splits(),
        {"test": "QNLI.tsv"},
    ),
    Task(
        "rte",
        "RTE",
        _PAIR,
        "label",
        _INFERENCE,
        _INFERENCE,
        (Score("rte", "accuracy", title="accuracy"),),
        "RTE",
        _splits(),
        {"test": "RTE.tsv"},
    ),
    Task(
        "wnli",
        "WNLI",
        _PAIR,
        "label",
        ("not_entailment", "entailment"),
        _BITS,
        (Score("wnli", "accuracy", title="accuracy"),),
        "WNLI",
        _splits(),
        {"test": "WNLI.tsv"},
    ),
)


def _synthetic(
    name: str, fields: Mapping[str, str], labels: tuple[str, ...], *metrics: str
) -> Task:
    key = f"synthetic_{name}"
    keys = [key] if len(metrics) == 1 else [f"{key}_{metric}" for metric in metrics]
    return Task(
        key,
        f"synthetic {name}",
        fields,
        "label",
        labels,
        _BITS[: len(labels)],
        tuple(
            Score(name, metric, title=metric) for name, metric in zip(keys, metrics, strict=True)
        ),
        splits={"train": Split(), "validation": Split(), "test": Split(labelled=False)},
        synthetic=True,
    )


_SYNTHETIC = (
    _synthetic("grammar", _SENTENCE, ("unacceptable", "acceptable"), "matthews"),
    _synthetic("sentiment", _SENTENCE, ("negative", "positive"), "accuracy"),
    _synthetic("paraphrase", _PAIR, ("not_equivalent", "equivalent"), "f1", "accuracy"),
    _synthetic("similarity", _PAIR, (), "pearson", "spearman"),
)

TASKS: Mapping[str, Task] = types.MappingProxyType(
    {task.name: task for task in (*_GLUE, *_SYNTHETIC)}
)
"""Every task by name, the GLUE tasks in the order of the paper's Table 7 first."""

MIXTURE = tuple(task.name for task in _GLUE if task.name != "wnli")
"""The tasks of the mixture and of the average; T5 and the paper leave WNLI out of both."""

SYNTHETIC = tuple(task.name for task in _SYNTHETIC)
"""The tasks that this project makes by rules."""


def find(name: str) -> Task:
    """The task of a name.

    Raises:
        UserError: there is none; the known ones are listed.
    """
    if name not in TASKS:
        raise UserError(f"Expected a task of {', '.join(TASKS)}. Received: task={name!r}.")
    return TASKS[name]


def find_split(task: Task, split: str) -> Split:
    """A split of a task.

    Raises:
        UserError: it has none of that name; its own are listed.
    """
    if split not in task.splits:
        raise UserError(
            f"Expected a split of {task.name}: {', '.join(task.splits)}. Received: split={split!r}."
        )
    return task.splits[split]


def scores(names: Iterable[str]) -> dict[str, Score]:
    """The scores of some tasks by key, in the order of the tasks."""
    return {score.key: score for name in names for score in find(name).scores}
