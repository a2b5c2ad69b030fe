"""Checking a fused model: sources and result run on random numbers, tensor by tensor.

Whatever the plan promises of a tensor is compared, so that a wrong rule is found where it acts.
"""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from keras_fusion import _keras
from keras_fusion.errors import PLEASE_REPORT, FusionError
from keras_fusion.graph.tracing import run, trace
from keras_fusion.graph.values import AFTER, GROWN, MEAN

_BATCH = 2
# Lengths that are tried for dimensions whose size is not known, such as an image's height.
_LENGTHS = (8, 32, 96, 224)
# Rounding errors that pile up through a network, over the spacing of its numbers.
_ROUNDING = 1e4
# Some operations compute in float32 what they are given in float64.
_SINGLE = float(np.finfo("float32").eps)


def check(graphs, pairs, planner, builder, fused, options):
    """Compares the tensors of a fused model with those of its sources.

    Args:
        graphs: `Graph` of each source.
        pairs: `{id of a call of the first: calls}`.
        planner: The `Planner`.
        builder: The `Builder`.
        fused: The fused model.
        options: `GraphOptions`.

    Raises:
        FusionError: Naming the first layer whose result is not what was planned.
    """
    target = trace(fused)
    with _linear_heads(planner):
        sources = inputs = None
        for length in _LENGTHS:
            inputs = _inputs(graphs, length, options.inputs == "shared")
            try:
                sources = [
                    _evaluated(graph, tensors)
                    for graph, tensors in zip(graphs, inputs, strict=True)
                ]
                break
            except Exception as error:  # noqa: BLE001 - a source may refuse random inputs
                failure = error
        if sources is None:
            warnings.warn(
                "the fused model was not checked, because a source does not run on random inputs: "
                f"{failure}",
                stacklevel=5,
            )
            return
        together = [
            planner.values[id(tensor)].assemble([arrays[index] for arrays in inputs])
            for index, tensor in enumerate(graphs[0].inputs)
        ]
        results = _evaluated(target, together)
    comparison = _Comparison(planner, options, sources, results)
    for call in graphs[0].calls:
        if id(call) in pairs:
            for index, tensor in enumerate(call.outputs):
                made = builder.counterpart(target, call, index)
                others = [partner.outputs[index] for partner in pairs[id(call)]]
                comparison.tensor(call, planner.values[id(tensor)], others, made)
    for index, tensor in enumerate(target.outputs):
        comparison.output(
            planner.values[id(graphs[0].outputs[index])],
            [graph.outputs[index] for graph in graphs],
            tensor,
        )


class _Comparison:
    """Compares tensors of sources and of the fused model by what is planned of them."""

    def __init__(self, planner, options, sources, results):
        self.planner, self.options = planner, options
        self.sources, self.results = sources, results

    def tensor(self, call, value, tensors, made):
        """Compares a tensor inside the model."""
        if made is None or not value.exact or value.kind == AFTER:
            return
        result = self.results.get(id(made))
        if result is None:
            return
        arrays = self._arrays(tensors)
        if value.kind == MEAN:
            pairs = [(self._mean(arrays), result)]
        else:
            pairs = [(array, value.extract(result, source)) for source, array in enumerate(arrays)]
        for expected, got in pairs:
            self._compare(call.name, expected, got)

    def output(self, value, tensors, made):
        """Compares an output of the model."""
        if not value.exact or value.kind == AFTER:
            return
        arrays, result = self._arrays(tensors), self.results[id(made)]
        if value.kind == GROWN and self.options.outputs == "concat":
            for source, array in enumerate(arrays):
                self._compare("an output", array, value.extract(result, source))
        else:
            self._compare("an output", self._mean(arrays), result)

    def _arrays(self, tensors):
        return [values[id(tensor)] for values, tensor in zip(self.sources, tensors, strict=True)]

    def _mean(self, arrays):
        if arrays[0].dtype.kind not in "fV":
            return arrays[0]
        pairs = zip(self.options.weights, arrays, strict=True)
        return sum(weight * array.astype("float64") for weight, array in pairs)

    def _compare(self, name, expected, got):
        if expected.shape != got.shape:
            raise FusionError(
                f"{name}: the fused model's tensor has the shape {got.shape} where the sources' "
                f"has {expected.shape}; the rule for this layer is wrong: {PLEASE_REPORT}"
            )
        if got.dtype.kind not in "fV":
            return
        spacing = _spacing(got.dtype)
        expected, got = expected.astype("float64"), got.astype("float64")
        scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        limit = min(0.1, max(_SINGLE, _ROUNDING * spacing)) * max(scale, 1e-3)
        with np.errstate(invalid="ignore"):
            distance = np.abs(got - expected)
        distance = np.max(distance, initial=0.0, where=np.isfinite(distance))
        if distance > limit or not np.array_equal(np.isnan(expected), np.isnan(got)):
            raise FusionError(
                f"{name}: on random inputs the fused model's tensor is {distance:.3g} away from "
                f"what the sources give, of at most {scale:.3g}. What this layer computes depends "
                "on more than its settings and weights, or the rule for it is wrong: "
                f"{PLEASE_REPORT}. check=False returns the model all the same"
            )


def _spacing(dtype):
    """Spacing of the numbers at one in which Keras computes arrays of a dtype.

    Keras converts float64 to float32 inside operations on every backend but TensorFlow.
    """
    name = keras.backend.result_type(keras.backend.standardize_dtype(dtype))
    return float(np.spacing(np.ones((), name)).astype("float64"))


def _inputs(graphs, length, shared):
    """Random inputs of each source, as arrays."""
    rows = [
        layer.input_dim
        for graph in graphs
        for layer in _keras.layers_in(graph.model)
        if isinstance(layer, keras.layers.Embedding)
    ]
    most = min(rows, default=3)
    drawn = []
    for seed, graph in enumerate(graphs):
        rng = np.random.default_rng(0 if shared else seed)
        drawn.append([_draw(rng, tensor.spec, length, most) for tensor in graph.inputs])
    return drawn


def _draw(rng, spec, length, most):
    shape = [
        (length if dim else _BATCH) if size is None else size for dim, size in enumerate(spec.shape)
    ]
    dtype = keras.backend.standardize_dtype(spec.dtype)
    if dtype == "string":
        return rng.choice(["a", "b c", "d"], size=shape)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "int" in dtype:
        return rng.integers(0, most, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def _evaluated(graph, arrays):
    """`{id of a tensor: array}` of all tensors of a graph."""
    tensors = {
        id(tensor): ops.convert_to_tensor(array, keras.backend.standardize_dtype(tensor.spec.dtype))
        for tensor, array in zip(graph.inputs, arrays, strict=True)
    }
    for call in graph.calls:
        args, kwargs = call.with_leaves([tensors.get(id(leaf), leaf) for leaf in call.leaves])
        outputs = run(call.operation, args, kwargs)
        tensors |= {id(t): out for t, out in zip(call.outputs, outputs, strict=True)}
    return {key: ops.convert_to_numpy(tensor) for key, tensor in tensors.items()}


@contextlib.contextmanager
def _linear_heads(planner):
    """While it is open, the layers that take the mean have no activation: the mean is before it."""
    layers = {
        id(layer): layer
        for plan in planner.layers.values()
        if plan.averages
        for outer in (*plan.sources, plan.made)
        for layer in (outer, getattr(outer, "layer", None))
        if getattr(layer, "activation", None) is not None
    }
    activations = {key: layer.activation for key, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.activation = keras.activations.linear
        yield
    finally:
        for key, layer in layers.items():
            layer.activation = activations[key]
