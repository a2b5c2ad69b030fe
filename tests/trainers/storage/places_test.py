"""A program's flags that name folders of a bucket."""

import errno
import os
import pathlib
import subprocess
import sys

import fsspec
import pytest
from absl import logging

from tests.trainers.storage import support
from trainers.errors import UserError
from trainers.storage import Kind, Places, lease, mirror, places, remote, shown

URL = "memory://bucket/W"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "CONFIRM_SECONDS", 0.0)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)


def put(files, url=URL):
    for name, content in files.items():
        remote.Remote(url).write(name, content)


def test_a_folder_of_this_machine_is_itself():
    with Places() as program:
        assert program.local("runs/W", Kind.RUN) == "runs/W"
        assert program.local("./s3:/W", Kind.RUN) == "./s3:/W"
        assert program.local("hdfs://host/c4", Kind.FILES) == "hdfs://host/c4"


@pytest.mark.parametrize(
    "url",
    [
        "gcs://bucket/W",
        "S3://bucket/W",
        "s3:/bucket/W",
        "gs:bucket",
        "hf://org/model",
        "http://host/W",
    ],
)
@pytest.mark.parametrize("kind", [Kind.RUN, Kind.READ, Kind.NEW])
def test_a_url_of_another_kind_is_no_folder(kind, url):
    with Places() as program, pytest.raises(UserError, match=f"s3://BUCKET.*Received: '{url}'"):
        program.local(url, kind)


@pytest.mark.parametrize(
    "path", ["", "/", "/W", "bucket//W", "bucket/a/../W", "bucket/..", "bucket/./W"]
)
def test_a_url_that_leads_nowhere_is_refused(path):
    with Places() as program, pytest.raises(UserError, match="with a bucket and without . and .."):
        program.local(f"memory://{path}", Kind.RUN)


@pytest.mark.parametrize("name", [".lock", ".name", ".index.json", "W/", "bücher a"])
def test_a_folder_may_have_any_name(name):
    url = f"memory://bucket/{name}"
    for files in ({}, support.FILES):
        with Places() as program:
            folder = pathlib.Path(program.local(url, Kind.RUN))
            assert support.read(folder) == files
            support.write(folder, support.FILES)


def test_a_run_is_brought_and_sent_and_given_free():
    put(support.FILES)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.RUN))
        assert support.read(folder) == support.FILES
        support.write(folder, support.checkpoint(6) | support.HIDDEN)
        print(f"Wrote {folder}/x")
    sent = support.content(URL)
    assert b'"process": ""' in sent.pop(lease.LEASE_FILE)
    assert sent == support.FILES | support.checkpoint(6)


def test_a_copy_that_a_kill_left_between_two_states_is_brought_anew(monkeypatch, tmp_path):
    def run(cache, files):
        monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path / cache))
        with Places() as program:
            folder = pathlib.Path(program.local(URL, Kind.RUN))
            brought = support.read(folder)
            support.write(folder, files)
        return brought

    class Killed(BaseException):
        """The end of the process, with the lease in its hands."""

    def die(there, name, path):
        if name == "small_0/metrics.jsonl":
            raise Killed
        download(there, name, path)

    download = remote.Remote.download
    run("a", support.FILES)
    later = {"run.json": b"{later}", "small_0/metrics.jsonl": b"line\nmore\n"}
    run("b", later)
    monkeypatch.setattr(remote.Remote, "download", die)
    with pytest.raises(Killed):
        run("a", {})
    monkeypatch.setattr(remote.Remote, "download", download)
    assert run("a", {}) == support.FILES | later


def test_what_a_run_finishes_is_sent_while_it_works(monkeypatch):
    monkeypatch.setattr(places, "PUSH_SECONDS", 0.01)
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.RUN))
        support.write(folder, support.checkpoint(3))
        for _ in range(100_000):
            if support.checkpoint(3).keys() <= support.content(URL).keys():
                break
        else:
            pytest.fail("it was not sent")


def test_of_checkpoints_the_newest_is_read_or_all():
    put(support.FILES | support.checkpoint(6))
    for kind, files in (
        (Kind.READ, {name: b for name, b in support.FILES.items() if "step_" not in name}),
        (Kind.KEPT, support.FILES),
    ):
        with Places() as program:
            folder = pathlib.Path(program.local(URL, kind))
            assert support.read(folder) == files | support.checkpoint(6)


def test_an_older_checkpoint_is_brought_by_its_own_folder():
    put(support.FILES | support.checkpoint(6))
    home = "small_0/checkpoints/step_00000003/"
    with Places() as program:
        folder = pathlib.Path(program.local(f"{URL}/{home}", Kind.READ))
        assert {home + name: b for name, b in support.read(folder).items()} == {
            name: b for name, b in support.FILES.items() if name.startswith(home)
        }


