"""An engine whose models share traced steps: tracing them takes longer than training here."""

import contextlib

import tensorflow as tf

from keras_fusion.schedules import InverseSquareRoot
from trainers.engines.tensorflow import TensorFlowEngine


class SharedSteps(TensorFlowEngine):
    """Trains a model by the steps that were traced for the first one like it.

    Alike are T5s of one configuration with the same optimizer, whatever its learning rate; of other
    models there is one of a kind. While a call runs, the first one has the values of the other.
    """

    _first: dict[str, "SharedSteps"] = {}

    def build_steps(self, model, optimizer):
        config = optimizer.get_config()
        self._rate = config.pop("learning_rate")
        of_schedule = isinstance(self._rate, dict) and "warmup_steps" in self._rate["config"]
        config["learning_rate"] = "inverse square root" if of_schedule else self._rate
        kind = getattr(model, "config", id(model)), model.compute_dtype
        name = repr((kind, type(optimizer), config, self.options, type(self.strategy)))
        if name not in self._first:
            super().build_steps(model, optimizer)
            self._schedule = Variable() if of_schedule else None
            if of_schedule:
                optimizer.learning_rate = self._schedule
        self._model = model
        self._twin = self._first.setdefault(name, self)
        self._lend_rate(self)

    def run_steps(self, arrays, num_steps):
        with self._lent():
            return super(SharedSteps, self._twin).run_steps(arrays, num_steps)

    def run_evaluation(self, arrays, num_batches):
        with self._lent():
            return super(SharedSteps, self._twin).run_evaluation(arrays, num_batches)

    @contextlib.contextmanager
    def _lent(self):
        """Gives the first model the values of this engine's, and takes them back."""
        twin = self._twin
        if twin._model is self._model:
            yield
            return
        kept = [tf.identity(variable) for variable in twin._values()]
        try:
            _assign(twin._values(), self._values())
            twin._lend_rate(self)
            yield
            _assign(self._values(), twin._values())
        finally:
            _assign(twin._values(), kept)
            twin._lend_rate(twin)

    def _values(self) -> list[tf.Variable]:
        return [variable.value for variable in self.variables.values()]

    def _lend_rate(self, other):
        if self._twin is self and self._schedule:
            self._schedule.assign(**other._rate["config"])


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value, read_value=False)


class Variable(InverseSquareRoot):
    """The schedule with variables for numbers."""

    def __init__(self):
        super().__init__()
        self.warmup_steps = tf.Variable(0, dtype="int32")
        self.offset = tf.Variable(0, dtype="int32")
        self.scale = tf.Variable(0.0, dtype="float32")

    def assign(self, warmup_steps, offset, scale, name):
        """Takes the numbers of another schedule."""
        del name
        self.warmup_steps.assign(warmup_steps)
        self.offset.assign(offset)
        self.scale.assign(scale)

    def get_config(self):
        return {
            "warmup_steps": int(self.warmup_steps),
            "offset": int(self.offset),
            "scale": float(self.scale),
            "name": self.name,
        }
