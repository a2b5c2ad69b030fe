"""constraints-tpu.txt: the pins of constraints.txt, but for what tensorflow-tpu needs."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
TPU = {
    "libtpu": "0.0.14",
    "tensorboard": "2.20.0",
    "tensorflow": "2.20.0",
    "tensorflow-text": "2.20.1",
    "tensorflow-tpu": "2.20.0",
}


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [line.partition("#")[0].strip().split("==") for line in lines]
    return {pin[0]: pin[1] for pin in found if len(pin) == 2}


def test_only_tensorflow_and_what_follows_it_differ():
    assert pins("constraints-tpu.txt") == pins("constraints.txt") | TPU
