"""The tasks as one table: columns of their files, names of their labels, scores.

Readers, text formats, metrics, predictions files and report columns all follow `TASKS`; a new task
is one more entry. Names, features and labels are those of TensorFlow Datasets (`glue/*`), since
T5's texts are made of them; columns and files are those that the benchmark publishes.

`grammar`, `sentiment`, `paraphrase` and `similarity` are no GLUE tasks: this project makes them by
rules (see glue/data/synthetic.py), so their names begin with `synthetic_` and no GLUE table has
them.
"""

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping

import numpy as np

from trainers.errors import check_choice

UNKNOWN = "<unk>"
"""Target text of an example whose label is hidden, as T5 writes it."""

HIDDEN = -1
"""Label of an example of a test set, as TensorFlow Datasets gives it."""


@dataclasses.dataclass(frozen=True)
class Split:
    """One split and the file that holds it."""

    file: str = ""  # its name in the task's folder; empty for the synthetic tasks
    # Whether its labels are known; a test set's are not, whatever its file says.
    labelled: bool = True
    columns: tuple[str, ...] = ()  # names of the columns of a file that has no header line
    folder: str = ""  # of the file; empty for the task's
    # Configuration and split in TensorFlow Datasets; None for the task's name and the split's.
    dataset: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """One number that a task is judged by."""

    key: str  # its name in a dict of scores and in tables
    metric: str  # key of `glue.metrics.METRICS`
    split: str  # the split whose examples it is computed from
    title: str  # its heading below the task's