def test_paths_are_shown_as_urls(capsys):
    with Places() as program:
        folder = program.local(URL, Kind.ADD)
        print(f"Wrote {folder}/a")
        print(f"Warning: {folder}/b", file=sys.stderr)
        record = logging.logging.LogRecord("", 30, "", 0, "found %s", (f"{folder}/c",), None)
        assert logging.get_absl_handler().filter(record)
        assert record.getMessage() == f"found {URL}/c"
        assert shown(f"no room in {folder}") == f"no room in {URL}"
    assert capsys.readouterr() == (f"Wrote {URL}/a\n", f"Warning: {URL}/b\n")


def test_tokens_are_brought_once_for_all_urls_with_the_same_ones(monkeypatch):
    files = {"manifest.json": b"{}", "train.tokens": b"1234"}
    put(files)
    put(files, "memory://other/tokens")
    with Places() as program:
        folder = program.local(URL, Kind.TOKENS)
    assert support.read(pathlib.Path(folder)) == files
    monkeypatch.setattr(remote.Remote, "download", None)
    with Places() as program:
        assert program.local("memory://other/tokens", Kind.TOKENS) == folder
    put({"manifest.json": b"{1}"})
    with Places() as program, pytest.raises(TypeError):
        program.local(URL, Kind.TOKENS)


def test_no_tokens_are_one_line():
    with Places() as program, pytest.raises(UserError, match="prepared tokens with manifest.json"):
        program.local(URL, Kind.TOKENS)


TEXTS = {"a.txt": b"a", "b.txt": b"b", "c.md": b"c", "more/d.txt": b"d"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "d.txt"]),
        ("[a].txt", ["a.txt"]),
        ("more/d.txt", ["d.txt"]),
        ("x*", []),
    ],
)
def test_files_of_a_pattern_are_brought_and_no_others(pattern, names):
    put(TEXTS)
    with Places() as program:
        local = program.local(f" {URL}/{pattern}, here.txt", Kind.FILES)
        paths = local.partition(",")[0]
        assert local == f"{paths},here.txt"
        home = pattern if pattern[0] in "*[" else pattern.rpartition("/")[2]
        folder = pathlib.Path(paths.removesuffix(home))
        assert {name.rpartition("/")[2] for name in support.read(folder)} == {*names}
        assert shown(paths) == f"{URL}/{pattern}"


def test_a_folder_that_could_be_large_is_read_where_it_is():
    """Such as one of TensorFlow Datasets, which reads buckets itself."""
    put(TEXTS)
    with Places() as program:
        assert program.local(f"{URL}/more", Kind.FILES) == f"{URL}/more"


def test_a_vocabulary_is_a_file_or_that_of_prepared_tokens():
    put({"manifest.json": b"{}", "vocabulary.model": b"v"})
    with Places() as program:
        path = pathlib.Path(program.local(f"{URL}/vocabulary.model", Kind.FILE))
        assert path.read_bytes() == b"v" and [*support.read(path.parent)] == [path.name]
        folder = pathlib.Path(program.local(URL, Kind.FILE))
        assert [*support.read(folder)] == ["manifest.json", "vocabulary.model"]
        with pytest.raises(UserError, match=f"prepared tokens .*{URL}/absent"):
            program.local(f"{URL}/absent", Kind.FILE)


def test_a_new_file_is_sent_at_the_end_and_overwrites_nothing():
    put({"other.json": b"{1}"})
    with Places() as program:
        path = pathlib.Path(program.local(f"{URL}/advice.json", Kind.NEW_FILE))
        assert path.parent.is_dir() and not path.exists()
        path.write_bytes(b"{}")
    assert support.content(URL) == {"other.json": b"{1}", "advice.json": b"{}"}
    with Places() as program, pytest.raises(UserError, match=f"{URL}/advice.json, which exists"):
        program.local(f"{URL}/advice.json", Kind.NEW_FILE)


def test_what_was_removed_there_is_sent_again_and_what_was_removed_here_stays_there():
    def make(files):
        with Places() as program:
            folder = pathlib.Path(program.local(URL, Kind.ADD))
            support.write(folder, files)
        return folder

    folder = make({"a/x": b"x", "b/y": b"y"})
    remote.Remote(URL).remove(["a/x"])
    (folder / "b/y").unlink()
    make({})
    assert support.content(URL) == {"a/x": b"x", "b/y": b"y"}


