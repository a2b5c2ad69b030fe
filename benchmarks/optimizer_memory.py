"""Bytes of Adafactor's slots and time of its step, compared with Keras' optimizers.

    python -m benchmarks.optimizer_memory [--variables=tiny_m] [--steps=100] [--rounds=5]

Takes about a minute on two cores. The first table is computed from the shapes of the T5 v1.1 of
Tables 8 and 9 and of the tiny ones, no weight is allocated; the tables' sizes should show a ratio
under 0.01 (in tiny_s no weight is large enough to be factored, hence 0.5). The second is measured
on a T5-like set of small variables, where the overhead per variable dominates, all optimizers in
turn in this one process; Adafactor should take no longer than AdamW.
"""

import math
import time

import keras
import numpy as np
from absl import flags

from benchmarks import _programs
from keras_fusion.models import T5Config
from keras_fusion.optimizers import Adafactor
from keras_fusion.optimizers.adafactor import slot_shapes

SIZES = ("tiny_s", "tiny_m", "t5_small", "t5_medium", "t5_s", "t5_m", "t5_l")


def t5_shapes(size):
    """Returns the shapes of all weights of a T5 v1.1: no biases, gated, head not tied.

    Args:
        size: one of `SIZES`.

    Example:

    >>> sum(math.prod(shape) for shape in t5_shapes("t5_small"))
    76961152
    """
    config = T5Config.from_size(size)
    vocabulary, hidden, mlp = config.vocabulary_size, config.hidden_dim, config.intermediate_dim
    heads, layers = config.num_heads, config.num_layers
    joined = heads * config.key_value_dim
    attention = [(hidden,), *[(hidden, joined)] * 3, (joined, hidden)]
    feed_forward = [(hidden,), (hidden, mlp), (hidden, mlp), (mlp, hidden)]
    stack = [(32, heads), (hidden,)]
    encoder = (attention + feed_forward) * layers + stack
    decoder = (attention * 2 + feed_forward) * layers + stack
    return [(vocabulary, hidden), *encoder, *decoder, (hidden, vocabulary)]


def slot_bytes(shapes):
    """Returns the bytes of Adafactor's slots and of AdamW's (two of each weight's size)."""
    adafactor = sum(4 * math.prod(slot) for shape in shapes for slot in slot_shapes(shape).values())
    return adafactor, sum(2 * 4 * math.prod(shape) for shape in shapes)


def update_step(optimizer, shapes, seed=0):
    """Returns a function that applies n updates in one call, and its number of graph operations.

    The gradients are variables, so that nothing computed from them is folded into a constant.
    """
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    weights, gradients = (
        [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in shapes]
        for _ in range(2)
    )
    optimizer.build(weights)

    def once():
        optimizer.apply([gradient.value.read_value() for gradient in gradients], weights)

    def many(steps):
        for _ in tf.range(steps):
            once()

    operations = tf.function(once).get_concrete_function().graph.get_operations()
    return tf.function(many), len(operations)


def measure(optimizers, shapes, steps, rounds):
    """Returns `{name: (milliseconds per update, graph operations)}`, the best of the rounds.

    Args:
        optimizers: `{name: Keras optimizer}`.
        shapes: list of weight shapes.
        steps: int, updates in one call.
        rounds: int; in each round the optimizers take turns, so that slow periods hit all.
    """
    import tensorflow as tf

    runs = {name: update_step(optimizer, shapes) for name, optimizer in optimizers.items()}
    best = dict.fromkeys(runs, math.inf)
    for run, _ in runs.values():
        run(tf.constant(2))
    for _ in range(rounds):
        for name, (run, _) in runs.items():
            start = time.perf_counter()
            run(tf.constant(steps))
            best[name] = min(best[name], 1000 * (time.perf_counter() - start) / steps)
    return {name: (best[name], operations) for name, (_, operations) in runs.items()}


def print_memory():
    """Prints the table of slot bytes."""
    print(f"{'size':<10}{'parameters':>15}{'Adafactor MiB':>15}{'AdamW MiB':>12}{'ratio':>9}")
    for size in SIZES:
        shapes = t5_shapes(size)
        adafactor, adamw = slot_bytes(shapes)
        parameters = sum(math.prod(shape) for shape in shapes)
        print(
            f"{size:<10}{parameters:>15,}{adafactor / 2**20:>15.2f}{adamw / 2**20:>12.1f}"
            f"{adafactor / adamw:>9.4f}"
        )


def print_time(size, steps, rounds):
    """Prints the table of step times."""
    shapes = t5_shapes(size)
    results = measure(
        {
            "AdamW (Keras)": keras.optimizers.AdamW(0.01),
            "Adafactor (Keras)": keras.optimizers.Adafactor(0.01),
            "Adafactor (ours)": Adafactor(0.01),
        },
        shapes,
        steps,
        rounds,
    )
    parameters = sum(math.prod(shape) for shape in shapes)
    print(f"\nupdate of {size}: {len(shapes)} variables, {parameters:,} parameters")
    print(f"{'optimizer':<20}{'ms/update':>12}{'ratio':>9}{'graph ops':>12}{'per variable':>15}")
    reference = results["AdamW (Keras)"][0]
    for name, (milliseconds, operations) in results.items():
        print(
            f"{name:<20}{milliseconds:>12.3f}{milliseconds / reference:>9.2f}{operations:>12}"
            f"{operations / len(shapes):>15.1f}"
        )


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_enum("variables", "tiny_m", list(SIZES), "whose variables to time")
    flags.DEFINE_integer("steps", 100, "updates in one call", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "calls of each optimizer, the best counts", lower_bound=1)


def main():
    """Prints both tables."""
    print_memory()
    if keras.backend.backend() != "tensorflow":
        print("\nthe step time is measured on the tensorflow backend only")
        return
    print_time(flags.FLAGS.variables, flags.FLAGS.steps, flags.FLAGS.rounds)


if __name__ == "__main__":
    define_flags()
    _programs.run(main)
