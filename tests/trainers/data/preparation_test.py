"""A prepared folder: what is in it, that it is found again, and what damage is noticed."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from absl import logging

from trainers.data import manifest, vocabulary
from trainers.data.batches import PretrainingBatches
from trainers.data.config import DataConfig
from trainers.data.preparation import prepare, tell_other_text
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError


@pytest.fixture
def config(words_file, tmp_path) -> DataConfig:
    return DataConfig(
        corpus="text",
        corpus_path=str(words_file),
        vocabulary_pieces=96,
        num_sentinels=32,
        root=str(tmp_path / "data"),
        validation_fraction=0.1,
    )


@pytest.fixture
def folder(prepared_dir, tmp_path):
    """A copy of the prepared folder, to damage."""
    return shutil.copytree(prepared_dir, tmp_path / "copy")


def tokens_of(folder, split):
    return np.fromfile(folder / f"{split}.tokens", "<u2")


def test_the_files_hold_the_documents(prepared_dir, words_file):
    facts = manifest.read(prepared_dir)
    words = Vocabulary.from_file(prepared_dir / "vocabulary.model", 32)
    documents = {}
    for split, counts in facts["splits"].items():
        tokens = tokens_of(prepared_dir, split)
        assert len(tokens) == counts["tokens"]
        ends = np.flatnonzero(tokens == 1)
        assert len(ends) == counts["documents"]
        assert ends[-1] == len(tokens) - 1
        documents[split] = {words.decode(ids) for ids in np.split(tokens, ends[:-1] + 1)}
    paragraphs = {text.strip() for text in words_file.read_text().split("\n\n")}
    assert documents["train"] | documents["validation"] == paragraphs
    assert not documents["train"] & documents["validation"]
    assert sum(counts["bytes"] for counts in facts["splits"].values()) == sum(
        len(text) for text in paragraphs
    )


def test_the_manifest_says_what_is_there(prepared_dir):
    facts = json.loads((prepared_dir / "manifest.json").read_text())
    assert sorted(facts["files"]) == sorted(manifest.FILES)
    for name, file in facts["files"].items():
        assert file["bytes"] == (prepared_dir / name).stat().st_size
        assert file["sha256"] == manifest.sha256_of(prepared_dir / name)
    assert facts["vocabulary"]["sha256"] == facts["files"]["vocabulary.model"]["sha256"]
    assert (facts["vocabulary"]["size"], facts["vocabulary"]["padded_size"]) == (128, 128)
    assert facts["corpus"]["files"][0]["name"] == "words.txt"
    assert {"python", "numpy", "sentencepiece"} <= facts["versions"].keys()
    assert facts["config"]["validation_fraction"] == 0.1
    assert prepared_dir.name == f"text-{facts['config_sha256'][:12]}"


def test_the_same_settings_give_the_same_files(config, prepared_dir):
    assert prepare(config).name == prepared_dir.name
    for name in manifest.FILES:
        again = (prepare(config) / name).read_bytes()
        assert again == (prepared_dir / name).read_bytes()


def test_a_second_run_does_nothing(config):
    folder = prepare(config)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare(config) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_other_settings_make_another_folder(config, words_file, tmp_path):
    names = {prepare(config).name}
    names.add(prepare(dataclasses.replace(config, seed=1)).name)
    names.add(prepare(dataclasses.replace(config, num_sentinels=16)).name)
    longer = tmp_path / "other.txt"
    longer.write_text(words_file.read_text() + "\n\nA new paragraph.")
    names.add(prepare(dataclasses.replace(config, corpus_path=str(longer))).name)
    assert len(names) == 4


def test_a_given_vocabulary_is_used(config, prepared_dir):
    path = str(prepared_dir / "vocabulary.model")
    folder = prepare(dataclasses.replace(config, vocabulary_path=path, vocabulary_pieces=32_000))
    assert manifest.read(folder)["vocabulary"]["trained_on_bytes"] is None
    np.testing.assert_array_equal(tokens_of(folder, "train"), tokens_of(prepared_dir, "train"))


def test_max_tokens_ends_the_training_split(config):
    folder = prepare(dataclasses.replace(config, max_tokens=5000))
    assert 5000 <= len(tokens_of(folder, "train")) < 5500


def test_docs_from_start_to_batch(tmp_path, caplog):
    config = DataConfig(
        packages=("absl-py", "python"),
        vocabulary_pieces=200,
        num_sentinels=32,
        root=str(tmp_path),
        max_bytes=300_000,
    )
    folder = prepare(config)
    batches = PretrainingBatches(folder, "train", 4, 64)
    text = batches.vocabulary.decode(batches.batch(0)["encoder_token_ids"][0])
    assert "<extra_id_0>" in text
    assert set(manifest.read(folder)["corpus"]["packages"]) == {"absl-py", "python"}
    said = "corpus docs: not the text of this version of the project: without keras"
    assert caplog.text.count(said) == 1
    tell_other_text(folder)
    assert caplog.text.count(said) == 2


def test_the_text_of_this_version_is_not_spoken_of(prepared_dir, monkeypatch, caplog):
    facts = manifest.read(prepared_dir) | {"corpus": {"note": ""}}
    monkeypatch.setattr(manifest, "read", lambda _: facts)
    tell_other_text(prepared_dir)
    assert caplog.text == ""


def test_two_at_a_time_do_the_work_once(config, monkeypatch):
    built = []
    train = vocabulary.train

    def counted(*args):
        built.append(args)
        return train(*args)

    monkeypatch.setattr(vocabulary, "train", counted)
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(prepare(config))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len(folders) == 3 and len(set(folders)) == 1


def test_a_failure_leaves_nothing(config, monkeypatch):
    def fail(*_):
        raise UserError("Expected luck.")

    monkeypatch.setattr(Vocabulary, "encode_chunks", fail)
    with pytest.raises(UserError, match="Expected luck"):
        prepare(config)
    root = pathlib.Path(config.root)
    assert [path.name for path in root.iterdir() if not path.name.endswith(".lock")] == []


KILLED = """
import os, signal, sys
from trainers.data import preparation as lib
from trainers.data.config import DataConfig
lib.installed_versions = lambda: os.kill(os.getpid(), signal.SIGKILL)  # all files but the manifest
lib.prepare(DataConfig(corpus="text", corpus_path=sys.argv[1], vocabulary_pieces=96,
                       num_sentinels=32, root=sys.argv[2], validation_fraction=0.1))
