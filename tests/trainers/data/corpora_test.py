"""Corpora: documents, the split between training and validation, and what is refused."""

import dataclasses

import pytest

from tests.trainers import tfds_folders
from trainers.data import docstrings
from trainers.data.config import DataConfig
from trainers.data.corpora import TRAIN, VALIDATION, Document, expand, make_corpus, split_of
from trainers.errors import UserError


def text_config(path, **settings) -> DataConfig:
    return DataConfig(corpus="text", corpus_path=str(path), **settings)


def test_the_split_takes_its_share_and_follows_the_content():
    config = DataConfig(validation_fraction=0.2)
    splits = [split_of(f"document {i}", config) for i in range(5000)]
    assert 0.18 < splits.count(VALIDATION) / len(splits) < 0.22
    assert splits == [split_of(f"  document\n{i} ", config) for i in range(5000)]
    reseeded = dataclasses.replace(config, seed=1)
    assert splits != [split_of(f"document {i}", reseeded) for i in range(5000)]


def test_a_bigger_share_keeps_the_validation_documents():
    few, many = DataConfig(validation_fraction=0.1), DataConfig(validation_fraction=0.3)
    texts = [f"document {i}" for i in range(1000)]
    kept = [text for text in texts if split_of(text, few) == VALIDATION]
    assert kept and all(split_of(text, many) == VALIDATION for text in kept)


def test_train_and_validation_share_no_document(tmp_path):
    # Every document stands in the file ten times, differently spaced.
    lines = [f"a document   {i % 100}" if i % 2 else f" a document {i % 100}" for i in range(1000)]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines))
    config = text_config(path, document="line", validation_fraction=0.3)
    sides = {TRAIN: set(), VALIDATION: set()}
    for split, text in make_corpus(config).documents():
        sides[split].add(" ".join(text.split()))
    assert sides[TRAIN] and sides[VALIDATION]
    assert not sides[TRAIN] & sides[VALIDATION]
    assert len(sides[TRAIN] | sides[VALIDATION]) == 100


@pytest.mark.parametrize(
    ("document", "texts"),
    [("paragraph", ["One\ntwo.", "Three.", "Four."]), ("line", ["One", "two.", "Three.", "Four."])],
)
def test_what_a_document_is(tmp_path, document, texts):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfOne\r\ntwo. \n \n\n\nThree.\n")
    (tmp_path / "b.txt").write_text("\n\nFour.")
    corpus = make_corpus(text_config(tmp_path / "*.txt", document=document))
    assert [document.text for document in corpus.documents()] == texts


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("\n".join(f"Sentence {number} of a list." for number in range(900)), 900),
        (" ".join(f"word{number}" for number in range(9_000)), 75),
        ("x" * 10_000, 10),
        ("Title\n\n" + "\n".join(f"line {number}" for number in range(300)), 4),
    ],
    ids=["a sentence per line", "one line", "no space", "paragraphs"],
)
def test_texts_of_any_shape_have_documents(tmp_path, text, count):
    (tmp_path / "a.txt").write_text(text)
    documents = [d.text for d in make_corpus(text_config(tmp_path / "a.txt")).documents()]
    assert len(documents) == pytest.approx(count, rel=0.2)
    assert "".join("".join(documents).split()) == "".join(text.split())


def test_max_bytes_limits_the_text(words_file):
    corpus = make_corpus(text_config(words_file, max_bytes=10_000))
    sizes = [len(document.text.encode()) for document in corpus.documents()]
    assert sum(sizes[:-1]) < 10_000 <= sum(sizes)
    assert corpus.size == 10_000


