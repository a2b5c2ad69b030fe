"""A T5 of 8,000 weights and its batches, for meshes of up to (2, 4) and for both backends."""

import keras
import numpy as np

import keras_fusion as kf
from trainers.engines.base import StepOptions

ROWS, VOCABULARY = 8, 32
# Dropout, the options of a step, and the optimizer of a run.
CASES = {
    "adafactor": (0.1, StepOptions(clip_norm=0.1, microbatches=2)),
    "adamw": (0.1, StepOptions()),
}


def config(dropout=0.0):
    return kf.models.T5Config(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_heads=4,
        hidden_dim=16,
        intermediate_dim=32,
        key_value_dim=4,
        dropout=dropout,
    )


def optimizer(name):
    if name == "adamw":
        return keras.optimizers.AdamW(1e-3)
    # Factored slots also at this size.
    return kf.optimizers.Adafactor(
        kf.schedules.InverseSquareRoot(warmup_steps=10_000), min_dim_size_to_factor=16
    )


class Batches:
    """A pure function of the step; targets and inputs both have padding, unevenly."""

    def batch(self, step):
        rng = np.random.default_rng([5, step])
        inputs = rng.integers(1, VOCABULARY, (ROWS, 10)).astype(np.int32)
        lengths = rng.integers(1, 8, (ROWS, 1))
        targets = rng.integers(1, VOCABULARY, (ROWS, 7)).astype(np.int32)
        targets *= np.arange(7) < lengths
        return {
            "encoder_token_ids": inputs,
            "encoder_padding_mask": (np.arange(10) < lengths + 3).astype(np.int32),
            "decoder_token_ids": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
            "targets": targets,
        }

    def from_step(self, start):
        while True:
            yield self.batch(start)
            start += 1


def compiled(engine, case="adafactor", dropout=None, seed=0):
    """The engine with a T5 and an optimizer of its own."""
    with engine.scope():
        model = kf.models.T5(config(CASES[case][0] if dropout is None else dropout), seed=seed)
        slots = optimizer(case)
    engine.compile(model, slots)
    return engine


def assert_close(a, b, tolerance=1e-5):
    """Weights and slots agree; seeds and counts are the same."""
    assert list(a) == list(b)
    for name in a:
        if np.issubdtype(a[name].dtype, np.floating):
            np.testing.assert_allclose(
                a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name
            )
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_equal(a, b):
    """The same names and the same numbers, whatever the width of an integer."""
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
