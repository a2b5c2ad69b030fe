"""The graph of a functional or sequential model, nested models opened, as calls of operations."""

import dataclasses
import functools
import inspect

import keras

from keras_fusion import _keras
from keras_fusion.errors import FusionError


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor of a graph.

    Args:
        spec: The `keras.KerasTensor`, which has its shape and dtype.
        call: The `Call` that made it; None for an input of the model.
        index: Its number among the outputs of the call, or among the model's inputs.
    """

    spec: object
    call: "Call | None"
    index: int


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or operation.

    Args:
        operation: The layer, or the operation of a sum of tensors, say.
        args, kwargs: Arguments of the call; where there were tensors, there are `Tensor`s.
        place: `(enclosing calls of nested models, node)`: where it is in the model.
        settings: Keyword arguments of the enclosing calls, such as `training=False`.
        outputs: Tensors that it made.
    """

    operation: object
    args: tuple
    kwargs: dict
    place: tuple
    settings: tuple
    outputs: list[Tensor] = dataclasses.field(default_factory=list)

    @property
    def leaves(self):
        """Arguments in the order in which a tree of them is flattened."""
        return keras.tree.flatten((self.args, self.kwargs))

    @property
    def inputs(self):
        """Tensors among the arguments."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def name(self):
        """Name of its layer or operation, as messages show it."""
        operation = self.operation
        if isinstance(operation, keras.layers.Layer):
            return f"layer `{operation.name}` ({type(operation).__name__})"
        return f"operation `{operation.name}` ({type(operation).__name__})"

    def with_leaves(self, leaves):
        """`(args, kwargs)` with other leaves."""
        return keras.tree.pack_sequence_as((self.args, self.kwargs), leaves)


@dataclasses.dataclass(eq=False)
class Graph:
    """The calls of a model, in the order in which they are computed.

    Args:
        model: The model.
        inputs: Its input tensors.
        outputs: Its output tensors.
        calls: All calls, those inside nested models in place of the calls of these.
        nested: Tensors that go into nested models and come out, also those that nothing reads.
        tensors: `{(enclosing calls, id of the keras tensor): Tensor}`.
    """

    model: object
    inputs: list[Tensor] = dataclasses.field(default_factory=list)
    outputs: list[Tensor] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)
    nested: list[Tensor] = dataclasses.field(default_factory=list)
    tensors: dict = dataclasses.field(default_factory=dict)

    def consumers(self):
        """`{id of a tensor: calls that read it}`."""
        readers = {}
        for call in self.calls:
            for tensor in call.inputs:
                readers.setdefault(id(tensor), []).append(call)
        return readers


def run(operation, args, kwargs):
    """Output tensors of an operation on values, as in inference.

    Layers that augment images act as in training where they are not told otherwise.
    """
    if "training" in parameters(type(operation)):
        kwargs = kwargs | {"training": False}
    return keras.tree.flatten(operation(*args, **kwargs))


@functools.lru_cache(maxsize=1024)
def parameters(kind):
    """Names of the arguments of `call` of a class of layers or operations."""
    return tuple(name for name in inspect.signature(kind.call).parameters if name != "self")


def trace(model):
    """The `Graph` of a built functional or sequential model.

    Examples:
        >>> [call.operation.name for call in trace(model).calls]
        ['dense', 'dense_1']
    """
    graph = Graph(model)
    graph.inputs = [Tensor(spec, None, index) for index, spec in enumerate(model.inputs)]
    graph.outputs = _open(graph, model, graph.inputs, (), ())
    return graph


def _open(graph, model, inputs, place, settings):
    """Adds the calls inside a model, and returns its output tensors."""
    tensors = {id(spec): tensor for spec, tensor in zip(model.inputs, inputs, strict=True)}
    for node in _keras.nodes(model):
        if node.is_input:
            continue
        args, kwargs = keras.tree.map_structure(
            lambda leaf, tensors=tensors: tensors.get(id(leaf), leaf),
            (node.arguments.args, node.arguments.kwargs),
        )
        if _keras.is_functional(node.operation):
            given, options = _given(node.operation, args, kwargs)
            outputs = _open(graph, node.operation, given, (*place, node), (*settings, options))
            graph.nested += [*given, *outputs, *_tensors_in(kwargs)]
        else:
            call = Call(node.operation, args, kwargs, (*place, node), settings)
            outputs = call.outputs = [
                Tensor(spec, call, index) for index, spec in enumerate(node.outputs)
            ]
            graph.calls.append(call)
        tensors |= {id(spec): tensor for spec, tensor in zip(node.outputs, outputs, strict=True)}
    graph.tensors |= {
        (tuple(map(id, place)), identity): tensor for identity, tensor in tensors.items()
    }
    return [tensors[id(spec)] for spec in model.outputs]


def _tensors_in(kwargs):
    """Tensors among keyword arguments, such as the mask that Keras hands to a nested model."""
    return [leaf for leaf in keras.tree.flatten(kwargs) if isinstance(leaf, Tensor)]


def _given(model, args, kwargs):
    """Tensors that a nested model reads, in the order of its inputs, and its other arguments."""
    kwargs = dict(kwargs)
    inputs = args[0] if args else kwargs.pop("inputs")
    struct, _ = _keras.structures(model)
    if isinstance(struct, dict) and isinstance(inputs, dict):
        inputs = {name: inputs[name] for name in struct}
    tensors = keras.tree.flatten(inputs)
    if len(tensors) != len(model.inputs):
        raise FusionError(
            f"cannot fuse: model `{model.name}` has {len(model.inputs)} inputs and is called on "
            f"{len(tensors)} tensors; call it on its inputs alone"
        )
    return tensors, {
        name: "a tensor" if isinstance(value, Tensor) else value for name, value in kwargs.items()
    }