@dataclasses.dataclass(frozen=True)
class Task:
    """One task."""

    name: str  # in TensorFlow Datasets, on the command line, and the first word of every input
    title: str  # as the benchmark writes it, which is also the name of the folder of its files
    fields: Mapping[str, str]  # column of each text feature
    label_column: str  # column of the label
    # Target texts, by class; empty for STS-B and its like, whose label is a number of 0 to 5.
    labels: tuple[str, ...]
    codes: tuple[str, ...]  # the classes as files and submissions write them, in the same order
    scores: tuple[TaskScore, ...]  # the numbers that it is judged by
    splits: Mapping[str, Split]  # by name
    # Name of the predictions file of each test split; none for synthetic tasks.
    submissions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Whether rows that lack columns or the label are left out, as TensorFlow Datasets leaves them
    # out, instead of refused.
    skips_broken_rows: bool = False
    # What files write where annotators did not agree on a label; such rows are left out.
    no_label: str | None = None

    def text(self, values: Mapping[str, str]) -> str:
        """The input: the task's name, then each feature's name and text, sorted by name.

        Example:
            >>> TASKS["mnli"].text({"premise": "It rains.", "hypothesis": "It is wet."})
            'mnli hypothesis: It is wet. premise: It rains.'
        """
        return " ".join((self.name, *(f"{name}: {values[name]}" for name in sorted(self.fields))))

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
    def synthetic(self) -> bool:
        """True where this project makes its examples by rules."""
        return not self.splits["train"].file

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that its scores are computed from."""
        return tuple(dict.fromkeys(score.split for score in self.scores))


_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
}
_SENTENCE = {"sentence": "sentence"}
_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_BITS = ("0", "1")
_INFERENCE = ("entailment", "not_entailment")
_INFERENCE_3 = ("entailment", "neutral", "contradiction")


def _scores(name: str, metrics: str) -> tuple[TaskScore, ...]:
    """The scores of a task with one validation split."""
    keys = [name] if " " not in metrics else [f"{name}_{metric}" for metric in metrics.split()]
    return tuple(
        TaskScore(key, metric, "validation", _TITLES[metric])
        for key, metric in zip(keys, metrics.split(), strict=True)
    )


def _glue(
    name: str,
    title: str,
    fields: Mapping[str, str],
    label_column: str,
    labels: tuple[str, ...],
    metrics: str,
    codes: tuple[str, ...] = _BITS,
    columns: tuple[str, ...] = (),
    **options: object,
) -> Task:
    """A GLUE task with one validation and one test split; `columns` of files without a header."""
    splits = {
        "train": Split("train.tsv", columns=columns),
        "validation": Split("dev.tsv", columns=columns),
        "test": Split("test.tsv", labelled=False),
    }
    submissions = {"test": f"{title}.tsv"}
    scores = _scores(name, metrics)
    return Task(
        name, title, fields, label_column, labels, codes, scores, splits, submissions, **options
    )


_MNLI = Task(
    "mnli",
    "MNLI",
    {"premise": "sentence1", "hypothesis": "sentence2"},
    "gold_label",
    _INFERENCE_3,
    _INFERENCE_3,
    (
        TaskScore("mnli_m", "accuracy", "validation_matched", "matched"),
        TaskScore("mnli_mm", "accuracy", "validation_mismatched", "mismatched"),
    ),
    {
        "train": Split("train.tsv"),
        "validation_matched": Split("dev_matched.tsv"),
        "validation_mismatched": Split("dev_mismatched.tsv"),
        "test_matched": Split("test_matched.tsv", labelled=False),
        "test_mismatched": Split("test_mismatched.tsv", labelled=False),
        # The benchmark's diagnostic set, which a model of MNLI predicts.
        "test_diagnostic": Split(
            "diagnostic.tsv", labelled=False, folder="diagnostic", dataset=("ax", "test")
        ),
    },
    {
        "test_matched": "MNLI-m.tsv",
        "test_mismatched": "MNLI-mm.tsv",
        "test_diagnostic": "AX.tsv",
    },
    no_label="-",
)

_COLA_COLUMNS = ("source", "label", "original", "sentence")
_MRPC_FIELDS = {"sentence1": "#1 String", "sentence2": "#2 String"}
_QQP_FIELDS = {"question1": "question1", "question2": "question2"}
_QNLI_FIELDS = {"question": "question", "sentence": "sentence"}
_ACCEPTABLE = ("unacceptable", "acceptable")
_POSITIVE = ("negative", "positive")
_EQUIVALENT = ("not_equivalent", "equivalent")
_DUPLICATE = ("not_duplicate", "duplicate")

_TASKS = (
    _glue("cola", "CoLA", _SENTENCE, "label", _ACCEPTABLE, "matthews", columns=_COLA_COLUMNS),
    _glue("sst2", "SST-2", _SENTENCE, "label", _POSITIVE, "accuracy"),
    _glue("mrpc", "MRPC", _MRPC_FIELDS, "Quality", _EQUIVALENT, "f1 accuracy"),
    _glue("stsb", "STS-B", _PAIR, "score", (), "pearson spearman", codes=()),
    _glue(
        "qqp", "QQP", _QQP_FIELDS, "is_duplicate", _DUPLICATE, "accuracy f1", skips_broken_rows=True
    ),
    _MNLI,
    _glue("qnli", "QNLI", _QNLI_FIELDS, "label", _INFERENCE, "accuracy", codes=_INFERENCE),
    _glue("rte", "RTE", _PAIR, "label", _INFERENCE, "accuracy", codes=_INFERENCE),
    _glue("wnli", "WNLI", _PAIR, "label", ("not_entailment", "entailment"), "accuracy"),
)


def _synthetic(name: str, fields: Mapping[str, str], labels: tuple[str, ...], metrics: str) -> Task:
    splits = {"train": Split(), "validation": Split(), "test": Split(labelled=False)}
    key, codes = f"synthetic_{name}", _BITS[: len(labels)]
    title, scores = f"synthetic {name}", _scores(key, metrics)
    return Task(key, title, fields, "label", labels, codes, scores, splits)


_SYNTHETIC = (
    _synthetic("grammar", _SENTENCE, _ACCEPTABLE, "matthews"),
    _synthetic("sentiment", _SENTENCE, _POSITIVE, "accuracy"),
    _synthetic("paraphrase", _PAIR, _EQUIVALENT, "f1 accuracy"),
    _synthetic("similarity", _PAIR, (), "pearson spearman"),
)

TASKS: Mapping[str, Task] = types.MappingProxyType(
    {task.name: task for task in (*_TASKS, *_SYNTHETIC)}
)
"""Every task by name, the GLUE tasks in the order of the paper's Table 7 first."""

MIXTURE = tuple(task.name for task in _TASKS if task.name != "wnli")
"""The tasks of the mixture and of the average; T5 and the paper leave WNLI out of both."""

SYNTHETIC = tuple(task.name for task in _SYNTHETIC)
"""The tasks that this project makes by rules."""


def find(name: str) -> Task:
    """The task of a name; a `UserError` lists all names."""
    check_choice(TASKS, task=name)
    return TASKS[name]


def scores(names: Iterable[str]) -> dict[str, TaskScore]:
    """The scores of some tasks by key, in the order of the tasks."""
    return {score.key: score for name in names for score in find(name).scores}
