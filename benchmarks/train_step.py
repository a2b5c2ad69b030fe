"""Tokens per second of training our T5, compared with other libraries' T5 of the same size.

    python -m benchmarks.train_step [--size=tiny_m] [--num_layers=4] [--batch_size=32]
        [--input_length=128] [--small=tiny_s] [--alone=keras_hub,transformers]
        [--torch_python=.venv-interop/bin/python]

First in this one process: ours and KerasHub's, with the same shapes, batch, loss, Adafactor and
engine, and the time of ours at the size `--small` over that at `--size`. KerasHub's backbone gets
the head that it lacks, and masks of ones.

Then each in a process of its own, as its users run it: ours by the engine of trainers.pretrain,
KerasHub's by `fit`, Hugging Face's in PyTorch, where `--torch_python` has it (float32, a plain
loop). The steps of all run in turn, and ratios are taken round by round. KERAS_BACKEND says what
ours and KerasHub's run on. Takes about three minutes on two cores at the default size.
"""

import contextlib
import json
import sys
import time

from absl import flags

import trainers  # noqa: F401  first, as in the programs: it makes settings before TensorFlow's import
from benchmarks import _programs

# isort: split
import keras
import keras_hub

import keras_fusion as kf
from benchmarks._batches import lengths, random_batches
from benchmarks._keras_hub import KerasHubT5
from benchmarks._rounds import in_turn, line, ratios
from benchmarks._workers import Worker
from benchmarks.step_alone import STEPS as ALL_STEPS
from trainers.process import keep_freed_memory


def make_engine():
    """Returns the engine of the backend, for one device."""
    if keras.backend.backend() == "jax":
        from trainers.engines.jax import JaxEngine

        return JaxEngine()
    from trainers.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine()


def make_step(model, batch_size, input_length):
    """Returns a function that runs n training steps of a model and returns their seconds."""
    engine = make_engine()
    engine.compile(model, kf.optimizers.Adafactor(0.001))
    batches = random_batches(model.config.vocabulary_size, batch_size, input_length)

    def run(steps):
        start = time.perf_counter()
        engine.train(batches, steps)
        return time.perf_counter() - start

    run(2)
    return run


def compare(configs, batch_size, input_length, steps, rounds):
    """Returns seconds per step, round by round, in one process.

    Args:
        configs: that of our model and of KerasHub's, and those of more models of ours.

    Returns:
        A list for our model, one for KerasHub's, and one for each further configuration.
    """
    models = [kf.models.T5(configs[0], seed=0), KerasHubT5(configs[0])]
    models += [kf.models.T5(config, seed=0) for config in configs[1:]]
    runs = [make_step(model, batch_size, input_length) for model in models]
    return in_turn([lambda run=run: run(steps) / steps for run in runs], rounds)


def compare_alone(config, batch_size, input_length, steps, rounds, interpreters):
    """Returns seconds per step, round by round, each model in a process of its own.

    Args:
        interpreters: name of a model in `benchmarks.step_alone` to the Python that runs it.

    Returns:
        A list for each name.
    """
    sizes = [json.dumps(config.to_dict()), str(batch_size), str(input_length)]
    with contextlib.ExitStack() as stack:
        workers = []
        for name, python in interpreters.items():
            # Hugging Face's uses no backend of Keras, but TensorFlow and PyTorch do not mix.
            backend = "torch" if name == "transformers" else keras.backend.backend()
            arguments = ["-m", "benchmarks.step_alone", name, *sizes]
            worker = Worker(arguments, python, {"KERAS_BACKEND": backend})
            workers.append(stack.enter_context(worker))
        for worker in workers:  # Compiles.
            worker.run(steps)
        runs = [lambda worker=worker: worker.run(steps) / steps for worker in workers]
        return in_turn(runs, rounds)


def print_ratios(names, seconds, tokens):
    """Prints the speeds, and that of the first over each other's."""
    for name, values in zip(names, seconds, strict=True):
        print(line(name, [tokens / value for value in values], "tokens/s"))
    for name, values in zip(names[1:], seconds[1:], strict=True):
        print(line(f"over {name}", ratios(values, seconds[0])))


def main():
    keep_freed_memory()
    overrides = {} if NUM_LAYERS.value is None else {"num_layers": NUM_LAYERS.value}
    config = kf.models.T5Config.from_size(SIZE.value, **overrides)
    batch = (BATCH_SIZE.value, INPUT_LENGTH.value)
    measured = (*batch, STEPS.value, ROUNDS.value)
    tokens = BATCH_SIZE.value * sum(lengths(INPUT_LENGTH.value))
    print(
        f"{SIZE.value} of {config.num_layers} layers, batch {batch[0]} x {batch[1]}, "
        f"{keras.backend.backend()}, keras {keras.__version__}, keras-hub {keras_hub.__version__}"
    )
    small = [kf.models.T5Config.from_size(name, **overrides) for name in SMALL.value]
    ours, peer, *smaller = compare([config, *small], *measured)
    print("\nin this process")
    print_ratios(["keras_fusion", "keras_hub"], [ours, peer], tokens)
    for name, values in zip(SMALL.value, smaller, strict=True):
        print(line(f"time of {name}", ratios(values, ours)))
    if ALONE.value:
        interpreters = dict.fromkeys(["keras_fusion", *ALONE.value], sys.executable)
        if "transformers" in interpreters:
            interpreters["transformers"] = TORCH_PYTHON.value
        print("\nin processes of their own")
        print_ratios([*interpreters], compare_alone(config, *measured, interpreters), tokens)


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    NUM_LAYERS = flags.DEFINE_integer(
        "num_layers", None, "Layers, in place of the size's.", lower_bound=1
    )
    SMALL = flags.DEFINE_list("small", "tiny_s", "Sizes of ours whose time is compared with it.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Sequences per batch.", lower_bound=1)
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Tokens of an input.", lower_bound=1)
    STEPS = flags.DEFINE_integer("steps", 20, "Steps per round.", lower_bound=1)
    ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds, all models in turn.", lower_bound=1)
    ALONE = flags.DEFINE_list("alone", "keras_hub", "Peers in processes of their own.")
    _programs.check_list("small", sorted(kf.models.config.SIZES))
    _programs.check_list("alone", list(ALL_STEPS))
    TORCH_PYTHON = flags.DEFINE_string(
        "torch_python", sys.executable, "Python that has torch and transformers."
    )
    _programs.run(main)