def test_the_hash_is_of_contents_not_of_names(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("text")
    (tmp_path / "c.txt").write_text("other")
    hashes = [make_corpus(text_config(tmp_path / f"{name}.txt")).sha256 for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_expand_lists_each_file_once_in_order(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt", "deep/d.md"):
        (tmp_path / name).write_text("text")
    monkeypatch.chdir(tmp_path)
    assert [str(p) for p in expand("**/*.txt, a.txt,")] == ["a.txt", "b.txt", "deep/c.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/b.txt") == [tmp_path / "b.txt"]


@pytest.mark.parametrize("paths", [None, ""])
def test_text_without_a_path(paths):
    with pytest.raises(UserError, match="Received: corpus_path="):
        expand(paths)


@pytest.mark.parametrize("name", ["none.txt", "*.none", "a.txt,none.txt", ","])
def test_a_path_without_a_file(tmp_path, monkeypatch, name):
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="Received: corpus_path=.*no file is there"):
        expand(name)


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(UserError, match="which is a folder. Give"):
        expand(str(tmp_path))


@pytest.mark.parametrize(
    ("contents", "offset"),
    [(b"good\nbad \xff byte\n", 9), (b"\xfe\xff", 0), (b"cut \xe2\x82", 4), (b"\n\n\xc3\n", 2)],
)
def test_other_encodings_are_named_with_their_place(tmp_path, contents, offset):
    path = tmp_path / "latin.txt"
    path.write_bytes(contents)
    expected = f"Received: corpus_path={path} with the byte 0x.. at offset {offset}[.]"
    with pytest.raises(UserError, match=expected):
        list(make_corpus(text_config(path)).documents())


def test_an_unknown_corpus_lists_the_known():
    with pytest.raises(UserError, match="docs, text, c4. Received: corpus='wiki'"):
        make_corpus(DataConfig(corpus="wiki"))


def test_docs_takes_no_path():
    with pytest.raises(UserError, match="Received: corpus_path=a.txt"):
        make_corpus(DataConfig(corpus="docs", corpus_path="a.txt"))


def test_docs_reads_its_sources_once(monkeypatch):
    config = DataConfig(packages=("absl-py",), max_bytes=50_000, validation_fraction=0.3)
    corpus = make_corpus(config)
    documents = list(corpus.documents())
    monkeypatch.setattr(docstrings, "module_documents", None)
    assert list(corpus.documents()) == documents
    assert {document.split for document in documents} == {TRAIN, VALIDATION}
    assert corpus.size == sum(len(document.text.encode()) for document in documents) >= 50_000
    facts = corpus.facts()
    assert list(facts["packages"]) == ["absl-py"]
    assert (
        "without keras, without matplotlib, without numpy, without scipy, with absl-py"
        in (facts["note"])
    )


def test_the_order_of_docs_depends_on_contents_and_seed_and_its_text_on_neither():
    config = DataConfig(packages=("absl-py",), validation_fraction=0.3)
    corpora = [make_corpus(dataclasses.replace(config, seed=seed)) for seed in (0, 0, 1)]
    once, again, other = (list(corpus.documents()) for corpus in corpora)
    assert once == again
    texts = [[document.text for document in documents] for documents in (once, other)]
    assert texts[0] != texts[1] and sorted(texts[0]) == sorted(texts[1])
    assert len({corpus.facts()["text_sha256"] for corpus in corpora}) == 1
    splits = [{d.text: d.split for d in documents} for documents in (once, other)]
    assert splits[0] != splits[1]


def test_docs_of_other_versions_are_another_corpus(monkeypatch):
    config = DataConfig(packages=("absl-py",))
    before = make_corpus(config).sha256
    assert make_corpus(config).sha256 == before
    sources = docstrings.Sources(["absl-py"])
    sources.versions["absl-py"] = "0.1"
    monkeypatch.setattr(docstrings, "Sources", lambda packages: sources)
    assert make_corpus(config).sha256 != before


@pytest.fixture
def mock_c4():
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    def as_dataset(self, split, **_):
        texts = [f"{split} document {i} é" for i in range(20)]
        return tf.data.Dataset.from_tensor_slices({"text": texts, "url": texts})

    with tfds.testing.mock_data(num_examples=20, as_dataset_fn=as_dataset):
        yield


def test_c4_has_its_own_validation_split(mock_c4):
    corpus = make_corpus(DataConfig(corpus="c4"))
    expected = [Document(VALIDATION, f"validation document {i} é") for i in range(20)]
    expected += [Document(TRAIN, f"train document {i} é") for i in range(20)]
    assert list(corpus.documents()) == expected
    assert corpus.facts() == {"tfds": "c4/en/3.1.0"}


def test_c4_limits_each_split(mock_c4):
    config = DataConfig(corpus="c4", max_bytes=200, validation_fraction=0.2)
    splits = [document.split for document in make_corpus(config).documents()]
    assert splits == [VALIDATION] * 2 + [TRAIN] * 9  # 40 and 160 bytes, of 24 and 19 a document


def test_c4_with_random_examples_of_the_real_builder():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=3):
        documents = list(make_corpus(DataConfig(corpus="c4")).documents())
    assert [document.split for document in documents] == [VALIDATION] * 3 + [TRAIN] * 3
    assert all(isinstance(document.text, str) for document in documents)


def test_c4_that_is_not_there(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    corpus = make_corpus(DataConfig(corpus="c4", corpus_path=str(tmp_path)))
    with pytest.raises(UserError, match=f"Received: corpus_path={tmp_path}, where it is not"):
        next(corpus.documents())


def test_c4_of_another_version_is_read(tmp_path):
    """The newest of those that are there; TensorFlow Datasets looks for 3.1.0 alone."""
    tfds = pytest.importorskip("tensorflow_datasets")
    text = tfds.features.Text()
    for version in ("3.0.1", "2.10.0"):
        splits = {s: [{"text": f"{s} {version}", "url": ""}] for s in (VALIDATION, TRAIN)}
        tfds_folders.write(tmp_path, "c4/en", version, {"text": text, "url": text}, splits)
    corpus = make_corpus(DataConfig(corpus="c4", corpus_path=str(tmp_path)))
    assert [document.text for document in corpus.documents()] == [
        "validation 3.0.1",
        "train 3.0.1",
    ]
    assert corpus.facts() == {"tfds": "c4/en/3.0.1"}


def test_c4_of_a_version_that_cannot_be_read_is_named_with_both(tmp_path):
    """As written before TensorFlow Datasets kept features.json."""
    pytest.importorskip("tensorflow_datasets")
    (tmp_path / "c4/en/3.0.1").mkdir(parents=True)
    corpus = make_corpus(DataConfig(corpus="c4", corpus_path=str(tmp_path)))
    with pytest.raises(UserError, match=r"c4/en 3\.1\.0, or .* with 3\.0\.1, which") as caught:
        next(corpus.documents())
    assert "tfds build" not in str(caught.value)


def test_real_text(shared_dir):
    corpus = make_corpus(text_config(shared_dir / "data/text/*.txt"))
    documents = list(corpus.documents())
    assert len(documents) > 2000
    share = sum(document.split == VALIDATION for document in documents) / len(documents)
    assert 0.03 < share < 0.07
