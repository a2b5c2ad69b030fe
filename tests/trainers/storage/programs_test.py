"""Programs from the command line on real servers of object storage, which fail or are slow."""

import contextlib
import os
import pathlib
import shutil
import threading

import pytest

from tests.faults import compare
from tests.faults.cases import PRETRAIN
from tests.faults.zygote import Zygote
from tests.glue import languages
from tests.trainers import nano
from tests.trainers.storage import servers, support
from trainers.runs.workdir import LOCK_FOLDER
from trainers.storage.lease import LEASE_FILE, Lease
from trainers.storage.remote import Remote

pytestmark = pytest.mark.slow  # places_test.py and remote_test.py show the same without programs

BUCKETS = ("s3", "gs")
_VOCABULARY = (f"--vocabulary_pieces={nano.PIECES}", f"--num_sentinels={nano.SENTINELS}")
_FINETUNE = ("--synthetic", "--tasks=synthetic_grammar", "--noprogress", "--strategy=one_device")
_FINETUNE += ("--batch_size=4", "--input_length=32", "--target_length=10", "--steps=4")
_FINETUNE += ("--checkpoint_every=2", "--steps_per_call=1", "--eval_batches=1")


class Machines:
    """Runs commands, each as on a machine of its own: with an empty cache.

    Args:
        zygote: starts them.
        folder: for their caches and what they print.
        environment: variables that they need to reach a server.
    """

    def __init__(self, zygote, folder, environment=None):
        self._zygote, self._folder, self._environment = zygote, folder, environment or {}

    def end(self, *command, machine=None, **variables):
        """Runs a command and returns its end.

        Args:
            *command: module and flags.
            machine: name of a machine that is used again.
            **variables: of the environment.
        """
        folder = self._folder / (machine or f"machine {len(list(self._folder.iterdir()))}")
        folder.mkdir(exist_ok=True)
        return self._zygote.run(folder, command, environment=self._environment | variables)

    def run(self, *command, **where):
        """Runs a command that has to succeed."""
        ended = self.end(*command, **where)
        assert ended.code == 0, ended.output


@pytest.fixture(scope="module")
def zygote():
    with Zygote(eager=True) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    languages.write_text(path)
    return path


@pytest.fixture(scope="module")
def tokens(zygote, text):
    Machines(zygote, text.parent).run(*prepare(text, text.parent / "tokens"))
    (tokens,) = (text.parent / "tokens").glob("text-*")
    return tokens


