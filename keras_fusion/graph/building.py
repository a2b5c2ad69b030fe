"""Building the fused model from its plan: its layers call one another as the first source's do.

Every weight is born from the sources' blocks: none is initialised first and then overwritten.
"""

import keras

from keras_fusion import _keras
from keras_fusion.graph.steps import mean_of
from keras_fusion.graph.values import GROWN, part
from keras_fusion.layers.fusing import join
from keras_fusion.layers.tree import own_weights_inside, to_numpy
from keras_fusion.layers.values import ArrayInitializer
from keras_fusion.operator import FusedArray
from keras_fusion.record import FusedWeight


class Builder:
    """Builds the fused model.

    Args:
        graph: The first source's `Graph`.
        planner: A `Planner` that has run, without messages.
        options: `GraphOptions`.
        noise: The `Noise` that weights are born with.

    Attributes:
        made: `{id of a keras tensor of the first source: that of the fused model}`.
        arrays: `{id of a variable: the FusedArray that it was born from}`.
        origins: `{id of a variable: the sources' variables}`.
    """

    def __init__(self, graph, planner, options, noise):
        self.graph, self.planner, self.options = graph, planner, options
        self._noise = noise
        self._calls = {}
        for call in graph.calls:
            self._calls.setdefault(id(call.place[-1]), call)
        self._models, self._nodes_made = {}, {}
        self._made_operations = []
        self.made, self.arrays, self.origins = {}, {}, {}

    def build(self):
        """Returns the fused model; its weights have their values."""
        with _keras.deferred():
            model = self._model(self.graph.model, (), is_root=True)
        weights = [
            entry for plan in self.planner.layers.values() for entry in self._give_weights(plan)
        ]
        for variable in model.variables:
            if _keras.value_of(variable) is None:
                _keras.initialize(variable)
        for layer in _keras.layers_in(model):
            for generator in _keras.seed_generators(layer):
                if _keras.value_of(generator.state) is None:
                    _keras.initialize(generator.state)
        return model, weights

    def _model(self, model, place, is_root=False):
        """A model of the fused network, in place of a model of the first source."""
        if id(model) in self._models:
            return self._models[id(model)]
        if isinstance(model, keras.Sequential) and self._is_a_chain(model, is_root):
            # A mask is computed by operations of its own, which come along with the layer.
            nodes = [n for n in self._nodes(model) if isinstance(n.operation, keras.layers.Layer)]
            fused = _keras.class_to_make(model)(
                [self._input(model.inputs[0], place), *map(self._operation, nodes)],
                name=model.name,
            )
            fused_nodes = [
                n for n in self._nodes(fused) if isinstance(n.operation, keras.layers.Layer)
            ]
            for node, made in zip(nodes, fused_nodes, strict=True):
                self._nodes_made[id(node)] = made
                self.made |= {
                    id(spec): out for spec, out in zip(node.outputs, made.outputs, strict=True)
                }
        else:
            fused = self._functional(model, place, is_root)
        fused.trainable = model.trainable
        self._models[id(model)] = fused
        return fused

    def _nodes(self, model):
        return [node for node in _keras.nodes(model) if not node.is_input]

    def _is_a_chain(self, model, is_root):
        """Returns whether a sequential model stays one: nothing comes between its layers."""
        for node in self._nodes(model):
            call = self._calls.get(id(node))
            if call is not None and not self.planner.steps[id(call)].is_plain:
                return False
        outputs = [self.planner.values[id(tensor)] for tensor in self.graph.outputs]
        ends = is_root and self.options.outputs != "concat"
        return not (ends and any(value.kind == GROWN for value in outputs))

    def _operation(self, node):
        call = self._calls.get(id(node))
        if call is None:
            return self._model(node.operation, self._place_of(node))
        return self.planner.steps[id(call)].operation()

    def _place_of(self, node):
        """Enclosing calls of what is inside the model that a node calls."""
        for call in self.graph.calls:
            if any(node is outer for outer in call.place[:-1]):
                index = next(i for i, outer in enumerate(call.place) if outer is node)
                return call.place[: index + 1]
        return ()

    def _input(self, spec, place):
        tensor = self.graph.tensors[(tuple(map(id, place)), id(spec))]
        value = self.planner.values.get(id(tensor))
        shape = value.shape(spec.shape) if value is not None else spec.shape
        layer = _keras.operation_of(spec)
        return keras.Input(
            batch_shape=shape,
            dtype=spec.dtype,
            sparse=spec.sparse,
            name=layer.name,
            optional=getattr(layer, "optional", False),
        )

    def _functional(self, model, place, is_root):
        inputs_struct, outputs_struct = _keras.structures(model)
        tensors = {id(spec): self._input(spec, place) for spec in model.inputs}
        self._made_operations += map(_keras.operation_of, tensors.values())
        inputs = keras.tree.map_structure(lambda spec: tensors[id(spec)], inputs_struct)
        for node in self._nodes(model):
            leaves = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
            leaves = [tensors.get(id(leaf), leaf) for leaf in leaves]
            call = self._calls.get(id(node))
            if call is not None and id(call) in self.planner.steps:
                outputs = self.planner.steps[id(call)].apply(
                    call, leaves, self._made_operations, self.planner.masks.by_hand
                )
            elif call is None:
                nested = self._model(node.operation, self._place_of(node))
                self._made_operations.append(nested)
                args, kwargs = keras.tree.pack_sequence_as(
                    (node.arguments.args, node.arguments.kwargs), leaves
                )
                outputs = keras.tree.flatten(nested(*args, **kwargs))
                self._nodes_made[id(node)] = _keras.node_of(outputs[0])
            else:
                continue
            for spec, tensor in zip(node.outputs, outputs, strict=True):
                tensors[id(spec)] = tensor
                self.made[id(spec)] = tensor
        ends = {}
        if is_root:
            for spec, tensor in zip(model.outputs, self.graph.outputs, strict=True):
                before = tensors[id(spec)]
                tensors[id(spec)] = self._averaged(before, tensor)
                step = self.planner.steps.get(id(tensor.call))
                if tensors[id(spec)] is not before or (step is not None and step.apart):
                    end = _keras.operation_of(tensors[id(spec)])
                    ends[id(end)] = _keras.operation_of(spec).name
        self._name(model, [tensors[id(spec)] for spec in model.outputs], ends)
        outputs = keras.tree.map_structure(lambda spec: tensors[id(spec)], outputs_struct)
        sequential = isinstance(model, keras.Sequential)
        kind = keras.Model if sequential else _keras.class_to_make(model)
        return kind(inputs, outputs, name=model.name)

    def _averaged(self, tensor, output):
        """An output whose mean no layer has taken."""
        value = self.planner.values[id(output)]
        if value.kind != GROWN or self.options.outputs == "concat":
            return tensor
        weights = self.options.weights
        return mean_of([part(tensor, value, source) for source in range(len(weights))], weights)

    def _name(self, model, outputs, ends):
        """Gives what was added names of its own, and an averaged output the name that it had.

        Args:
            model: The first source's model.
            outputs: Output tensors of the fused one.
            ends: `{id of the layer that averages an output: the output's name in the source}`.
        """
        operations = _keras.operations_of(outputs)
        taken = {node.operation.name for node in _keras.nodes(model)}
        taken |= {operation.name for operation in operations}
        made, given = set(map(id, self._made_operations)), set()
        for operation in operations:
            if id(operation) in ends and ends[id(operation)] not in given:
                operation.name = ends[id(operation)]
                given.add(operation.name)
            elif operation.name in ends.values():
                operation.name = _unused(f"{operation.name}_sources", taken)
            elif id(operation) not in made:
                operation.name = _unused(operation.name, taken)

    def _give_weights(self, plan):
        """Gives a layer's variables their values; returns what the report says of each."""
        if plan.made is None or plan.made is plan.sources[0]:
            return []
        sources = [own_weights_inside(layer) for layer in plan.sources]
        if plan.declaration is None or not plan.declaration.weights:
            # Equal in all sources.
            for variable, origin in zip(
                plan.made.variables, plan.sources[0].variables, strict=False
            ):
                if _keras.value_of(variable) is None:
                    _keras.initialize(variable, ArrayInitializer(to_numpy(origin)))
            return []
        entries = []
        arrays = zip(*(arrays_of_source.values() for arrays_of_source in sources), strict=True)
        fused = own_weights_inside(plan.made)
        for (path, variable), source_path, variables in zip(
            fused.items(), sources[0], arrays, strict=True
        ):
            axes = plan.declaration.weights[source_path]
            # One array for a source that stands there several times, which need not be compared.
            values = {id(v): to_numpy(v) for v in variables}
            array = FusedArray(
                [values[id(v)] for v in variables],
                axes,
                plan.layouts,
                noise=self._noise,
                path=join(plan.made.name, path),
                weights=self.options.weights,
                shares=self.options.shares(len(variables)),
            )
            _keras.initialize(variable, ArrayInitializer(array))
            entries.append(FusedWeight(array.path, variable, axes, array.layouts, array.averages))
            self.arrays[id(variable)] = array
            self.origins[id(variable)] = variables
        return entries

    def counterpart(self, target, call, index):
        """The tensor of the fused graph that stands for an output of a call; None without one.

        Args:
            target: `Graph` of the fused model.
            call: A call of the first source.
            index: Number of its output.
        """
        *outer, node = call.place
        place = tuple(id(self._nodes_made.get(id(enclosing))) for enclosing in outer)
        made = self.made.get(id(node.outputs[index]))
        return target.tensors.get((place, id(made)))


def _unused(name, taken):
    """A name that is not taken, which takes it."""
    stem, number = name, 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
