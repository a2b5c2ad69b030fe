"""Hosts that differ are refused, each difference named; how a process finds the others."""

import dataclasses
import threading

import keras
import pytest

from tests.trainers import nano
from tests.trainers.engines.hosts_support import on_hosts
from trainers import convert, fuse, pretrain
from trainers.engines import hosts
from trainers.engines.devices import Devices
from trainers.errors import UserError


def config_of(*flags):
    return nano.config_of(pretrain, "--plan=baseline", "--workdir=w", *flags)


def messages(ended):
    assert all(isinstance(error, UserError) for error in ended), ended
    return {str(error) for error in ended}


def test_hosts_with_the_same_command_agree():
    places = [("--process_id=0", "--noprogress"), ("--process_id=1", "--workdir=elsewhere")]
    several = ("--coordinator=host0:2222", "--num_processes=2", "--steps=S:3,M:4")
    configs = [config_of(*several, *place) for place in places]
    assert on_hosts(lambda host: hosts.check_command(host, configs[host.host])) == [None, None]


@pytest.mark.parametrize(
    ("flag", "received"),
    [
        ("--batch_size=8", "--batch_size=32 on host 0, 8 on host 1"),
        ("--steps=S:3", '--steps=null on host 0, {"S": 3} on host 1'),
        ("--mesh_shape=batch:2", '--mesh_shape=null on host 0, "batch:2" on host 1'),
    ],
)
def test_another_flag_is_named_on_every_host(flag, received):
    configs = [config_of(), config_of(flag)]
    (message,) = messages(on_hosts(lambda host: hosts.check_command(host, configs[host.host])))
    expected = (
        "Expected the same flags on all hosts. Received: {}. Give all hosts the same command."
    )
    assert message == expected.format(received)


def test_other_code_is_refused(monkeypatch):
    versions = iter(("aaaa", "bbbb"))
    monkeypatch.setattr(hosts, "code_version", lambda: next(versions))
    config = config_of()
    (message,) = messages(on_hosts(lambda host: hosts.check_command(host, config)))
    assert "code=" in message and '"aaaa" on host' in message and '"bbbb" on host' in message
    assert "use the same sources" in message


def test_every_difference_of_three_hosts_is_named():
    steps = [{"newest step of small_0": step} for step in (4, 2, None)]
    ended = on_hosts(lambda host: hosts.check_same(host, steps[host.host], "one", "Do"), 3)
    (message,) = messages(ended)
    assert message == (
        "Expected one. Received: newest step of small_0=4 on host 0, 2 on host 1; "
        "newest step of small_0=4 on host 0, null on host 2. Do."
    )


@pytest.mark.parametrize(
    ("flags", "do"),
    [
        ({"coordinator": "host0:2222"}, "Add --num_processes, --process_id"),
        ({"num_processes": 2, "process_id": 0}, "Add --coordinator"),
        *(
            ({"coordinator": place, "num_processes": 2, "process_id": 0}, "the address of number 0")
            for place in ("host0", ":2222", "host0:0", "host0:65536", "::1:2222", "http://h:2222")
        ),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": 2}, "below --num_processes"),
        ({"coordinator": "h:1", "num_processes": 0, "process_id": 0}, "num_processes=0"),
    ],
)
def test_flags_that_name_no_place_are_refused(flags, do):
    with pytest.raises(UserError, match=do):
        Devices(**flags)


@pytest.mark.parametrize("place", ["10.0.0.1:2222", "host-0.cluster.local:65535", "[::1]:1"])
def test_addresses_of_hosts(place):
    assert Devices(coordinator=place, num_processes=2, process_id=1).coordinator == place


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="what TensorFlow cannot do")
def test_tensorflow_has_another_way_to_name_hosts():
    devices = Devices(coordinator="h:1", num_processes=2, process_id=0)
    with pytest.raises(UserError, match="Set KERAS_BACKEND=jax, or TF_CONFIG"):
        devices.check_backend()


def test_tensorflow_does_not_wait_without_end_for_hosts(monkeypatch):
    ended, ends = threading.Event(), []
    monkeypatch.setattr(hosts, "JOIN_SECONDS", 0.0)
    monkeypatch.setattr(hosts.process, "end", lambda *how: (ends.append(how), ended.set()))
    with hosts.awaited():
        assert ended.wait(30)
    ((code, line),) = ends
    assert code == 75 and line.startswith("stopped: not all hosts came")


SLURM = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="TensorFlow asks no scheduler for hosts"
)
@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({}, False),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        (SLURM | {"SLURM_NTASKS": "2"}, True),
        # The script of a job, before srun has started its tasks.
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "2"}, False),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, False),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "4"}, True),
    ],
)
def test_a_scheduler_that_started_several_processes_is_asked(monkeypatch, environment, joins):
    import jax

    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *place, **how: calls.append(place))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: calls.append("left"))
    monkeypatch.setattr(hosts.process, "end_at_abort", lambda line: None)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    for name in (*SLURM, *OPEN_MPI, "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with hosts.joined(Devices(), "W"):
        pass
    assert calls == ([(None, None, None), "left"] if joins else [])


@pytest.mark.parametrize(
    ("environment", "received"),
    [
        (SLURM | {"SLURM_NTASKS": "8"}, "SLURM_NTASKS=8"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "2"}, None),
    ],
)
@pytest.mark.parametrize("program", [fuse, convert])
def test_a_program_of_one_host_is_refused_where_several_are_started(
    monkeypatch, tmp_path, program, environment, received
):
    for name in (*SLURM, *OPEN_MPI, "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    source = "--sources=missing,missing" if program is fuse else "--source=missing"
    with pytest.raises(UserError) as error:
        program.main(nano.config_of(program, source, f"--output={tmp_path / 'new'}"))
    if received:
        assert f"one process for {program.__name__}" in str(error.value)
        assert f"Received: {received}. Start it once" in str(error.value)
    else:
        assert "missing" in str(error.value)


def test_what_ends_a_run_on_one_host_is_raised():
    with pytest.raises(UserError, match="^wrong$"), hosts.joined(Devices(), "W"):
        raise UserError("wrong")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow's strategy joins them")
def test_hosts_do_not_wait_for_others_where_each_has_a_copy(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_FUSION_CACHE", str(tmp_path))
    devices = Devices(coordinator="127.0.0.1:1", num_processes=2, process_id=0)
    with pytest.raises(UserError, match="a folder that all hosts see"):  # noqa: SIM117
        with hosts.joined(devices, str(tmp_path / "0123/0/W")):
            pytest.fail("it joined")


def test_settings_of_hosts_are_no_settings_of_a_run():
    config = config_of()
    moved = dataclasses.replace(
        config, devices=Devices("auto", None, None, None, 1, False, "h:1", 2, 1)
    )
    assert moved.identity() == config.identity()