def test_a_folder_keeps_its_spaces_and_commas_unless_the_flag_is_a_list():
    with Places() as program:
        for is_list in (False, True):
            assert program.local("runs/a, b", Kind.RUN, is_list) == "runs/a, b"
        put({"x": b"x"}, "memory://bucket/a,b")
        folder = program.local("memory://bucket/a,b", Kind.READ)
        assert support.read(pathlib.Path(folder)) == {"x": b"x"}
        both = program.local("memory://bucket/a, memory://bucket/b", Kind.READ, is_list=True)
        assert [shown(path) for path in both.split(",")] == [
            "memory://bucket/a",
            "memory://bucket/b",
        ]


def test_what_is_named_twice_is_read_once():
    put(support.FILES)
    with Places() as program:
        one, other = program.local(f"{URL},{URL}", Kind.READ, is_list=True).split(",")
        assert one == other == program.local(URL, Kind.READ)


def test_an_output_that_holds_something_is_refused():
    put({".hidden": b""})
    with Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.NEW))
        assert not folder.exists()
        support.write(folder, {"config.json": b"{}"})
    assert support.content(URL) == {".hidden": b"", "config.json": b"{}"}
    with Places() as program, pytest.raises(UserError, match=f"Received: {URL}, which holds conf"):
        program.local(URL, Kind.NEW)


def test_two_programs_of_this_machine_have_copies_of_their_own():
    put(support.FILES)
    with Places() as one, Places() as other:
        folders = {program.local(URL, Kind.UPDATE) for program in (one, other)}
    assert len(folders) == 2
    with Places() as one:
        assert one.local(URL, Kind.UPDATE) in folders


def test_storage_that_fails_at_the_end_is_one_line_and_what_was_made_is_sent_later(monkeypatch):
    write = remote.Remote.write

    def fail(there, name, content):
        raise UserError("to write in object storage", there.url, "Check")

    with pytest.raises(UserError, match="to write in object storage"), Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.RUN))
        support.write(folder, support.checkpoint(3))
        monkeypatch.setattr(remote.Remote, "write", fail)
    assert support.content(URL).keys() == {lease.LEASE_FILE}
    monkeypatch.setattr(remote.Remote, "write", write)
    with Places() as program:
        assert program.local(URL, Kind.RUN) == str(folder)
        assert support.read(folder) == support.checkpoint(3)
    assert support.checkpoint(3).items() <= support.content(URL).items()


def test_storage_that_fails_at_the_end_says_where_the_result_lies(monkeypatch):
    def fail(there, name, content):
        raise UserError("to write in object storage", there.url, "Check")

    with pytest.raises(UserError) as caught, Places() as program:
        folder = pathlib.Path(program.local(URL, Kind.NEW))
        support.write(folder, {"config.json": b"{}"})
        monkeypatch.setattr(remote.Remote, "write", fail)
    line = f"Received: {URL}. Check. What is not sent lies in {folder.parent}."
    assert shown(str(caught.value)).endswith(line)


def test_a_disk_that_fails_while_it_is_read_does_not_end_the_sending(monkeypatch):
    monkeypatch.setattr(places, "PUSH_SECONDS", 0.01)
    faults = [OSError(errno.EIO, os.strerror(errno.EIO))] * 3
    push = mirror.Mirror.push

    def fail(one, ours):
        if faults:
            raise faults.pop()
        return push(one, ours)

    monkeypatch.setattr(mirror.Mirror, "push", fail)
    with Places() as program:
        support.write(pathlib.Path(program.local(URL, Kind.RUN)), support.FILES)
        for _ in range(100_000):
            if support.FILES.keys() <= support.content(URL).keys():
                break
        else:
            pytest.fail("it was not sent")


PROGRAM = """
import dataclasses, pathlib, sys
from trainers import programs, stopping
from trainers.errors import UserError
from trainers.programs import option
from trainers.storage import Kind, lease
lease.CONFIRM_SECONDS = 0.0

@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = option("", "Folder.", place=Kind.RUN)
    say: str = option("", "What to write, or to fail with.")

@stopping.handled()
def main(config):
    folder = pathlib.Path(config.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    print("found", *sorted(path.name for path in folder.iterdir()))
    (folder / config.say).write_text("x")
    if config.say == "bad":
        raise UserError("a word", str(folder / "bad"), "Say another one")
    print(f"Wrote {folder / config.say}")

programs.run(main, Config)
"""


def test_a_program_needs_to_know_nothing_of_it(tmp_path):
    url = f"file://{tmp_path}/bucket/W"

    def start(*flags):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, f"--workdir={url}", *flags],
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = start("--say=a")
    assert (done.returncode, done.stdout) == (0, f"found\nWrote {url}/a\n"), done.stderr
    done = start("--say=bad")
    assert (done.returncode, done.stdout) == (2, "found a\n")
    assert done.stderr.endswith(f"error: Expected a word. Received: {url}/bad. Say another one.\n")
    assert sorted(os.listdir(tmp_path / "bucket/W")) == [lease.LEASE_FILE, "a", "bad"]
