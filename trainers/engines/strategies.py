"""Strategies of `tf.distribute` by name: the devices of a run, or what is missing for them."""

import functools
import json
import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from trainers.engines import hosts
from trainers.engines.base import check_backend
from trainers.engines.devices import EngineFactory
from trainers.engines.tensorflow import TensorFlowEngine
from trainers.errors import UserError

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


def engines(name: str, tpu: str | None = None) -> EngineFactory:
    """Returns the factory of a run's engines; arguments as for `make_strategy`.

    All of them share one strategy object: a second one on the same devices would number its
    all-reduces from the start again, and TensorFlow would take them for those of the first.
    """
    check_backend("tensorflow", "a tf.distribute strategy")
    # Each stage has a model, hence step functions of its own: nothing to warn of.
    tf.get_logger().setLevel("ERROR")
    return functools.partial(TensorFlowEngine, make_strategy(name, tpu))


def make_strategy(name: str, tpu: str | None = None) -> tf.distribute.Strategy:
    """Makes a strategy; call it before anything else uses TensorFlow in this process.

    Args:
        name: "one_device"; "mirrored", all GPUs of this host; "multi_worker", the hosts of
            TF_CONFIG; "tpu"; or "auto": a TPU where one is named, the hosts of TF_CONFIG where it
            has several, all GPUs where there are several, else one device.
        tpu: name of a TPU, or "local" for that of this host; None takes TPU_NAME.

    Raises:
        UserError: no TPU is found, or TF_CONFIG cannot be used.
    """
    tpu = tpu or os.environ.get("TPU_NAME")
    return MAKERS[_choose(tpu) if name == "auto" else name](tpu)


def _choose(tpu: str | None) -> str:
    if tpu:
        return "tpu"
    if os.environ.get("TF_CONFIG"):
        cluster = read_tf_config(os.environ)["cluster"]
        if sum(map(len, cluster.values())) > 1:
            return "multi_worker"
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return "mirrored"
    return "one_device"


def _multi_worker(tpu):
    read_tf_config(os.environ)
    try:
        with hosts.awaited():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            "a cluster that this process can join",
            f"TF_CONFIG={os.environ['TF_CONFIG']}: {_first_line(error)}",
            "Start one process for each of its tasks; its address must be free on that host",
        ) from error


def _tpu(tpu):
    if not tpu:
        do = "Give --tpu=local on a TPU VM, or --tpu=NAME"
        raise UserError("the TPU of --strategy=tpu", "tpu=None, and TPU_NAME is not set", do)
    try:
        # Finds its hosts, connects to them, and starts its cores.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu)
    except Exception as error:  # whatever a missing library, host, network or permission raises
        raise UserError(
            "a TPU that this process can use",
            f"tpu={tpu!r}: {type(error).__name__}: {_first_line(error)}",
            "Check the name, that no other process holds the TPU, and that tensorflow-tpu is "
            "installed here in place of tensorflow",
        ) from error
    return tf.distribute.TPUStrategy(resolver)


# Name of a strategy to the function of the TPU's name that makes it.
MAKERS: dict[str, Callable] = {
    "one_device": lambda tpu: tf.distribute.get_strategy(),
    "mirrored": lambda tpu: tf.distribute.MirroredStrategy(),
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip()


def read_tf_config(environment: Mapping[str, str]) -> dict:
    """Reads TF_CONFIG, which names the hosts of a run and says which of them this one is.

    TensorFlow itself finds some of its faults late, some never: a task that is not in the cluster
    lets every host wait for ever.

    Returns:
        {"cluster": {job: [address, …]}, "task": {"type": job, "index": number}}.
    """
    text = environment.get("TF_CONFIG") or ""
    fault, config = "it is not set", None
    if text:
        try:
            config = json.loads(text)
            fault = _fault(config)
        except json.JSONDecodeError as error:
            fault = f"it is no JSON: {error}"
    if fault:
        raise UserError(
            f"TF_CONFIG such as {_EXAMPLE} for several hosts",
            f"TF_CONFIG={text!r}: {fault}",
            "Set it on every host, with its own index",
        )
    return config


def _fault(config) -> str | None:
    """Says in words what is wrong with a TF_CONFIG; None if nothing is."""
    if not isinstance(config, dict):
        return "it is no object"
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not cluster.get("worker"):
        return "its cluster has no list of workers"
    if unknown := sorted(set(cluster) - {"chief", "worker"}):
        return f"its cluster has jobs other than chief and worker: {', '.join(unknown)}"
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            return f"the addresses of job {job!r} are no list of host:port"
    everyone = [address for addresses in cluster.values() for address in addresses]
    if len(everyone) != len(set(everyone)):
        return "its cluster names an address twice"
    if len(cluster.get("chief", ())) > 1:
        return "its cluster has more than one chief"
    if not isinstance(task, dict) or task.get("type") not in cluster:
        return f"its task has no type among {', '.join(cluster)}"
    index, count = task.get("index"), len(cluster[task["type"]])
    if type(index) is not int or not 0 <= index < count:
        return f"its task has no index in 0..{count - 1}, which are the {task['type']}s"
    return None


def _is_address(value) -> bool:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536
