"""Errors of files, each in one line: file, line number, value."""

import pytest

from glue import data
from tests.glue import layouts
from trainers.errors import UserError


def refused(folder, task, split="train"):
    """The message with which a file is refused."""
    with pytest.raises(UserError) as caught:
        data.load_examples(task, split, folder)
    message = str(caught.value)
    assert "\n" not in message and "Received: " in message
    return message


def edited(tmp_path, name, old, new):
    """The file of a layout with something else in it."""
    layouts.write(tmp_path, [name])
    path = tmp_path / name
    text = path.read_bytes().decode("utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("utf-8"))
    return tmp_path


@pytest.mark.parametrize(
    ("task", "name", "old", "new", "wanted"),
    [
        ("cola", "CoLA/train.tsv", "\t0\t*", "\t2\t*", ["line=2", "value='2'", "0, 1"]),
        ("sst2", "SST-2/train.tsv", "long \t0", "long \tgood", ["line=3", "value='good'"]),
        ("mrpc", "MRPC/train.tsv", "\n0\t12", "\n-1\t12", ["line=3", "value='-1'"]),
        ("stsb", "STS-B/train.tsv", "5.000", "5.500", ["line=2", "value='5.500'", "0 to 5"]),
        ("stsb", "STS-B/train.tsv", "2.500", "many", ["line=3", "value='many'"]),
        ("stsb", "STS-B/train.tsv", "2.500", "nan", ["line=3", "value='nan'"]),
        ("qqp", "QQP/train.tsv", "How?\t0", "How?\t3", ["line=5", "value='3'"]),
        ("mnli", "MNLI/train.tsv", "\tneutral\n", "\t?\n", ["line=2", "value='?'", "neutral"]),
        ("qnli", "QNLI/train.tsv", "\tnot_ent", "\tNot_ent", ["line=3", "'Not_entailment'"]),
        ("rte", "RTE/train.tsv", "\tentailment", "\t1", ["line=2", "value='1'"]),
        ("wnli", "WNLI/train.tsv", "broke.\t1", "broke.\tentailment", ["line=2", "0, 1"]),
    ],
)
def test_a_label_out_of_the_set(tmp_path, task, name, old, new, wanted):
    message = refused(edited(tmp_path, name, old, new), task)
    for part in (str(tmp_path / name), *wanted):
        assert part in message


def test_rows_without_an_agreed_label_are_left_out_and_counted(tmp_path, capsys):
    text = layouts.FILES["MNLI/train.tsv"]
    row = text.splitlines(keepends=True)[1]
    folder = edited(tmp_path, "MNLI/train.tsv", row, row.replace("\tneutral\n", "\t-\n") + row)
    assert data.load_examples("mnli", "train", folder) == layouts.EXAMPLES["mnli", "train"]
    assert "left out 1 rows" in capsys.readouterr().out


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    message = refused(edited(tmp_path, "RTE/train.tsv", "sentence2", "sentence_2"), "rte")
    assert "a column 'sentence2'" in message and "line=1" in message
    assert "sentence1, sentence_2, label" in message


def test_a_test_set_needs_no_label_column_and_ignores_one(tmp_path):
    folder = edited(
        tmp_path, "RTE/test.tsv", "sentence2\n0\tA.\tB.", "sentence2\tlabel\n0\tA.\tB.\tx"
    )
    assert data.load_examples("rte", "test", folder) == layouts.EXAMPLES["rte", "test"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("task", ["cola", "rte"])
def test_an_empty_file(tmp_path, task, content):
    folder = {"cola": "CoLA", "rte": "RTE"}[task]
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "train.tsv").write_bytes(content)
    message = refused(tmp_path, task)
    assert f"{folder}/train.tsv" in message and "line=0" in message


def test_a_header_alone(tmp_path):
    folder = edited(tmp_path, "RTE/train.tsv", "0\tA and B.\tA.\tentailment\n", "")
    assert "none after line=1" in refused(folder, "rte")


def test_a_row_that_is_cut_off(tmp_path):
    message = refused(edited(tmp_path, "RTE/train.tsv", "\tA.\tentailment", ""), "rte")
    assert "line=2 with 2: '0\\tA and B.'" in message and "Expected 4 columns" in message


def test_a_cut_row_of_a_test_set_is_never_left_out(tmp_path):
    """Its examples are numbered, so one less would shift all predictions after it."""
    message = refused(edited(tmp_path, "QQP/test.tsv", "\tWhere?", ""), "qqp", "test")
    assert "line=2 with 2" in message


def test_bytes_that_are_no_utf8(tmp_path):
    layouts.write(tmp_path, ["RTE/train.tsv"])
    path = tmp_path / "RTE/train.tsv"
    path.write_bytes(path.read_bytes().replace(b"A and", b"A \xff"))
    assert "line=2 with the byte 0xff" in refused(tmp_path, "rte")


def test_a_missing_file_is_named(tmp_path):
    message = refused(tmp_path, "qnli", "validation")
    assert str(tmp_path / "QNLI" / "dev.tsv") in message and "leave qnli out" in message


def test_a_long_value_is_shortened(tmp_path):
    message = refused(edited(tmp_path, "RTE/train.tsv", "\tentailment", "\t" + "x" * 500), "rte")
    assert len(message) < 400 and "x…'" in message