"""


def test_a_killed_run_is_no_obstacle(config, prepared_dir, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # without tensorflow the process starts faster
    command = [sys.executable, "-c", KILLED, config.corpus_path, config.root]
    assert subprocess.run(command, capture_output=True).returncode == -9
    root = pathlib.Path(config.root)
    assert len([path for path in root.iterdir() if path.name.endswith(".partial")]) == 1
    folder = prepare(config)
    assert (folder / "train.tokens").read_bytes() == (prepared_dir / "train.tokens").read_bytes()
    assert not [path for path in root.iterdir() if path.name.endswith(".partial")]


@pytest.mark.parametrize("separator", ["\n", " "], ids=["lines", "one line"])
def test_a_text_without_blank_lines_trains(config, words_file, tmp_path, separator):
    path = tmp_path / "flat.txt"
    path.write_text(separator.join(words_file.read_text("utf-8").split("\n\n")), "utf-8")
    folder = prepare(dataclasses.replace(config, corpus_path=str(path), root=str(tmp_path / "d")))
    splits = manifest.read(folder)["splits"]
    assert splits["validation"]["documents"] > 4
    assert PretrainingBatches(folder, "validation", 64, 16).batch(0)["targets"].shape[0] == 64


def test_unknown_tokens_are_counted_and_warned_of(config, prepared_dir, tmp_path, monkeypatch):
    path = tmp_path / "other.txt"
    path.write_text("\n\n".join(f"ξ{chr(0x4E00 + n)} ba" for n in range(400)), "utf-8")
    given = str(prepared_dir / manifest.VOCABULARY)
    with_vocabulary = dataclasses.replace(config, corpus_path=str(path), vocabulary_path=given)
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    folder = prepare(dataclasses.replace(with_vocabulary, root=str(tmp_path / "d")))
    share = manifest.unknown_share(manifest.read(folder))
    assert 0.1 < share < 0.6
    told = " ".join(warnings)
    assert f"{100 * share:.3g} % of the tokens are unknown" in told
    assert told.endswith("leave out --vocabulary, so that one is trained on this text")
    assert manifest.unknown_share(manifest.read(prepared_dir)) == 0


@pytest.mark.parametrize("text", ["", " \n\n\t\n"])
def test_a_text_without_a_word(config, tmp_path, text):
    path = tmp_path / "blank.txt"
    path.write_text(text)
    with pytest.raises(UserError, match="no document to train on. Give more text"):
        prepare(dataclasses.replace(config, corpus_path=str(path)))


def test_too_little_text_for_two_splits(config, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("only one paragraph " * 50)
    short = dataclasses.replace(config, corpus_path=str(path), vocabulary_pieces=16)
    with pytest.raises(UserError, match="validation got no document. Received: corpus=text"):
        prepare(short)


def test_too_many_pieces_for_the_text(config):
    with pytest.raises(UserError, match="Received: vocabulary_pieces=30000"):
        prepare(dataclasses.replace(config, vocabulary_pieces=30_000))


def test_a_root_that_is_a_file(config, words_file):
    with pytest.raises(UserError, match=f"Received: {words_file}/.*File exists"):
        prepare(dataclasses.replace(config, root=str(words_file)))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


@pytest.mark.parametrize("name", manifest.FILES)
@pytest.mark.parametrize(
    ("damage", "words"),
    [(truncate, "Received: .*{} of "), (flip, "Received: .*{} with "), ("unlink", "is missing")],
)
def test_damage_is_named(folder, name, damage, words):
    (folder / name).unlink() if damage == "unlink" else damage(folder / name)
    with pytest.raises(UserError, match=f"Expected {name}.*{words.format(name)}") as caught:
        manifest.read(folder)
    assert f"Delete {folder} and prepare again." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_vocabulary_is_named(folder, words_file):
    model = (folder / "vocabulary.model").read_bytes()
    foreign = vocabulary.train([words_file.read_text()[:30_000]], 96)
    # The same size, as it may be: only the hash tells.
    (folder / "vocabulary.model").write_bytes(foreign[: len(model)].ljust(len(model), b"\0"))
    with pytest.raises(UserError, match="another vocabulary than the tokens"):
        PretrainingBatches(folder, "train", 4, 64)


def test_a_damaged_folder_is_not_overwritten(config):
    folder = prepare(config)
    flip(folder / "train.tokens")
    damaged = (folder / "train.tokens").read_bytes()
    with pytest.raises(UserError, match="train.tokens with other contents"):
        prepare(config)
    assert (folder / "train.tokens").read_bytes() == damaged


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match=f"Received: data_dir={tmp_path}. Make one with"):
        manifest.read(tmp_path)


def test_the_folder_of_prepared_folders_names_them(tmp_path):
    """`trainers.prepare --data_dir` takes it, and makes them in it."""
    for name in ("docs-1", "docs-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=f"holds 2 of them. Name one, such as {tmp_path}/docs-0"):
        manifest.read(tmp_path)
    (tmp_path / "docs-0" / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"holds 1 of them. Name it: {tmp_path}/docs-1"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(format=99),
        lambda facts: facts.pop("files"),
        lambda facts: facts["files"].pop("train.tokens"),
        lambda facts: facts["vocabulary"].update(size=500),
        lambda facts: facts["vocabulary"].update(sha256="0"),
        lambda facts: facts["splits"]["train"].update(tokens=7),
        lambda facts: facts.update(splits=[]),
    ],
)
def test_a_manifest_that_contradicts_itself(folder, change):
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="Expected a manifest of format"):
        manifest.read(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_manifest_that_is_none(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="Expected a manifest of format"):
        manifest.read(folder)


@pytest.mark.parametrize(("size", "itemsize"), [(512, 2), (65_536, 2), (65_537, 4), (250_100, 4)])
def test_the_type_of_tokens(size, itemsize):
    assert manifest.token_dtype(size) == np.dtype(f"<u{itemsize}")


@pytest.mark.parametrize(
    "setting",
    [
        {"document": "page"},
        {"corpus": "text", "packages": ["numpy"]},
        {"vocabulary_pieces": 3},
        {"num_sentinels": 0},
        {"seed": -1},
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"max_bytes": 0},
        {"max_tokens": -5},
    ],
)
def test_settings_check_themselves(setting):
    name, value = list(setting.items())[-1]
    with pytest.raises(UserError, match=re.escape(f"Received: {name}={value!r}")):
        DataConfig(**setting)
