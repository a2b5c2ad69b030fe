"""Steps: the calls of the fused model, one for each call of the sources."""

import copy
import dataclasses
import types
from collections.abc import Callable, Mapping

import keras

from keras_fusion.graph.masks import masks_of
from keras_fusion.graph.values import Value, joined_parts, part, rearranged, repeats
from keras_fusion.layers.declarations import Declaration


class Refusal(Exception):
    """Why a call cannot be fused."""


@dataclasses.dataclass(eq=False)
class LayerPlan:
    """A layer of the fused model, made from one layer of each source.

    Args:
        sources: The layers.
        declaration: Their `Declaration`; None for a layer that is taken over as it is.
        layouts: `{axis: Layout}` of the axes that grow.
        averages: Whether the fused layer takes the mean of its outputs.
        linear: Whether its activation is left out, because a later step applies it.
        kind, config: Class and configuration of the fused layer.
    """

    sources: tuple
    declaration: Declaration | None = None
    layouts: Mapping = dataclasses.field(default_factory=dict)
    averages: bool = False
    linear: bool = False
    kind: type | None = None
    config: dict | None = None
    made: object = None

    @property
    def layer(self):
        """The fused layer, made when it is first asked for; without weights until it is called."""
        first = self.sources[0]
        if self.made is None and (
            hasattr(first, "adapt") or isinstance(first, keras.layers.Lambda)
        ):
            # What it learned from data is in no configuration, and never changes in training; a
            # function of the user's may have no name.
            self.made = first
        if self.made is None:
            kind = self.kind or type(self.sources[0])
            self.made = remade(self.sources[0], kind, self.config, self.linear)
        return self.made


@dataclasses.dataclass(eq=False)
class Step:
    """One call in the fused model.

    Args:
        values: `Value` of each output.
        operation: Returns the operation to call.
        changes: `{leaf: {dimension: (layout before, layout after)}}`: how inputs are rearranged.
        finish: Optional function from the outputs to the outputs, such as an activation that is
            applied to each source's part.
        apart: Function from `(args, kwargs)` leaves to outputs, in place of one call: the sources'
            parts are computed one by one.
    """

    values: list[Value]
    operation: Callable | None = None
    changes: Mapping = dataclasses.field(default_factory=dict)
    finish: Callable | None = None
    apart: Callable | None = None

    @property
    def is_plain(self):
        """True where it is one call of one operation on its inputs as they are."""
        return not (self.changes or self.finish or self.apart)

    @property
    def cuts(self):
        """True where tensors are cut or rearranged, and so lose a mask when the model runs."""
        changes = [change for dims in self.changes.values() for change in dims.values()]
        return bool(self.apart or self.finish) or not all(repeats(*change) for change in changes)

    def apply(self, call, leaves, made, by_hand=False):
        """Output tensors of the fused model, from the leaves of the call's arguments in it.

        Args:
            call: The first source's call.
            leaves: The leaves.
            made: List that the operation is added to that stands for the call's.
            by_hand: Whether the layer is given the masks that it would find on its tensors.
        """
        leaves = list(leaves)
        for number, dims in self.changes.items():
            for dim, (before, after) in dims.items():
                leaves[number] = rearranged(leaves[number], dim, before, after)
        if self.apart is not None:
            return self.apart(leaves)
        args, kwargs = call.with_leaves(leaves)
        operation = self.operation()
        made.append(operation)
        if by_hand:
            kwargs = kwargs | masks_of(operation, args, kwargs)
        outputs = keras.tree.flatten(operation(*args, **kwargs))
        return self.finish(outputs) if self.finish else outputs


def computed_apart(calls, inputs, join):
    """Function that computes a call for each source and joins the results.

    Args:
        calls: The call in each source.
        inputs: `{leaf: Value}` of the tensors.
        join: Function from the sources' lists of outputs to the outputs.
    """

    def apply(leaves):
        results = []
        for source, call in enumerate(calls):
            arguments = [
                part(leaf, inputs[number], source) if number in inputs else leaf
                for number, leaf in enumerate(leaves)
            ]
            args, kwargs = call.with_leaves(arguments)
            operation = copied(calls[source].operation, suffix=f"_{source}")
            kwargs = kwargs | masks_of(operation, args, kwargs)
            results.append(keras.tree.flatten(operation(*args, **kwargs)))
        return join(results)

    return apply


