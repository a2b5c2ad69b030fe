"""Several hosts, a process on each: how they find each other, agree on what they do, and end.

What the hosts of a run have to have in common is compared before anything is written: one host with
another flag, another version or another folder would wait for the others for ever, or train
something else than they do.
"""

import contextlib
import importlib.util
import json
import logging
import os
import re
import threading
import traceback
from collections.abc import Iterator, Mapping

import keras

from trainers import process, programs
from trainers.engines.base import Engine
from trainers.engines.devices import Devices
from trainers.errors import STOPPED, Stopped, UserError
from trainers.storage import is_copy
from trainers.versions import code_version, installed_versions

# All hosts have to come within this time: a scheduler may start some of them later than others.
JOIN_SECONDS = 300
# A host that is not heard of for so long is lost; the others end within twice the time.
HEARTBEAT_SECONDS = 25
# What JAX can find by itself: its names of schedulers that say how many processes there are.
_SCHEDULERS = ("slurm", "ompi", "gcetpu", "gketpu")
# Variables of a process that one of those that are no TPU's has started, and of how many it has.
_COUNTS = {"SLURM_STEP_NODELIST": "SLURM_NTASKS", "OMPI_MCA_orte_hnp_uri": "OMPI_COMM_WORLD_SIZE"}
# Flags whose values may differ between the hosts of a run.
_OF_A_HOST = ("coordinator", "process_id", "progress")
# Hosts that end for one reason end within this time.
_TOGETHER_SECONDS = 10
_A_DAY = 86_400
_LOST = re.compile(r"gloo|nccl|coordination service|collective ops is aborted", re.IGNORECASE)
_AGAIN = "give the same command again on all hosts to resume"
_NOT_ALL_LINE = f"stopped: not all hosts came, or reached the first one; {_AGAIN}"
_LOST_LINE = f"stopped: another host ended, or cannot be reached any more; {_AGAIN}"


@contextlib.contextmanager
def joined(devices: Devices, folder: str) -> Iterator[None]:
    """Context in which JAX has the devices of all hosts, where there are several.

    What ends one host ends all: where a host is lost, the others end with a line and the exit code
    of a run that can be resumed. On TensorFlow `TF_CONFIG` names the hosts, and the strategy joins
    them.

    Args:
        devices: has the flags that name the hosts; without them JAX asks the scheduler, if any.
        folder: that the run is written to.
    """
    is_joining = keras.backend.backend() == "jax" and (devices.coordinator or _is_scheduled())
    if is_joining:
        _check_is_shared(folder)
        _join(devices)
    try:
        yield
        if is_joining:
            _leave()
    except BaseException as error:
        if _LOST.search(str(error)) and not isinstance(error, UserError | Stopped):
            # Whatever asks the other hosts at the end would wait for them.
            process.end(STOPPED, f"{_first_line(error)}\n{_LOST_LINE}\n")
        if is_joining:
            _leave_after(error)
        raise


def _is_scheduled() -> bool:
    """True where a scheduler has started several processes; asks nobody outside of Cloud TPU."""
    if not (_COUNTS.keys() & os.environ.keys() or importlib.util.find_spec("libtpu")):
        return False
    # `initialize` would also join a single process, or raise, and JAX has no public question.
    from jax._src.clusters import ClusterEnv

    kinds = [kind for kind in ClusterEnv._cluster_types if kind.name in _SCHEDULERS]
    return any(kind.get_process_count() > 1 for kind in kinds if kind.is_env_present())


def _check_is_shared(folder: str) -> None:
    """Refuses a copy of a bucket: the other hosts get none, and this one would wait for them."""
    if is_copy(folder):
        do = "Give --workdir=FOLDER on a file system that they share"
        raise UserError("a folder that all hosts see", f"workdir={folder!r}", do)


def check_alone(program: str) -> None:
    """Raises a `UserError` where a scheduler has started a program of one host several times.

    All of the processes would do the same work, and write over one another.
    """
    for mark, count in _COUNTS.items():
        number = os.environ.get(count, "")
        if mark in os.environ and number.isdecimal() and int(number) > 1:
            raise UserError(
                f"one process for {program}, which works from disk to disk on one host",
                f"{count}={number}",
                "Start it once, with srun --ntasks=1 or mpirun -n 1; if each process has a command "
                f"of its own, set {count}=1 before it",
            )


def _join(devices: Devices) -> None:
    import jax

    # It reports, as information, each step of what follows.
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    process.end_at_abort(_NOT_ALL_LINE)
    # It would take SIGTERM away from `trainers.stopping`.
    jax.config.update("jax_enable_preemption_service", False)
    place = (devices.coordinator, devices.num_processes, devices.process_id)
    if devices.coordinator:
        hosts = f"all {devices.num_processes} hosts at {devices.coordinator}"
        print(f"Host {devices.process_id} waits up to {JOIN_SECONDS} s for {hosts}.", flush=True)
    seconds = {
        "initialization_timeout": JOIN_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        # At the end one host writes the report, and the others wait for it.
        "shutdown_timeout_seconds": _A_DAY,
    }
    try:
        jax.distributed.initialize(*place, **seconds)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            "hosts that JAX can join",
            f"coordinator={place[0]!r}, process_id={place[2]!r}: {_first_line(error)}",
            "Give all hosts the address of number 0, with a port that is free there",
        ) from error
    process.end_at_abort(_LOST_LINE)


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """Context in which TensorFlow waits for the other hosts, which it does without end.

    Where they do not come, the process ends as where one is lost.
    """
    timer = threading.Timer(JOIN_SECONDS, process.end, (STOPPED, f"{_NOT_ALL_LINE}\n"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave() -> None:
    import jax

    jax.distributed.shutdown()


def _try_to_leave() -> None:
    with contextlib.suppress(RuntimeError):
        _leave()


def _leave_after(error: BaseException) -> None:
    """Waits for the others, which may end for the same reason; if they do not, ends at once."""
    leaving = threading.Thread(target=_try_to_leave, daemon=True)
    leaving.start()
    leaving.join(_TOGETHER_SECONDS)
    if leaving.is_alive():
        code = programs.told(error)
        if code is None:
            traceback.print_exception(error)
        process.end(1 if code is None else code)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def check_same(engine: Engine, facts: Mapping[str, object], expected: str, do: str) -> None:
    """Raises a `UserError`, on every host, where a fact is not the same on all of them.

    Args:
        engine: asks the hosts; each has to call this.
        facts: what is compared, by name.
        expected: what has to be the same, for the message.
        do: what to do where it is not.
    """
    texts = {name: json.dumps(value, default=str) for name, value in facts.items()}
    first, *others = map(json.loads, engine.gather(json.dumps(texts)))
    differing = [
        f"{name}={first.get(name)} on host 0, {other.get(name)} on host {host}"
        for host, other in enumerate(others, 1)
        for name in dict.fromkeys((*first, *other))
        if first.get(name) != other.get(name)
    ]
    if differing:
        raise UserError(expected, "; ".join(differing), do)


def check_command(engine: Engine, config: object) -> None:
    """Compares the flags of a program on all hosts, and the versions of what it runs.

    Folders may have another name on each host; `trainers.runs.shared` compares what they are.
    """
    flags = programs.flag_values(config)
    flags = {f"--{name}": flags[name] for name in flags if name not in _OF_A_HOST}
    do = "Give all hosts the same command"
    check_same(engine, flags, "the same flags on all hosts", do)
    versions = installed_versions() | {"code": code_version()}
    do = "Install the same versions, and use the same sources, on all hosts"
    check_same(engine, versions, "the same versions on all hosts", do)
