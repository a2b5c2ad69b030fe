"""Growing one model along some axes: it is fused with itself there, and stays as it is elsewhere.

A layer that grows makes a copy of its units for each source; the next layer that sums over them is
divided by the number of copies (AVG). What lies between has to treat each unit apart.
"""

import keras

from keras_fusion.compiling import compile_mismatches
from keras_fusion.errors import FusionError
from keras_fusion.graph.alignment import align
from keras_fusion.graph.declared import DeclaredCall
from keras_fusion.graph.fusing import GraphOptions, build_planned
from keras_fusion.graph.planning import Planner
from keras_fusion.graph.steps import Refusal, Step
from keras_fusion.graph.tracing import trace
from keras_fusion.graph.values import GROWN, Value
from keras_fusion.layers import checks
from keras_fusion.layers.declarations import UNDECLARED, declaration_of
from keras_fusion.record import recall, remember_growth

# The group of layers between two layers with weights, in no sum with anything else.
HIDDEN = "mlp"
_SUMS = ("Add", "Subtract", "Average")


def grow_graph(model, factors, *, noise, fill, asymmetry, check, optimizer):
    """Grows a built functional or sequential model; see `kf.grow`.

    Args:
        model: The model.
        factors: `{name: factor}`: names of layers, of axes inside layers, or "mlp".
        noise: A `Noise`.
        fill, asymmetry, check, optimizer: As for `kf.grow`.

    Raises:
        FusionError: Naming what cannot grow, and the layers that can; nothing is built then.
    """
    graph = trace(model)
    checks.raise_mismatches(compile_mismatches([model], optimizer))
    _axes_of(graph, factors)  # So that a wrong name is told before anything is built.
    for factor in dict.fromkeys(factors.values()):
        names = [name for name, times in factors.items() if times == factor]
        graph = trace(model)
        options = GraphOptions(
            weights=(1 / factor,) * factor, noise=noise, fill=fill, asymmetry=asymmetry
        )
        planner = GrowthPlanner(graph, _axes_of(graph, names), options)
        planner.run()
        planner.check_outputs()
        if planner.messages:
            raise FusionError(
                f"cannot grow {', '.join(names)}: {'; '.join(dict.fromkeys(planner.messages))}. "
                + _advice(graph)
            )
        grown = build_planned([model] * factor, planner, check, optimizer)
        remember_growth(grown, recall(model))
        model = grown
    return model


class GrowingCall(DeclaredCall):
    """A call of a layer that has a declaration: it grows what is asked for, and what it reads."""

    def is_shared(self):
        """True for a layer that is to stay as it is."""
        return id(self.call.operation) not in self.planner.axes

    def grown(self, layouts, averages):
        """Layouts of the axes that grow: those that are read, and those that are asked for."""
        del averages
        return self.with_made(layouts, self.planner.axes.get(id(self.call.operation), ())), {}


class GrowthPlanner(Planner):
    """Plans the fusion of a model with itself in which only some layers grow.

    Args:
        graph: The model's `Graph`.
        axes: `{id of a layer: names of its axes that grow}`.
        options: `GraphOptions`; their weights say how many copies there are.
        exploring: Whether a call that cannot take what grew is recorded, and taken as if it had
            read nothing that grew.
        joins_sums: Whether what grew may be added to something else that grew.

    Attributes:
        faults: Ids of the layers that grew what a call could not take.
    """

    declared_call = GrowingCall

    def __init__(self, graph, axes, options, exploring=False, joins_sums=True):
        graphs = [graph] * len(options.weights)
        pairs, _ = align(graphs)
        super().__init__(graphs, pairs, options)
        self.axes, self.faults = axes, set()
        self._exploring, self._joins_sums = exploring, joins_sums
        self._origins = {}

    def averaged_calls(self):
        """None: copies are equal, so that each layer that sums over them takes their mean."""
        return set()

    def step(self, calls):
        """The `Step` of a call; what it makes remembers the layers whose units it holds."""
        call = calls[0]
        read = set().union(*(self._origins.get(id(tensor), ()) for tensor in call.inputs))
        made = {id(call.operation)} & self.axes.keys()
        try:
            step = super().step(calls)
            if read or made:
                self._check_step(call, step)
        except (Refusal, FusionError):
            if not self._exploring:
                raise
            # What the call itself would grow is given up first.
            self.faults |= made or read
            return Step([Value() for _ in call.outputs], lambda: call.operation)
        for tensor, value in zip(call.outputs, step.values, strict=True):
            if value.kind == GROWN:
                self._origins[id(tensor)] = made or read
        return step

    def check_node(self, call):
        """As `Planner.check_node`."""
        try:
            super().check_node(call)
        except Refusal:
            if not self._exploring:
                raise
            self.faults |= set(self.axes)

    def check_outputs(self):
        """Adds messages on outputs that would grow."""
        for index, tensor in enumerate(self.graphs[0].outputs):
            value = self.values.get(id(tensor))
            if value is not None and value.kind == GROWN:
                self.messages.append(f"its units are those of output {index} of the model")
                self.faults |= self._origins[id(tensor)]

    def _check_step(self, call, step):
        """Raises where units that grew are not kept apart, or meet units that did not grow."""
        operation = call.operation
        grows = any(self.values[id(tensor)].kind == GROWN for tensor in call.inputs)
        if grows and _declared(call).keeps is not None:
            raise Refusal("it normalises over the units that would grow")
        if step.apart or step.finish:
            raise Refusal("it joins the units that would grow")
        if step.changes:
            raise Refusal(
                "it reads units that would grow beside others that would not; name the layers of "
                "both"
            )
        if not self._joins_sums and len(call.inputs) > 1 and type(operation).__name__ in _SUMS:
            raise Refusal("it adds the units that would grow to others")


