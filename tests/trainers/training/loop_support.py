"""A model, data and costs that train in milliseconds, for the tests of loop and engines."""

import dataclasses
import functools
import itertools
import os
import pathlib
import sys

import keras
import numpy as np
from keras import layers

import keras_fusion as kf
from trainers.engines.state import state_variables
from trainers.training import loop
from trainers.training.config import StageJob, StepCosts, TrainConfig, Watch

BATCH, LENGTH, CLASSES = 8, 6, 16
COSTS = StepCosts(tokens_per_step=2 * BATCH * LENGTH, flops_per_step=1000.0)


class Batches:
    """Targets are the inputs, shifted by one class: learnable. A pure function of the index.

    Args:
        before: called with the index of each batch before it is made.
        poison: indices of batches that `poisoned` cannot bear.
        without: indices that `from_step` leaves out: the order that skipping has to give.
    """

    def __init__(self, before=lambda index: None, poison=(), without=()):
        self.before, self.poison, self.without = before, poison, without

    def batch(self, index):
        rng = np.random.default_rng([7, index])
        inputs = rng.integers(1, CLASSES - 1, (BATCH, LENGTH)).astype(np.int32)
        targets = np.where(rng.random(inputs.shape) < 0.1, 0, inputs + 1).astype(np.int32)
        shifted = np.concatenate([np.zeros((BATCH, 1), np.int32), targets[:, :-1]], axis=1)
        if index in self.poison:
            inputs[0, 0] = 0
        return {"encoder_token_ids": inputs, "decoder_token_ids": shifted, "targets": targets}

    def from_step(self, start):
        order = (index for index in itertools.count() if index not in self.without)
        for index in itertools.islice(order, start, None):
            self.before(index)
            yield self.batch(index)


def make_model(dropout=0.1, width=16):
    """Two embeddings, one hidden layer; every initializer and mask is seeded."""

    def seeded(seed):
        return keras.initializers.RandomNormal(stddev=0.1, seed=seed)

    encoder = keras.Input((None,), dtype="int32", name="encoder_token_ids")
    decoder = keras.Input((None,), dtype="int32", name="decoder_token_ids")
    x = layers.Embedding(CLASSES, width, embeddings_initializer=seeded(1))(encoder)
    x += layers.Embedding(CLASSES, width, embeddings_initializer=seeded(2))(decoder)
    x = layers.Dropout(dropout, seed=3)(x)
    x = layers.Dense(2 * width, activation="relu", kernel_initializer=seeded(4))(x)
    x = layers.Dropout(dropout, seed=5)(x)
    logits = layers.Dense(CLASSES, kernel_initializer=seeded(6))(x)
    inputs = {"encoder_token_ids": encoder, "decoder_token_ids": decoder}
    return keras.Model(inputs, logits)


@functools.cache
def poisoned(quantity="loss"):
    """A model whose loss a batch with `poison` makes infinite, or only the update after it."""

    def make():
        model = make_model()
        good = keras.ops.cast(keras.ops.all(model.input["encoder_token_ids"] > 0), "float32")
        if quantity == "loss":
            return keras.Model(model.input, model.output / good)
        # The root of zero: a good value, and an infinite gradient times nothing.
        root = keras.ops.sqrt(good + 0.0 * keras.ops.mean(model.output))
        return keras.Model(model.input, model.output + (root - good))

    return make


def make_optimizer(name="adafactor"):
    if name == "adafactor":
        rate = kf.schedules.InverseSquareRoot(warmup_steps=10, scale=0.3)
        # Factored slots also at this size.
        return kf.optimizers.Adafactor(rate, min_dim_size_to_factor=16)
    return {"adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}[name](0.01)


def make_engine(strategy=None, dropout=0.1, optimizer="adafactor"):
    """A compiled engine with a fresh model."""
    from trainers.engines.tensorflow import TensorFlowEngine

    engine = TensorFlowEngine(strategy)
    with engine.scope():
        model, slots = make_model(dropout), make_optimizer(optimizer)
    engine.compile(model, slots)
    return engine


@functools.cache
def _parts(make):
    """A model, an optimizer, and the state that they begin with: making them takes long."""
    model, optimizer = make(), make_optimizer()
    optimizer.build(model.trainable_variables)
    variables = state_variables(model, optimizer).values()
    return model, optimizer, [(variable, np.array(variable)) for variable in variables]


def run(folder, batches=None, optimizer=None, engine=None, make=make_model, **options):
    """Trains 40 steps in `folder`, with a checkpoint every 10; returns (result, state).

    Without an `engine` and an `optimizer`, runs share the model, as if it were new, and its traced
    steps.
    """
    from tests.trainers.shared_steps import SharedSteps

    lengths = {
        "steps": 40,
        "eval_every": 20,
        "eval_batches": 2,
        "checkpoint_every": 10,
        "log_every": 10,
        "steps_per_call": 7,
    }
    engine = engine or SharedSteps()
    if optimizer is None and isinstance(engine, SharedSteps):
        model, optimizer, start = _parts(make)
        for variable, value in start:
            variable.assign(value)
    else:
        model, optimizer = make(), optimizer or make_optimizer()
    parts = {"engine": engine, "model": model, "optimizer": optimizer}
    data = {"batches": batches or Batches(), "validation": Batches(), "costs": COSTS}
    watch = Watch(progress=False, **_taken(Watch, options))
    config = TrainConfig(**lengths | _taken(TrainConfig, options))
    result = loop.train(StageJob(**parts, **data, **options), config, folder, watch)
    return result, engine.state()


def _taken(config_class, options):
    """Takes the options that are fields of a class out of a dictionary."""
    names = [field.name for field in dataclasses.fields(config_class)]
    return {name: options.pop(name) for name in names if name in options}


def python(code, *arguments):
    """Command and environment of another Python process that finds the repository."""
    root = pathlib.Path(__file__).parents[3]
    environment = dict(os.environ, PYTHONPATH=str(root), TF_CPP_MIN_LOG_LEVEL="3")
    return {"args": [sys.executable, "-c", code, *map(str, arguments)], "env": environment}