def joined(places, results):
    """Outputs of all sources side by side.

    Args:
        places: For each output, the dimension that keeps the sources apart and its `Layout`.
        results: List of outputs of each source.
    """
    outputs = zip(places, zip(*results, strict=True), strict=True)
    return [joined_parts(list(parts), dim, layout) for (dim, layout), parts in outputs]


def averaged(weights, results):
    """Weighted means of the outputs of all sources."""
    return [mean_of(list(parts), weights) for parts in zip(*results, strict=True)]


def mean_of(parts, weights):
    """The weighted mean of tensors of a graph, by a layer of its own."""
    dtype = parts[0].dtype
    if len(set(weights)) == 1:
        return keras.layers.Average(dtype=dtype)(parts)
    scaled = [part * weight for part, weight in zip(parts, weights, strict=True)]
    return keras.layers.Add(dtype=dtype)(scaled)


def activated_apart(activation, dim, layout):
    """Function that applies an activation to each source's part of the (only) output."""

    def finish(outputs):
        value = Value("grown", {dim: layout})
        parts = [part(outputs[0], value, source) for source in range(len(layout.sizes))]
        active = [keras.layers.Activation(activation, dtype=p.dtype)(p) for p in parts]
        return [joined_parts(active, dim, layout)]

    return finish


def copied(operation, suffix="", **attributes):
    """A layer without weights, or an operation, for use in another model.

    Args:
        operation: Layer or operation.
        suffix: Added to a layer's name.
        attributes: Of an operation (constructor arguments of a layer), with other values.
    """
    if isinstance(operation, keras.layers.Layer):
        config = operation.get_config() | attributes
        if suffix:
            config["name"] = f"{operation.name}{suffix}"
        return remade(operation, type(operation), config)
    other = copy.copy(operation)
    other._inbound_nodes, other._outbound_nodes = [], []
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def remade(layer, kind, config=None, linear=False):
    """A new layer from the configuration of one.

    What a configuration can only name, such as a function of the user's, is handed over itself.

    Args:
        layer: The layer.
        kind: Class of the new one.
        config: Its configuration; default the layer's.
        linear: Whether the activation is left out.
    """
    config = _unbuilt(layer.get_config() if config is None else config)
    functions = _functions(layer, config)
    for name, value in config.items():
        attribute = getattr(layer, name, None)
        if isinstance(value, str | dict) and callable(attribute) and not _is_plain(attribute):
            config[name] = attribute
    if linear:
        config["activation"] = None
    with keras.saving.CustomObjectScope(functions):
        return kind.from_config(config)


def _unbuilt(config):
    """A configuration without the shapes that layers inside were built with."""
    if isinstance(config, list):
        return list(map(_unbuilt, config))
    if not isinstance(config, dict):
        return config
    return {name: _unbuilt(value) for name, value in config.items() if name != "build_config"}


def _is_plain(value):
    """Returns whether a configuration is enough to make the value again."""
    return isinstance(value, keras.layers.Layer | types.MethodType)


def _functions(layer, settings):
    """`{name: function}` of the user's functions and classes that a layer holds.

    Args:
        layer: The layer.
        settings: Names of its settings.
    """
    named = {type(layer).__name__: type(layer)}
    parts = [(layer, settings), *((inner, inner.get_config()) for inner in _inside(layer))]
    for inner, names in parts:
        for name in names:
            value = getattr(inner, name, None)
            if isinstance(value, types.FunctionType) and not value.__module__.startswith("keras."):
                named[value.__name__] = value
    return named


def _inside(layer):
    cell = getattr(layer, "cell", None)
    inner = [getattr(layer, name, None) for name in ("layer", "forward_layer", "backward_layer")]
    return [value for value in (cell, *getattr(cell, "cells", ()), *inner) if value is not None]
