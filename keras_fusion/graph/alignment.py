"""Pairs of calls of several sources: graphs are compared from their outputs back."""

import dis
import types

import keras
import numpy as np
from keras import ops

from keras_fusion.graph.tracing import Tensor
from keras_fusion.layers import checks


def align(graphs):
    """Pairs the calls of graphs of one structure.

    Two calls pair where they are of one class, read the same tensors under the same arguments, and
    what reads them pairs. Nothing is paired by a name, a shape or an order of creation.

    Args:
        graphs: `Graph`s, one for each source.

    Returns:
        `{id of a call of the first graph: calls, one for each source}`, and messages that name
        every difference.
    """
    counts = [len({id(call.operation) for call in graph.calls}) for graph in graphs]
    messages = []
    for counted, sizes in (
        ("inputs", [len(graph.inputs) for graph in graphs]),
        ("outputs", [len(graph.outputs) for graph in graphs]),
        ("layers", counts),
    ):
        if len(set(sizes)) > 1:
            messages.append(f"number of {counted}: " + " vs ".join(map(str, sizes)))
    if messages:
        return {}, messages
    walk = _Walk(len(graphs))
    if len({len(graph.nested) for graph in graphs}) > 1:
        return {}, ["number of nested models' inputs and outputs differs"]
    roots = [[*graph.outputs, *graph.nested] for graph in graphs]
    pending = [(tensors, "an output") for tensors in zip(*roots, strict=True)][::-1]
    while pending:
        pending += walk.visit(*pending.pop())
    return walk.pairs, walk.messages


class _Walk:
    """The pairs found so far, and what does not pair."""

    def __init__(self, num_sources):
        self.pairs, self.messages = {}, []
        self._layers = {}
        self._partners = [{} for _ in range(num_sources - 1)]

    def visit(self, tensors, reader):
        """Pairs the calls that made tensors; returns the tensors to visit next, with their reader.

        Args:
            tensors: A tensor of each source.
            reader: Name of what reads them.
        """
        calls = [tensor.call for tensor in tensors]
        if any(call is None for call in calls):
            if len({tensor.index for tensor in tensors}) > 1 or any(calls):
                self._differ(
                    f"{reader}: it reads",
                    [f"input {t.index}" if t.call is None else t.call.name for t in tensors],
                )
            return []
        partners = self.pairs.get(id(calls[0]))
        if partners is not None:
            if any(a is not b for a, b in zip(partners, calls, strict=True)) or self._indices(
                tensors
            ):
                self._differ("where it is read again", [call.name for call in calls])
            return []
        if len({type(call.operation) for call in calls}) > 1 or self._indices(tensors):
            self._differ("structure", [call.name for call in calls])
            return []
        if len({len(call.outputs) for call in calls}) > 1:
            counts = " vs ".join(str(len(call.outputs)) for call in calls)
            self.messages.append(f"{calls[0].name}: it has {counts} outputs")
            return []
        self.pairs[id(calls[0])] = tuple(calls)
        self._check_partners(calls)
        return self._arguments(calls)

    def _indices(self, tensors):
        return len({tensor.index for tensor in tensors}) > 1

    def _check_partners(self, calls):
        """One call of a source pairs with one of every other; so does a layer called twice."""
        first, *others = calls
        for partners, other in zip(self._partners, others, strict=True):
            for mine, its in ((first, other), (first.operation, other.operation)):
                back = partners.setdefault(("back", id(its)), mine)
                there = partners.setdefault(("there", id(mine)), its)
                if back is not mine or there is not its:
                    self._differ("sharing of layers", [call.name for call in calls])

    def _arguments(self, calls):
        leaves = [call.leaves for call in calls]
        name = calls[0].name
        if len(set(map(len, leaves))) > 1 or len({_shape(call) for call in calls}) > 1:
            self.messages.append(f"{name}: it is called with other arguments in another source")
            return []
        following = []
        for values in zip(*leaves, strict=True):
            tensors = [isinstance(value, Tensor) for value in values]
            if all(tensors):
                following.append(values)
            elif any(tensors) or not all(same(values[0], value) for value in values[1:]):
                shown = " vs ".join(map(_shown, values))
                self.messages.append(f"{name}: an argument of its call is {shown}")
        settings = [call.settings for call in calls]
        if any(other != settings[0] for other in settings[1:]):
            self.messages.append(f"{name}: its model is called with {settings[0]} vs {settings[1]}")
        return [(tensors, name) for tensors in following[::-1]]

    def _differ(self, subject, names):
        separator = " " if subject.endswith("reads") else ": "
        self.messages.append(subject + separator + " vs ".join(names))


