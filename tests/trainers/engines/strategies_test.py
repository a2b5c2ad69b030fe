"""Strategies by name, and what is said where they cannot be had."""

import json
import subprocess

import keras
import pytest

from tests.trainers.training import loop_support as support
from trainers.engines.base import StepOptions
from trainers.errors import UserError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the engine of the tensorflow backend"
)

ADDRESSES = ["host0:2222", "host1:2222"]
GOOD = {"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": 1}}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("TPU_NAME", raising=False)


@pytest.fixture
def strategies():
    from trainers.engines import strategies

    return strategies


@pytest.fixture
def made(monkeypatch, strategies):
    """Makes `make_strategy` return the name of what it would make, and of the TPU."""
    for name in strategies.MAKERS:
        monkeypatch.setitem(strategies.MAKERS, name, lambda tpu, name=name: (name, tpu))
    return strategies.make_strategy


def set_gpus(monkeypatch, count):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["gpu"] * count)


@pytest.mark.parametrize(("gpus", "name"), [(0, "one_device"), (1, "one_device"), (2, "mirrored")])
def test_auto_takes_all_gpus(made, monkeypatch, gpus, name):
    set_gpus(monkeypatch, gpus)
    assert made("auto") == (name, None)


@pytest.mark.parametrize(("workers", "name"), [(1, "mirrored"), (2, "multi_worker")])
def test_auto_takes_the_hosts_of_tf_config(made, monkeypatch, workers, name):
    set_gpus(monkeypatch, 2)
    cluster = {"worker": ADDRESSES[:workers]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert made("auto") == (name, None)
    # A chief is one more host.
    config["cluster"] = {"worker": ADDRESSES[1:], "chief": ADDRESSES[:1]}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert made("auto") == ("multi_worker", None)


def test_auto_takes_a_tpu_that_is_named(made, monkeypatch):
    set_gpus(monkeypatch, 2)
    monkeypatch.setenv("TF_CONFIG", json.dumps(GOOD))
    assert made("auto", "local") == ("tpu", "local")
    monkeypatch.setenv("TPU_NAME", "slice")
    assert made("auto") == ("tpu", "slice")
    assert made("tpu", "other") == ("tpu", "other")
    assert made("one_device") == ("one_device", "slice")


def test_a_tpu_is_connected_and_started(strategies, monkeypatch):
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver
    monkeypatch.setattr(resolver, "connect", lambda tpu: f"connected to {tpu}")
    monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda connected: connected)
    assert strategies.make_strategy("tpu", "local") == "connected to local"


NO_TPU = """
from trainers.engines import strategies
try:
    strategies.make_strategy("tpu", "local")
except strategies.UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_no_tpu_on_this_host_is_one_line():
    # In a process of its own: TensorFlow remembers what it tried to start.
    ran = subprocess.run(**support.python(NO_TPU), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-4000:]
    (line,) = ran.stdout.splitlines()
    assert "Received: tpu='local': NotFoundError: TPUs not found" in line
    assert "that tensorflow-tpu is installed here" in line


def test_a_name_that_no_tpu_has_is_one_line(strategies, monkeypatch):
    import tensorflow as tf

    def connect(tpu):
        raise ValueError("Could not find the TPU\nsecond line")

    monkeypatch.setattr(tf.distribute.cluster_resolver.TPUClusterResolver, "connect", connect)
    with pytest.raises(UserError) as caught:
        strategies.make_strategy("tpu", "slice")
    assert "tpu='slice': ValueError: Could not find the TPU. Check" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tpu", "message"),
    [
        ("tpu", None, "Received: tpu=None, and TPU_NAME is not set. Give --tpu=local"),
        ("multi_worker", None, "Received: TF_CONFIG='': it is not set."),
    ],
)
def test_what_is_missing_is_named(strategies, name, tpu, message):
    with pytest.raises(UserError) as caught:
        strategies.make_strategy(name, tpu)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("{", "it is no JSON: Expecting property name"),
        ([], "it is no object"),
        ({"cluster": {}}, "no list of workers"),
        ({"cluster": {"worker": [], "chief": ["h:1"]}}, "no list of workers"),
        ({"cluster": {"worker": ["h:1"], "ps": ["h:2"]}}, "other than chief and worker: ps"),
        ({"cluster": {"worker": "h:1"}}, "job 'worker' are no list of host:port"),
        ({"cluster": {"worker": ["h:port"]}}, "are no list of host:port"),
        ({"cluster": {"worker": ["h:1", 2]}}, "are no list of host:port"),
        ({"cluster": {"worker": ["h:1", "h:1"]}}, "an address twice"),
        ({"cluster": {"worker": ["h:1"], "chief": ["h:2", "h:3"]}}, "more than one chief"),
        ({"task": None}, "its task has no type among worker"),
        ({"task": {"type": "chief", "index": 0}}, "its task has no type among worker"),
        ({"task": {"type": "worker", "index": 2}}, "its task has no index in 0..1"),
        ({"task": {"type": "worker", "index": "0"}}, "its task has no index in 0..1"),
        ({"task": {"type": "worker"}}, "its task has no index in 0..1"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "multi_worker"])
def test_faults_of_tf_config_are_quoted(strategies, monkeypatch, change, fault, name):
    text = change if isinstance(change, str) else json.dumps(change)
    if isinstance(change, dict):
        text = json.dumps(GOOD | change)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as caught:
        strategies.make_strategy(name)
    assert fault in str(caught.value)
    assert f"Received: TF_CONFIG={text!r}" in str(caught.value)


def test_a_good_tf_config_is_read(strategies):
    assert strategies.read_tf_config({"TF_CONFIG": json.dumps(GOOD)}) == GOOD


def test_engines_share_a_strategy_and_take_options(strategies):
    make_engine = strategies.engines("mirrored")
    first, second = make_engine(StepOptions(clip_norm=2.0)), make_engine()
    assert first.strategy is second.strategy
    assert (first.options.clip_norm, second.options.clip_norm) == (2.0, None)
    assert (first.num_devices, first.is_chief, first.agree(True)) == (1, True, True)


def test_another_backend_is_refused(strategies, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="Set KERAS_BACKEND=tensorflow"):
        strategies.engines("auto")
