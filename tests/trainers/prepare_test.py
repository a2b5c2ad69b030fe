"""The binary: flags to a folder, and every mistake one line with exit code 2."""

import os
import subprocess
import sys

import pytest

from trainers import prepare, programs
from trainers.data import manifest
from trainers.errors import UserError

SMALL = ["--corpus=text", "--vocabulary_pieces=96", "--num_sentinels=32"]


def call(*args):
    """Runs `main` in this process with the flags of `args`."""
    prepare.main(programs.parse(prepare.DataConfig, args))


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "trainers.prepare", *args],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},  # the process then starts without tensorflow
    )


def test_prepare_and_find_again(words_file, tmp_path):
    args = [*SMALL, f"--corpus_path={words_file}", f"--data_dir={tmp_path / 'data'}"]
    first = run(*args)
    assert first.returncode == 0, first.stderr
    folder = first.stdout.strip()
    assert manifest.read(folder)["vocabulary"]["size"] == 128
    assert "wrote" in first.stderr
    again = run(*args)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert f"found {folder}" in again.stderr


def test_all_flags_reach_the_settings(monkeypatch):
    asked = []
    monkeypatch.setattr(prepare, "prepare", asked.append)
    common = {
        "vocabulary_pieces": 96,
        "num_sentinels": 32,
        "seed": 5,
        "validation_fraction": 0.2,
        "max_bytes": 1000,
        "max_tokens": 99,
    }
    flags_of_all = [f"--{name}={value}" for name, value in common.items()] + ["--data_dir=d"]
    call("--corpus=text", "--corpus_path=a.txt", "--document=line", *flags_of_all)
    call("--packages=numpy,python", "--vocabulary=v.model", *flags_of_all)
    text = {"corpus": "text", "corpus_path": "a.txt", "document": "line"}
    docs = {"packages": ("numpy", "python"), "vocabulary_path": "v.model"}
    assert asked == [prepare.DataConfig(root="d", **common, **corpus) for corpus in (text, docs)]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--corpus=wiki"], "docs, text, c4. Received: corpus='wiki'"),
        (["--corpus=text"], "Received: corpus_path=None"),
        (["--corpus=text", "--corpus_path=none/*.txt"], r"corpus_path=none/\*\.txt, but no file"),
        (["--corpus=docs", "--packages=no-such-package"], "packages=no-such-package"),
        (["--vocabulary=none.model"], "Received: vocabulary=none.model"),
        (["--vocabulary_pieces=2"], "Received: vocabulary_pieces=2"),
        (["--num_sentinels=-1"], "Received: num_sentinels=-1"),
        (["--validation_fraction=1.5"], "Received: validation_fraction=1.5"),
        (["--document=word"], "Received: document='word'"),
        (["--max_bytes=-1"], "Received: max_bytes=-1"),
    ],
)
def test_mistakes(args, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        call(f"--data_dir={tmp_path}", *args)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_a_vocabulary_that_is_none_is_one_line(words_file, tmp_path):
    args = ["--corpus=text", f"--corpus_path={words_file}", f"--data_dir={tmp_path / 'data'}"]
    done = run(*args, f"--vocabulary={words_file}")
    assert done.returncode == 2
    assert done.stderr == (
        "error: Expected a SentencePiece model (a .model file as spm_train writes it). "
        f"Received: vocabulary={words_file}, which is none.\n"
    )
    assert not (tmp_path / "data").exists()


def test_a_text_that_is_not_utf_8_is_one_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"plain line\n\nGr\xfcn\n")
    done = run(*SMALL, f"--corpus_path={path}", f"--data_dir={tmp_path / 'data'}")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == [
        f"error: Expected UTF-8 text. Received: corpus_path={path} with the byte 0xfc at offset "
        "14. Convert the file (iconv -t utf-8) or leave it out."
    ]
    assert "Traceback" not in done.stderr