def _shown(value):
    """An argument as a message shows it."""
    if isinstance(value, Tensor):
        return "a tensor"
    shape = getattr(value, "shape", ())
    return f"a constant of shape {tuple(shape)}" if shape else repr(value)


def _shape(call):
    """Argument names and nesting of a call; in a file a tuple becomes a list."""

    def nesting(value):
        if isinstance(value, dict):
            return tuple((key, nesting(part)) for key, part in value.items())
        return tuple(map(nesting, value)) if isinstance(value, list | tuple) else None

    return nesting((call.args, call.kwargs))


def same(first, second, compared=()):
    """Returns whether two arguments or attributes mean the same.

    Args:
        first, second: The values.
        compared: Ids of the functions that are being compared, which may read one another.
    """
    if first is second:
        return True
    if isinstance(first, types.FunctionType) and isinstance(second, types.FunctionType):
        pair = (id(first), id(second))
        return pair in compared or _same_function(first, second, (*compared, pair))
    if any(isinstance(value, np.ndarray) or ops.is_tensor(value) for value in (first, second)):
        arrays = [np.asarray(ops.convert_to_numpy(value)) for value in (first, second)]
        return np.array_equal(*arrays)
    if type(first) is not type(second):
        return False
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(
            same(*pair, compared) for pair in zip(first, second, strict=True)
        )
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key], compared) for key in first
        )
    try:
        return bool(first == second) or _configured(first) == _configured(second)
    except (TypeError, ValueError):
        return False


def _configured(value):
    """Class and configuration of an object of Keras; the object itself for any other."""
    if not hasattr(value, "get_config"):
        return value
    config = value.get_config()
    return type(value), {key: part for key, part in config.items() if key != "name"}


def _same_function(first, second, compared):
    """Returns whether functions have one code and equal constants, and read equal values."""
    return _same_code(first.__code__, second.__code__) and same(
        _values_read(first), _values_read(second), compared
    )


def _values_read(function):
    """Returns what a function reads besides its arguments: defaults, closure, globals."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    values, codes = {}, [function.__code__]
    while codes:
        code = codes.pop()
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname == "LOAD_GLOBAL" and name in function.__globals__:
                values[name] = function.__globals__[name]
    return [function.__defaults__, function.__kwdefaults__, cells, values]


def _same_code(first, second):
    if (first.co_code, first.co_names) != (second.co_code, second.co_names):
        return False
    return len(first.co_consts) == len(second.co_consts) and all(
        _same_code(a, b)
        if isinstance(a, types.CodeType) and isinstance(b, types.CodeType)
        else same(a, b)
        for a, b in zip(first.co_consts, second.co_consts, strict=True)
    )


def setting_mismatches(operations, sizes=()):
    """`setting: a vs b` for every setting in which operations of one class differ.

    Args:
        operations: Layers or operations, one for each source.
        sizes: Constructor arguments that may differ.
    """
    if not isinstance(operations[0], keras.layers.Layer):
        plain = [
            {
                key: value
                for key, value in vars(operation).items()
                if not key.startswith("_") and key != "name"
            }
            for operation in operations
        ]
        return [
            f"{key}: " + " vs ".join(repr(settings.get(key)) for settings in plain)
            for key in plain[0]
            if key not in sizes
            and not all(same(plain[0][key], settings.get(key)) for settings in plain[1:])
        ]
    try:
        configs = [layer.get_config() for layer in operations]
    except (TypeError, ValueError, NotImplementedError) as error:
        return [
            f"its settings cannot be read ({' '.join(str(error).split())[:200]}); use functions "
            "or objects that are registered with keras.saving"
        ]
    functions = _functions(operations[0], configs[0])
    messages = checks.differing_fields(configs, (*sizes, *functions))
    if hasattr(operations[0], "get_vocabulary"):
        vocabularies = [layer.get_vocabulary() for layer in operations]
        if any(list(other) != list(vocabularies[0]) for other in vocabularies[1:]):
            messages.append(
                "vocabulary: other words, received "
                + " vs ".join(f"{len(v)}" for v in vocabularies)
            )
    for name in functions:
        values = [getattr(layer, name, None) for layer in operations]
        if not all(same(values[0], value) for value in values[1:]):
            messages.append(f"{name}: functions of one name that compute other things")
    return messages


def _functions(layer, names):
    """Those of a layer's settings, by name, that are functions of the user's."""
    return [
        name
        for name in names
        if isinstance(value := getattr(layer, name, None), types.FunctionType)
        and not value.__module__.startswith("keras.")
    ]
