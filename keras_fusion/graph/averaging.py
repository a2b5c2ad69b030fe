"""The calls that take the mean of the sources: those that make the outputs of the model."""

import keras

from keras_fusion.graph.trials import activations_of, tried
from keras_fusion.graph.values import AFTER, MEAN, SHARED, Value
from keras_fusion.layers.declarations import declaration_of
from keras_fusion.layers.tree import own_weights_inside


def averaged_calls(graph, pairs, options):
    """Ids of the calls whose layers take the mean of their outputs (AVG).

    An output is averaged in the layers that it comes from, the last ones with weights on the way
    to it, where these are linear in their weights and nothing inside the model reads what lies
    between. Every other output is averaged behind the model's last layer.

    Args:
        graph: The first source's `Graph`.
        pairs: `{id of a call: calls of all sources}`.
        options: `GraphOptions`.
    """
    if options.outputs == "concat":
        return set()
    ways = [_Way(graph, pairs, tensor, options) for tensor in graph.outputs]
    readers = graph.consumers()
    calls_of = {}
    for call in graph.calls:
        calls_of.setdefault(id(call.operation), []).append(call)
    while True:
        good = [way for way in ways if way.possible]
        inside = {id(call) for way in good for call in way.between}
        heads = {id(call) for way in good for call in way.heads}
        for way in good:
            alone = all(
                id(reader) in inside
                for tensor in way.tensors
                if tensor.call is not None and _is_learned(tensor, way)
                for reader in readers.get(id(tensor), ())
            )
            always = all(
                id(call) in heads for head in way.heads for call in calls_of[id(head.operation)]
            )
            way.possible = alone and always
        if all(way.possible for way in good):
            return heads


def _is_learned(tensor, way):
    """Returns whether a tensor depends on a head, and so holds a mean."""
    return id(tensor) in way.means


class _Way:
    """The way from the last layers with weights to one output.

    Attributes:
        heads: Calls of these layers.
        between: Calls between them and the output.
        tensors: What the heads and the calls between make.
        means: Ids of those tensors that depend on a head.
        possible: Whether the mean can be taken in the heads.
    """

    def __init__(self, graph, pairs, output, options):
        self.heads, self.between, self.tensors = [], [], []
        self._walk(output)
        order = {id(call): number for number, call in enumerate(graph.calls)}
        self.between.sort(key=lambda call: order[id(call)])
        self.means = {id(tensor) for call in self.heads for tensor in call.outputs}
        for call in self.between:
            if any(id(tensor) in self.means for tensor in call.inputs):
                self.means |= set(map(id, call.outputs))
        # A further output, such as an attention's scores, is no linear function of the weights.
        alone = all(len(call.outputs) == 1 for call in self.heads)
        linear = alone and all(
            _is_linear(call) and _have_one_shape(pairs[id(call)]) for call in self.heads
        )
        self.possible = linear and self._keeps_means(pairs, options)

    def _walk(self, output):
        pending, visited = [output], set()
        while pending:
            tensor = pending.pop()
            if id(tensor) in visited:
                continue
            visited.add(id(tensor))
            self.tensors.append(tensor)
            call = tensor.call
            if call is None or any(call is other for other in (*self.heads, *self.between)):
                continue
            operation = call.operation
            learned = isinstance(operation, keras.layers.Layer) and (
                declaration_of(operation) is not None or own_weights_inside(operation)
            )
            if learned:
                self.heads.append(call)
            else:
                self.between.append(call)
                pending += call.inputs

    def _keeps_means(self, pairs, options):
        """Returns whether every call between maps means to means, or ends the way."""
        if options.average == "outputs":
            return not any(
                id(tensor) in self.means for call in self.between for tensor in call.inputs
            ) and all(_activation_is_linear(call.operation) for call in self.heads)
        kinds = {
            id(tensor): MEAN if _activation_is_linear(call.operation) else AFTER
            for call in self.heads
            for tensor in call.outputs
        }
        for call in self.between:
            inputs = [kinds.get(id(tensor), SHARED) for tensor in call.inputs]
            if not {MEAN, AFTER} & set(inputs):
                continue
            values = {
                number: Value(kinds.get(id(leaf), SHARED))
                for number, leaf in enumerate(call.leaves)
                if any(leaf is tensor for tensor in call.inputs)
            }
            kind = AFTER
            if AFTER not in inputs and tried(pairs[id(call)], values).linear(options.weights):
                kind = MEAN
            elif len(inputs) > 1:
                return False
            kinds |= dict.fromkeys(map(id, call.outputs), kind)
        return True


def _have_one_shape(calls):
    """Returns whether what a layer makes has one shape in all sources, and so a mean."""
    return len({tuple(call.outputs[0].spec.shape) for call in calls}) == 1


def _is_linear(call):
    """Returns whether a layer is, before its activation, linear in its weights."""
    declaration = declaration_of(call.operation)
    return declaration is not None and declaration.averages


def _activation_is_linear(layer):
    return all(function is keras.activations.linear for function in activations_of(layer))
