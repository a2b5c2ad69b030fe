"""Fused stages with checkpoints of random weights. For tests only."""

import numpy as np

import keras_fusion as kf
from keras_fusion.layers.values import array_of
from tests.trainers.reports import synthetic
from trainers import checkpoints
from trainers.engines.state import state_variables

MLP = "encoder/block_0/feed_forward/input_projector/kernel"
QUERY = "encoder/block_0/self_attention/query/kernel"


def config(hidden, heads, mlp):
    """A T5 of one layer, with two values per head."""
    return kf.models.T5Config(
        vocabulary_size=16,
        num_layers=1,
        num_heads=heads,
        hidden_dim=hidden,
        intermediate_dim=mlp,
        key_value_dim=2,
    )


def fused_config(*widths):
    """The configuration of a fusion of T5s of these (hidden, heads, mlp)."""
    first, *others = [config(*sizes) for sizes in widths]
    return first.fused(others, "rule")


def values(model, step):
    """Weights by path, other ones at every step; η grows with the step."""
    rng = np.random.default_rng(step)
    weights = {}
    for name, variable in state_variables(model).items():
        path = name.removeprefix(checkpoints.MODEL_PREFIX)
        weights[path] = rng.normal(size=tuple(variable.shape)).astype(np.float32)
        if path == MLP and model.config.blocks:
            hidden, mlp = model.config.blocks["hidden"][0], model.config.blocks["mlp"][0]
            weights[path][:hidden, mlp:] *= step / 1000
            weights[path][hidden:, :mlp] *= step / 1000
    return weights


def save(workdir, name, model, steps):
    """Writes checkpoints of a stage, and returns {step: weights by path}."""
    written = {step: values(model, step) for step in steps}
    for step, weights in written.items():
        state = {
            name: np.asarray(array_of(value)) for name, value in state_variables(model).items()
        }
        state |= {checkpoints.MODEL_PREFIX + path: value for path, value in weights.items()}
        settings = {"settings": {"model": model.config.to_dict()}}
        checkpoints.save(workdir / name / "checkpoints", step, state, settings)
    return written


def run_with(workdir, *stages, model, steps):
    """A run with these fused stages, all of one model; returns what `save` did for each."""
    records = [synthetic.fused(sources=("a", "b")) | {"name": name} for name in stages]
    synthetic.write_run(workdir, *records)
    return {name: save(workdir, name, model, steps) for name in stages}