def _axes_of(graph, names):
    """`{id of a layer: axes}` of what is to grow.

    Args:
        graph: The model's `Graph`.
        names: Names of layers, of axes inside layers, or "mlp".

    Raises:
        FusionError: Naming every name that stands for nothing, and those that can be given.
    """
    layers, axes, unknown = _every_layer(graph), {}, []
    paths = _paths(graph)
    for name in names:
        chosen = {key: axes_of_layer for key, axes_of_layer in layers.items() if name in paths[key]}
        if not chosen:
            chosen = _group(graph, name)
        if not chosen:
            unknown.append(name)
        for key, axes_of_layer in chosen.items():
            axes[key] = axes.get(key, frozenset()) | axes_of_layer
    if unknown:
        inside = {axis for call in graph.calls for axis in _declared(call).alone}
        raise FusionError(
            f"cannot grow {', '.join(unknown)}: the model has no such layers that grow. Groups: "
            f"{', '.join(sorted({HIDDEN, *inside}))}. {_advice(graph)}"
        )
    return axes


def _group(graph, name):
    """`{id of a layer: axes}` of layers that have an axis of a name inside them, or of "mlp"."""
    group = {
        id(call.operation): frozenset(declared.alone[name])
        for call in graph.calls
        if name in (declared := _declared(call)).alone
    }
    if name == HIDDEN:
        hidden = {
            id(call.operation): frozenset(declared.made_axes)
            for call in graph.calls
            if (declared := _declared(call)).averages
            and not declared.alone
            and any(axes.sums for axes in declared.weights.values())
        }
        group |= {key: hidden[key] for key in _growing_together(graph, hidden, joins_sums=False)}
    return group


def _growing_together(graph, axes, joins_sums=True):
    """Ids of those layers that can grow in one model at the same time.

    Args:
        graph: The model's `Graph`.
        axes: `{id of a layer: axes}` of the layers in question.
        joins_sums: Whether what grew may be added to something else that grew.
    """
    options = GraphOptions(weights=(0.5, 0.5))
    while axes:
        planner = GrowthPlanner(graph, axes, options, exploring=True, joins_sums=joins_sums)
        planner.run()
        planner.check_outputs()
        faults = planner.faults & axes.keys()
        if not faults:
            break
        axes = {key: axes_of_layer for key, axes_of_layer in axes.items() if key not in faults}
    return set(axes)


def _every_layer(graph):
    """`{id of a layer: axes}` of every layer that makes units, or has some inside it."""
    layers = {}
    for call in graph.calls:
        declared = _declared(call)
        inside = frozenset(axis for axes in declared.alone.values() for axis in axes)
        layers[id(call.operation)] = inside or frozenset(declared.made_axes)
    return {key: axes for key, axes in layers.items() if axes}


def _declared(call):
    """The `Declaration` of a call's layer; an empty one of what has none."""
    is_layer = isinstance(call.operation, keras.layers.Layer)
    return (declaration_of(call.operation) if is_layer else None) or UNDECLARED


def _paths(graph):
    """`{id of a layer: its names}`: its own, and that behind the nested models that it is in."""
    paths = {}
    for call in graph.calls:
        path = "/".join(node.operation.name for node in call.place)
        paths.setdefault(id(call.operation), {call.operation.name}).add(path)
    return paths


def _advice(graph):
    """Names of the layers that can grow."""
    layers = _growing_together(graph, _every_layer(graph))
    paths, count = _paths(graph), {}
    for names in paths.values():
        for name in names:
            count[name] = count.get(name, 0) + 1
    shown = [
        min((name for name in names if count[name] == 1), key=len, default=min(names, key=len))
        for key, names in paths.items()
        if key in layers
    ]
    return f"Layers that can grow: {', '.join(shown) or 'none'}"
