"""Examples from all sources: real files, files of the published layouts, TensorFlow Datasets."""

import numpy as np
import pytest

from glue import data, tasks
from glue.data import tsv
from tests.glue import layouts
from tests.trainers import tfds_folders
from trainers.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with all nine tasks, in the benchmark's layouts."""
    return layouts.write(tmp_path_factory.mktemp("glue"))


@pytest.mark.parametrize(("task", "split"), layouts.EXAMPLES)
def test_every_layout_gives_the_examples_written_out_by_hand(folder, task, split):
    assert data.load_examples(task, split, folder) == layouts.EXAMPLES[task, split]


def test_every_split_has_an_example_by_hand():
    splits = {
        (t.name, split) for t in tasks.TASKS.values() for split in t.splits if not t.synthetic
    }
    assert splits == set(layouts.EXAMPLES)


# The counts of TensorFlow Datasets, but for MRPC's training set: the file that goes round has
# 3,667 examples where TensorFlow Datasets, which makes its own from Microsoft's, has 3,668.
@pytest.mark.parametrize(
    ("task", "train", "validation", "first", "last"),
    [
        (
            "cola", 8551, 1043,
            ("cola sentence: The sailors rode the breeze clear of the rocks.", "acceptable"),
            ("cola sentence: John talked to Bill about himself.", "acceptable"),
        ),
        (
            "mrpc", 3667, 408,
            (
                "mrpc sentence1: He said the foodservice pie business doesn 't fit the company "
                "'s long-term growth strategy . sentence2: \" The foodservice pie business does "
                "not fit our long-term growth strategy .",
                "equivalent",
            ),
            None,
        ),
        (
            "rte", 2490, 277,
            (
                "rte sentence1: Dana Reeve, the widow of the actor Christopher Reeve, has died of "
                "lung cancer at age 44, according to the Christopher Reeve Foundation. sentence2: "
                "Christopher Reeve had an accident.",
                "not_entailment",
            ),
            None,
        ),
        (
            "wnli", 635, 71,
            (
                "wnli sentence1: The drain is clogged with hair. It has to be cleaned. sentence2: "
                "The hair has to be cleaned.",
                "not_entailment",
            ),
            None,
        ),
    ],
)  # fmt: skip
def test_the_real_files(shared_dir, task, train, validation, first, last):
    folder = shared_dir / "data" / "glue"
    assert len(data.load_examples(task, "train", folder)) == train
    pairs = data.load_examples(task, "validation", folder)
    assert len(pairs) == validation
    assert pairs[0] == first
    assert last is None or pairs[-1] == last


def test_missing_tasks_are_named_and_the_others_are_ready(folder, tmp_path):
    layouts.write(tmp_path, ["CoLA/train.tsv", "CoLA/dev.tsv", "MNLI/train.tsv"])
    ready, missing = data.available(["mnli", "cola", "rte", "synthetic_grammar"], tmp_path)
    assert ready == ("cola", "synthetic_grammar")
    assert list(missing) == ["mnli", "rte"]
    assert "MNLI/dev_matched.tsv" in missing["mnli"]
    assert "leave rte out" in missing["rte"]
    assert data.available(tasks.MIXTURE, folder) == (tasks.MIXTURE, {})


def test_no_task_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one task.*tasks=cola,rte"):
        data.available(["cola", "rte"], tmp_path)
    with pytest.raises(UserError, match="Received: data_dir=.*no folder"):
        data.available(["cola"], tmp_path / "absent")
    with pytest.raises(UserError, match="task='glue'"):
        data.available(["cola", "glue"], tmp_path)


def test_synthetic_tasks_need_no_folder():
    assert data.available(tasks.SYNTHETIC) == (tasks.SYNTHETIC, {})
    text, target = data.load_examples("synthetic_grammar", "validation")[0]
    assert text.startswith("synthetic_grammar sentence: ")
    assert target in ("acceptable", "unacceptable")


# The rows of a builder, as TensorFlow Datasets yields them: bytes, in an order of their own.
ROWS = {
    "mnli": [
        {"premise": b"P.", "hypothesis": b"H.", "label": 2, "idx": 1},
        {"premise": b"Q.", "hypothesis": b"I.", "label": 0, "idx": 0},
    ],
    "stsb": [{"sentence1": "é".encode(), "sentence2": b"e", "label": 2.5, "idx": 0}],
}


