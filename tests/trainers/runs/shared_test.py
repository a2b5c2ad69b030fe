"""The folder of a run on several hosts is one folder, or the run is refused."""

import os

import numpy as np

from tests.trainers.engines.hosts_support import on_hosts
from trainers import checkpoints
from trainers.errors import UserError
from trainers.runs.locks import RUN_LOCK
from trainers.runs.shared import check_folder


def save(workdir, stage, step):
    state = {"model/a": np.zeros(2)}
    checkpoints.save(workdir / stage / "checkpoints", step, state, {})


def test_hosts_meet_in_one_folder_and_leave_only_its_lock_there(tmp_path):
    link = tmp_path / "link"
    workdir = tmp_path / "w"
    save(workdir, "small_0", 4)
    (workdir / ".locks").mkdir()
    (workdir / ".locks/hosts.of_a_killed_chief").touch()
    link.symlink_to(workdir)
    folders = [workdir, link, workdir]
    assert on_hosts(lambda host: check_folder(host, folders[host.host]), 3) == [None] * 3
    assert os.listdir(workdir / ".locks") == [RUN_LOCK]


def test_two_folders_are_refused_with_what_is_in_them(tmp_path):
    for name, steps in {"a": (2, 4), "b": (2,)}.items():
        for step in steps:
            save(tmp_path / name, "small_0", step)
    first, second = on_hosts(lambda host: check_folder(host, tmp_path / "ab"[host.host]))
    assert isinstance(first, UserError) and str(first) == str(second)
    assert str(first) == (
        "Expected one --workdir that all hosts see. Received: "
        f"on host 0 '{tmp_path}/a' with small_0 at step 4; "
        f"on host 1 '{tmp_path}/b' with small_0 at step 2. "
        "Put it on a file system that they share."
    )


def test_an_empty_folder_of_each_host_is_refused(tmp_path):
    ended = on_hosts(lambda host: check_folder(host, tmp_path / f"host{host.host}" / "w"))
    assert all("with no checkpoint" in str(error) for error in ended)
    assert not (tmp_path / "host1").exists()
