"""Strategies of `tf.distribute` by name: the devices of a run, or what is missing for them."""

import functools
import json
import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from trainers.engines.base import check_backend
from trainers.engines.devices import EngineFactory, check_strategy
from trainers.engines.tensorflow import TensorFlowEngine
from trainers.errors import UserError

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


def engines(name: str, tpu: str | None = None) -> EngineFactory:
    """Returns the factory of a run's engines.

    All of them share one strategy object: a second one on the same devices would number its
    all-reduces from the start again, and TensorFlow would take them for those of the first.

    Args:
        name: see `make_strategy`.
        tpu: see `make_strategy`.

    Raises:
        UserError: as `make_strategy`; or Keras runs on a backend that these engines are not for.

    Example:
        make_engine = engines("auto")
        engine = make_engine(StepOptions(clip_norm=1.0))
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

    Returns:
        The strategy.

    Raises:
        UserError: a name is unknown, no TPU is found, TF_CONFIG cannot be used, or a TPU is named
            for a strategy that takes none.

    Example:
        strategy = make_strategy("tpu", "local")
    """
    check_strategy(name, tpu)
    tpu = tpu or os.environ.get("TPU_NAME")
    return MAKERS[_choose(tpu) if name == "auto" else name](tpu)


def _choose(tpu: str | None) -> str:
    if tpu:
        return "tpu"
    if os.environ.get("TF_CONFIG") and _num_workers(read_tf_config(os.environ)) > 1:
        return "multi_worker"
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return "mirrored"
    return "one_device"


def _multi_worker(tpu):
    read_tf_config(os.environ)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            expected="a cluster that this process can join",
            received=f"TF_CONFIG={os.environ['TF_CONFIG']}: {_first_line(error)}",
            do="Start one process for each of its tasks; its address must be free on that host",
        ) from error


def _tpu(tpu):
    if not tpu:
        raise UserError(
            expected="the TPU of --strategy=tpu",
            received="tpu=None, and TPU_NAME is not set",
            do="Give --tpu=local on a TPU VM, or --tpu=NAME",
        )
    try:
        # Finds its hosts, connects to them, and starts its cores.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu)
    except Exception as error:  # whatever a missing library, host, network or permission raises
        raise UserError(
            expected="a TPU that this process can use",
            received=f"tpu={tpu!r}: {type(error).__name__}: {_first_line(error)}",
            do="Check the name, that no other process holds the TPU, and that tensorflow-tpu is "
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

    Args:
        environment: where to look, such as `os.environ`.

    Returns:
        {"cluster": {job: [address, …]}, "task": {"type": job, "index": number}}.

    Raises:
        UserError: quoting what is wrong with it.

    Example:
        task = read_tf_config(os.environ)["task"]
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
            expected=f"TF_CONFIG such as {_EXAMPLE} for several hosts",
            received=f"TF_CONFIG={text!r}: {fault}",
            do="Set it on every host, with its own index",
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


def _num_workers(config: Mapping) -> int:
    return sum(map(len, config["cluster"].values()))