@pytest.fixture
def mocked():
    """The builders of `glue/*`, with the rows above where there are some."""
    tf = pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")

    def as_dataset(self, *args, **kwargs):
        rows = ROWS.get(self.builder_config.name)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return tf.data.Dataset.from_tensor_slices(columns)

    return lambda fake: tfds.testing.mock_data(
        num_examples=3, **({"as_dataset_fn": as_dataset} if fake else {})
    )


def test_tensorflow_datasets_gives_the_rows_in_the_order_of_the_file(mocked):
    with mocked(True):
        assert data.load_examples("mnli", "validation_matched") == [
            ("mnli hypothesis: I. premise: Q.", "entailment"),
            ("mnli hypothesis: H. premise: P.", "contradiction"),
        ]
        assert data.load_examples("mnli", "test_matched")[0][1] == "<unk>"
        assert data.load_examples("stsb", "train") == [("stsb sentence1: é sentence2: e", "2.4")]


@pytest.mark.parametrize(
    "names",
    [
        ["mnli", "wnli"],
        # Below, the builders' own reader has the features of all but two.
        pytest.param(sorted({*tasks.MIXTURE} - {"mnli"}), marks=pytest.mark.slow),
    ],
    ids=["two", "others"],
)
def test_the_real_builders_know_every_task_split_and_feature(mocked, names):
    with mocked(False):
        for task in map(tasks.find, names):
            fields = [f"{field}:" for field in sorted(task.fields)]
            for split, facts in task.splits.items():
                pairs = data.load_examples(task.name, split)
                assert len(pairs) == 3
                for text, target in pairs:
                    assert text.startswith(f"{task.name} {fields[0]} ")
                    assert all(field in text for field in fields)
                    assert (target != "<unk>") == facts.labelled
        assert data.available(tasks.MIXTURE) == (tasks.MIXTURE, {})


@pytest.mark.parametrize("task", ["cola", "sst2", "stsb", "qqp", "qnli", "rte", "wnli"])
def test_the_builders_own_reader_sees_the_same_rows(folder, task):
    """The reader inside TensorFlow Datasets, on the same files, as an oracle."""
    tfds = pytest.importorskip("tensorflow_datasets")
    builder, layout = tfds.builder(f"glue/{task}"), tasks.find(task)
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        path = folder / layout.title / layout.splits[split].file
        rows = [row for _, row in builder._generate_examples(str(path), name)]
        if layout.labels:
            rows = [{**row, "label": _class(row["label"], layout.labels)} for row in rows]
        theirs = [(layout.text(row), layout.target(row["label"])) for row in rows]
        assert theirs == data.load_examples(task, split, folder)


def _class(label, labels):
    return labels.index(label) if label in labels else int(label)


ROWS_OF_COLA = (("Is so it.", 0), ("So it is.", 1))


def test_data_that_tensorflow_datasets_lacks_is_missing_not_wrong(monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    def absent(*args, **kwargs):
        raise AssertionError("could not find data")

    monkeypatch.setattr(tfds, "builder", absent)
    with pytest.raises(tsv.MissingFile, match="tfds build glue/cola"):
        data.load_examples("cola", "train")
    ready, missing = data.available(["cola", "synthetic_grammar"])
    assert ready == ("synthetic_grammar",) and list(missing) == ["cola"]


def test_another_version_of_tensorflow_datasets_is_read(monkeypatch, tmp_path):
    """As GLUE 1.0.0, which was prepared years ago."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {"sentence": tfds.features.Text(), "idx": np.int32}
    features["label"] = tfds.features.ClassLabel(names=["unacceptable", "acceptable"])
    rows = [{"sentence": text, "label": label, "idx": 1 - label} for text, label in ROWS_OF_COLA]
    tfds_folders.write(tmp_path, "glue/cola", "1.0.0", features, {"train": rows})
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: builder(name, data_dir=tmp_path))
    assert data.load_examples("cola", "train") == [
        ("cola sentence: So it is.", "acceptable"),
        ("cola sentence: Is so it.", "unacceptable"),
    ]
