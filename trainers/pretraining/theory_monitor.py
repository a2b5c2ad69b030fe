"""Measurements of section 4 of a fused stage while it trains: `--theory_every`.

The numbers are those of `kf.theory.Monitor`. They are about a pair of plain gradient steps, the
last one before the fusion, with the learning rate h, and the next one of the fused model, with
α h. Here

- h is n times the learning rate of the small network's last step: that is Eq. 6 for the step
  which each source took on its own (see `kf.theory.modified`). Of several sources the first counts;
- α h is the learning rate of the step that comes next.

Of the sources only the structure is needed, and no value of theirs is read.
"""

from collections.abc import Mapping

import numpy as np
from keras import ops

import keras_fusion as kf
from trainers.engines.base import Engine
from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.runs.rates import learning_rate
from trainers.runs.state import RunState
from trainers.training.config import Measurement

KIND = "theory"
# A measurement is about six gradients of such a batch. These few sequences are the same in every
# stage on the same tokens, so that curves over time, and those of several stages, compare: what a
# larger batch would average away moves all of them alike.
SEQUENCES = 8


def check_engine(engine: Engine) -> None:
    """Raises a `UserError` unless an engine's weights can be used outside its steps."""
    if not engine.is_local:
        raise UserError(
            "one device, and no TPU of TensorFlow's, with --theory_every",
            f"{engine.num_devices} device(s) of {type(engine).__name__}",
            "Leave out --theory_every, or train on one device with --strategy=one_device",
        )


def measurement(
    stage: Stage,
    workdir: RunState,
    batch: Mapping[str, np.ndarray],
    optimizer,
    every: int,
    dtype: str,
) -> Measurement:
    """Returns what the loop measures of a fused stage.

    Args:
        stage: node of a plan, whose sources are finished.
        workdir: the run's folder.
        batch: validation batch; its first `SEQUENCES` sequences count.
        optimizer: of the stage, at the step that is measured at.
        every: steps between two.
        dtype: Keras' dtype policy of the fused model.
    """
    h = len(stage.parents) * last_learning_rate(stage, workdir)
    skeletons = {name: _skeleton(workdir, name, dtype) for name in stage.sources}
    monitor = kf.theory.Monitor(
        [skeletons[name] for name in stage.parents],
        {name: value[:SEQUENCES] for name, value in batch.items()},
        h,
        lambda: float(ops.convert_to_numpy(optimizer.learning_rate)) / h,
    )
    return Measurement(KIND, every, monitor)


def last_learning_rate(stage: Stage, workdir: RunState) -> float:
    """Learning rate of the last step that a fused stage's first source took before the fusion."""
    name = stage.sources[0]
    record = workdir.record(name)
    taken = stage.source_steps.get(name, record["steps"])
    steps = record["steps"]
    # The schedule of a continued stage counts the steps of those before it.
    while record["init"] == "continued":
        record = workdir.record(record["sources"][0])
        taken, steps = taken + record["steps"], steps + record["steps"]
    return learning_rate(record["learning_rate"], taken - 1, steps)


def _skeleton(workdir: RunState, name: str, dtype: str) -> "kf.models.T5":
    """The model of a source, without values."""
    values = workdir.stage(name)["model"]
    # Without dropout, which is not of the structure, it has no state but its weights.
    config = kf.models.T5Config.from_dict(values | {"dropout": 0.0})
    return kf.models.T5.skeleton(config, dtype=dtype)