@pytest.fixture
def server(request, zygote, tmp_path_factory, monkeypatch):
    """Machines that reach a server, its faults, and the URL of a bucket."""
    with getattr(servers, request.param)() as (faults, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        url = servers.new_bucket(request.param, environment)
        yield Machines(zygote, tmp_path_factory.mktemp("machines"), environment), faults, url


def on(*kinds):
    return pytest.mark.parametrize("server", kinds, indirect=True)


def prepare(text, folder):
    corpus = ("--corpus=text", f"--corpus_path={text}")
    return ("trainers.prepare", *corpus, *_VOCABULARY, f"--data_dir={folder}")


def pretrain(tokens, workdir, *flags):
    # Of a flag that is given twice the last one counts.
    return (*PRETRAIN, f"--data_dir={tokens}", f"--workdir={workdir}", *flags)


def baseline(tokens, workdir):
    return pretrain(tokens, workdir, "--plan=baseline", "--steps=6")


def content(url, folder):
    """Content that two runs share, of a folder of a bucket; `folder` is for a copy of it."""
    files = support.content(url)
    files.pop(LEASE_FILE, None)
    support.write(folder, files)
    return compare.content(folder)


@pytest.fixture(scope="module")
def local_run(zygote, tokens, tmp_path_factory):
    """Folder of a run on this machine."""
    folder = tmp_path_factory.mktemp("local")
    Machines(zygote, folder).run(*baseline(tokens, folder / "W"))
    return folder / "W"


def assert_same(there, here, url, folder):
    """Compares what programs wrote to a URL and to a folder, which their commands name."""
    there = {name: there[name].replace(url.encode(), str(folder).encode()) for name in there}
    differing = compare.lost(here, there)
    # Reports say how long it took.
    assert here and not {name for name in differing if not name.startswith("report/")}


def assert_same_run(url, local_run, folder):
    there = content(f"{url}/W", folder)
    assert_same(there, compare.content(local_run), f"{url}/W", local_run)
    assert "baseline/checkpoints/step_00000006/model.safetensors" in there


def assert_one_line(ended, text):
    assert ended.code == 2, ended.output
    (line,) = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert text in line and ended.output.endswith(f"{line}\n")
    assert "Traceback" not in ended.output


def chain(machines, text, place):
    """Runs all programs, each on what the others wrote to one place."""
    machines.run(*prepare(text, f"{place}/tokens"))
    files = support.content(place) if "://" in place else compare.content(pathlib.Path(place))
    (name,) = {part for file in files for part in file.split("/") if part.startswith("text-")}
    tokens = f"{place}/tokens/{name}"
    machines.run(*pretrain(tokens, f"{place}/W", "--plan=self_fusion"))
    machines.run("trainers.report", f"--workdir={place}/W")
    source = f"{place}/W/small_0"
    fused = (f"--sources={source},{source}", f"--output={place}/fused", "--noise=0.1")
    machines.run("trainers.fuse", *fused, f"--check_data_dir={tokens}")
    machines.run("trainers.convert", f"--source={source}", f"--output={place}/t5")
    checkpoint = (f"--checkpoint={place}/fused", f"--vocabulary={tokens}")
    machines.run("glue.finetune", *checkpoint, f"--workdir={place}/glue", *_FINETUNE)
    machines.run("glue.report", f"--workdir={place}/glue")


@pytest.fixture(scope="module")
def local_chain(zygote, text, tmp_path_factory):
    """Folder of what all programs wrote on this machine."""
    here = tmp_path_factory.mktemp("here")
    chain(Machines(zygote, tmp_path_factory.mktemp("machine")), text, str(here))
    return here


@on(*BUCKETS)
def test_all_programs_do_in_a_bucket_what_they_do_on_a_disk(server, text, local_chain, tmp_path):
    machines, _, url = server
    chain(machines, text, url)
    for name in ("tokens", "W", "fused", "t5", "glue"):
        there = content(f"{url}/{name}", tmp_path / name)
        assert_same(there, compare.content(local_chain / name), url, local_chain)


def readers(machines, tokens, place):
    """Runs programs on a run whose newest checkpoint is damaged; returns their warnings.

    The run has no record of its end, and resumes last.
    """
    source = f"{place}/W/baseline"
    model = (f"--checkpoint={source}", f"--vocabulary={tokens}")
    ends = [
        machines.end("trainers.report", f"--workdir={place}/W"),
        machines.end("trainers.fuse", f"--sources={source},{source}", f"--output={place}/fused"),
        machines.end("trainers.convert", f"--source={source}", f"--output={place}/t5"),
        machines.end("glue.finetune", *model, f"--workdir={place}/glue", *_FINETUNE),
        machines.end(*baseline(tokens, f"{place}/W")),
    ]
    assert [ended.code for ended in ends] == [0] * len(ends), ends
    lines = [line for ended in ends for line in ended.output.splitlines()]
    return [line.replace(place, "P") for line in lines if line.endswith("It is passed over.")]


def damage_newest(run, file, change, folder):
    """A copy of a run whose newest checkpoint is damaged and whose end is not recorded."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(LOCK_FOLDER, "record.json"))
    change(max((folder / "baseline/checkpoints").iterdir()) / file)
    return folder


@pytest.mark.parametrize(
    ("server", "file", "change"),
    [
        ("s3", "model.safetensors", lambda path: os.truncate(path, 50)),
        (
            "gs",
            "training.safetensors",
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"~"),
        ),
        ("s3", "COMMITTED", pathlib.Path.unlink),
    ],
    ids=["cut", "changed", "unmarked"],
    indirect=["server"],
)
def test_a_damaged_newest_checkpoint_is_passed_over_as_on_a_disk(
    server, tokens, local_run, tmp_path, file, change
):
    machines, _, url = server
    run = damage_newest(local_run, file, change, tmp_path / "disk/W")
    support.send(f"{url}/W", {name: run / name for name in support.read(run)})
    warned = readers(machines, tokens, url)
    assert warned == readers(machines, tokens, str(tmp_path / "disk"))
    assert len(warned) == 4 and all("step_00000006" in line for line in warned)
    for name in ("W", "fused", "t5", "glue"):
        there = content(f"{url}/{name}", tmp_path / name)
        assert_same(there, compare.content(tmp_path / "disk" / name), url, tmp_path / "disk")


@on(*BUCKETS)
def test_a_run_through_a_server_that_fails_again_and_again(server, tokens, local_run, tmp_path):
    machines, faults, url = server
    # Of a run that was killed while it sent.
    Remote(url).write("W/baseline/checkpoints/step_00000005/model.safetensors", b"half")
    faults.fails_every = 3
    machines.run(*baseline(tokens, f"{url}/W"))
    faults.fails_every = 0
    assert_same_run(url, local_run, tmp_path / "there")


@on("gs")
def test_a_run_through_a_server_that_is_slow(server, tokens, local_run, tmp_path):
    machines, faults, url = server
    faults.seconds = 0.2
    machines.run(*baseline(tokens, f"{url}/W"))
    faults.seconds = 0.0
    assert_same_run(url, local_run, tmp_path / "there")


@on("s3")  # gcsfs takes minutes for its tries
def test_a_server_that_goes_away_while_a_run_trains(server, tokens, local_run, tmp_path):
    """It ends with a line, and the same command on the same machine sends what it has saved."""
    machines, faults, url = server
    command = baseline(tokens, f"{url}/W")
    faults.works = 12
    ended = machines.end(*command, machine="one")
    assert_one_line(ended, f"in object storage. Received: {url}/W")
    faults.works = -1
    machines.run(*command, machine="one")
    assert_same_run(url, local_run, tmp_path / "there")


@on(*BUCKETS)
def test_a_server_that_stands_still_is_one_line(server, tokens):
    machines, faults, url = server
    faults.stands, faults.reads_stand = threading.Event(), True
    try:
        ended = machines.end(*baseline(tokens, f"{url}/W"))
    finally:
        faults.stands.set()
    assert_one_line(ended, f"in object storage. Received: {url}/W")


@contextlib.contextmanager
def writing(url):
    """Context in which another machine writes a folder."""
    right, ended = Lease(Remote(url), "another"), threading.Event()

    def work():
        while not ended.wait(0.05):
            right.renew()

    right.acquire()
    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


@on("s3")
@pytest.mark.parametrize("program", ["trainers.pretrain", "glue.finetune"])
def test_a_second_writer_is_one_line(server, tokens, local_run, program):
    machines, _, url = server
    command = baseline(tokens, f"{url}/W")
    if program == "glue.finetune":
        checkpoint = (f"--checkpoint={local_run}/baseline", f"--vocabulary={tokens}")
        command = (program, *checkpoint, f"--workdir={url}/W", *_FINETUNE)
    with writing(f"{url}/W"):
        ended = machines.end(*command)
    assert_one_line(ended, f"Expected {url}/W to be written by one process at a time")


@on(*BUCKETS)
@pytest.mark.parametrize("flag", ["workdir", "vocabulary"])
def test_a_bucket_that_is_not_there_is_one_line(server, tokens, flag):
    machines, _, url = server
    absent = f"{url.partition('://')[0]}://absent-bucket/folder"
    ended = machines.end(*pretrain(tokens, "W", "--plan=baseline", f"--{flag}={absent}"))
    assert_one_line(ended, absent)


@on("s3")
def test_no_credentials_are_one_line(server, tokens):
    machines, _, url = server
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    ended = machines.end(*baseline(tokens, f"{url}/W"), **none)
    assert_one_line(ended, f"{url}/W/.writer (NoCredentialsError: Unable to locate credentials)")


@on("gs")
def test_a_server_that_nobody_has_started_is_one_line(server, tokens):
    machines, _, url = server
    other = url.replace("gs://", "s3://")
    # Nobody listens on the port 1.
    ended = machines.end(*baseline(tokens, f"{other}/W"), AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert_one_line(ended, f"Received: {other}/W")
