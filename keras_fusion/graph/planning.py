"""Planning a fusion: along every edge of the sources' graphs, what grew and where each source lies.

Tensors that lead to an output through no layer with weights are averaged in the layers that make
them, where these are linear in their weights (section 3.1, DF = AVG ∘ F). All other layers with
weights grow. Nothing is built here.
"""

import dataclasses
import inspect

import keras
import numpy as np

from keras_fusion.axes import Joined, Layout, Stacked
from keras_fusion.errors import FusionError
from keras_fusion.graph import movers
from keras_fusion.graph.alignment import setting_mismatches
from keras_fusion.graph.averaging import averaged_calls
from keras_fusion.graph.steps import (
    LayerPlan,
    Step,
    activated_apart,
    computed_apart,
    copied,
)
from keras_fusion.graph.tracing import Tensor
from keras_fusion.graph.trials import acts_on_units_apart, tensor_leaves, tried
from keras_fusion.graph.values import AFTER, GROWN, MEAN, SHARED, Value, grown
from keras_fusion.layers.declarations import declaration_of, names_of
from keras_fusion.layers.fusing import unusable_values
from keras_fusion.layers.tree import own_weights_inside, to_numpy

_CONCATENATIONS = ("Concatenate", "Hstack", "Vstack")
_RESHAPES = ("Flatten", "Reshape")
# Arguments that hold sizes in ways of their own; the shapes of the weights are compared.
_SIZES = ("output_shape", "groups", "filters")


class Refusal(Exception):
    """Why a call cannot be fused."""


class Planner:
    """Plans the fused model.

    Args:
        graphs: `Graph` of each source.
        pairs: `{id of a call of the first: calls}` from `alignment.align`.
        options: `GraphOptions`.

    Attributes:
        values: `{id of a tensor of the first graph: Value}`.
        steps: `{id of a call of the first graph: Step}`.
        layers: `{id of a layer of the first source: LayerPlan}`.
        messages: What keeps the sources from being fused.
    """

    def __init__(self, graphs, pairs, options):
        self.graphs, self.pairs, self.options = graphs, pairs, options
        self.num_sources = len(graphs)
        self.values, self.steps, self.layers, self.messages = {}, {}, {}, []
        self.equal_sources = all(graph is graphs[0] for graph in graphs[1:])
        self._at_nodes = {}

    def run(self):
        """Fills `values`, `steps` and `layers`, or `messages`."""
        for tensors in zip(*(graph.inputs for graph in self.graphs), strict=True):
            self._input(tensors)
        self.averaged = averaged_calls(self.graphs[0], self.pairs, self.options)
        broken = set()
        for call in self.graphs[0].calls:
            if id(call) not in self.pairs:
                continue  # Nothing that leaves the model needs it.
            if any(id(tensor) in broken for tensor in call.inputs):
                # What it reads is not known, but its settings are compared all the same.
                broken |= set(map(id, call.outputs))
                operations = [each.operation for each in self.pairs[id(call)]]
                settings = setting_mismatches(operations, (*_SIZES, *_sized(call.operation)))
                self.messages += [f"{call.name}: {'; '.join(settings)}"] if settings else []
                continue
            try:
                step = self._step(self.pairs[id(call)])
                self._check_node(call)
            except (Refusal, FusionError) as error:
                self.messages.append(f"{call.name}: {error}")
                broken |= set(map(id, call.outputs))
                continue
            self.steps[id(call)] = step
            for tensor, value in zip(call.outputs, step.values, strict=True):
                self.values[id(tensor)] = value

    def _input(self, tensors):
        shapes = [tuple(tensor.spec.shape) for tensor in tensors]
        dtypes = {keras.backend.standardize_dtype(tensor.spec.dtype) for tensor in tensors}
        if self.options.inputs == "concat":
            sizes = tuple(shape[-1] for shape in shapes)
            if None in sizes or len({shape[:-1] for shape in shapes}) > 1:
                self.messages.append(
                    f"input {tensors[0].index}: inputs='concat' joins inputs along their last "
                    f"dimension, received shapes {' vs '.join(map(str, shapes))}"
                )
            else:
                layout = Layout.blocks(sizes)
                self.values[id(tensors[0])] = grown({len(shapes[0]) - 1: layout})
                return
        elif len(set(shapes)) > 1 or len(dtypes) > 1:
            self.messages.append(
                f"input {tensors[0].index}: the sources read one input, received shapes "
                + " vs ".join(map(str, shapes))
            )
        self.values[id(tensors[0])] = Value()

    def _check_node(self, call):
        """A nested model that is called twice is built once, so both calls must read alike."""
        inputs = [self.values[id(tensor)] for tensor in call.inputs]
        if self._at_nodes.setdefault(id(call.place[-1]), inputs) != inputs:
            raise Refusal("it is called in two ways, once on what grew and once on what did not")

    def _step(self, calls):
        call = calls[0]
        inputs = tensor_leaves(call, self.values)
        is_layer = isinstance(call.operation, keras.layers.Layer)
        declaration = declaration_of(call.operation) if is_layer else None
        if declaration is not None:
            step = self._declared(calls, inputs, declaration)
        elif is_layer and own_weights_inside(call.operation):
            step = self._taken_over(calls, inputs)
        else:
            step = self._weightless(calls, inputs)
        exact = all(value.exact for value in inputs.values())
        step.values = [
            dataclasses.replace(value, exact=value.exact and exact) for value in step.values
        ]
        return step

    # Layers without weights

    def _weightless(self, calls, inputs):
        operations = [call.operation for call in calls]
        kind = type(operations[0]).__name__
        reshapes = kind in _RESHAPES
        sizes = ("target_shape", "newshape") if reshapes else ()
        settings = setting_mismatches(operations, sizes)
        if settings:
            raise Refusal("; ".join(settings))
        kinds = {value.kind for value in inputs.values()}
        if kinds & {MEAN, AFTER}:
            return self._of_means(calls, inputs)
        if GROWN not in kinds:
            plan = self._plan(operations, LayerPlan(tuple(operations)))
            return Step([Value() for _ in calls[0].outputs], plan)
        if isinstance(operations[0], keras.layers.Lambda):
            raise Refusal("a Lambda may stand only before the first layer that grows")
        if isinstance(operations[0], keras.layers.Masking):
            raise Refusal(
                "it would mask a step only where all sources would; put it before the first layer "
                "that grows"
            )
        step = None
        if kind in _CONCATENATIONS:
            step = movers.concatenation(calls, inputs, settings)
        elif reshapes:
            step = movers.reshape(calls, inputs)
        return step or self._tried(calls, inputs)

    def _of_means(self, calls, inputs):
        """An operation behind the mean: it is applied to the mean."""
        linear = tried(calls, inputs).linear(self.options.weights)
        kinds = {value.kind for value in inputs.values()}
        kind = MEAN if linear and AFTER not in kinds else AFTER
        return Step(
            [Value(kind) for _ in calls[0].outputs],
            self._plan([call.operation for call in calls]),
        )

    def _tried(self, calls, inputs):
        """An operation on what grew: applied to all sources' units at once, or to each's apart."""
        try:
            trial = tried(calls, inputs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            raise Refusal(f"it does not run on random inputs: {error}") from error
        for changes in self._broadcasts(calls, inputs):
            values = trial.joint(changes)
            if values is not None:
                shapes = [tensor.spec.shape for tensor in calls[0].outputs]
                operation = self._plan([call.operation for call in calls], values=(values, shapes))
                return Step(values, operation, changes)
        outputs = [
            self._kept_apart(tensors, calls, inputs)
            for tensors in zip(*(call.outputs for call in calls), strict=True)
        ]
        values = [grown({dim: layout}) for dim, layout in outputs]
        return Step(values, apart=computed_apart(calls, inputs, outputs))

    def _kept_apart(self, tensors, calls, inputs):
        """Dimension of an output along which the sources' results are joined, and its layout."""
        shapes = [tensor.spec.shape for tensor in tensors]
        for number, value in inputs.items():
            for dim, layout in value.dims.items():
                same = all(
                    call.leaves[number].spec.shape == shape
                    for call, shape in zip(calls, shapes, strict=True)
                )
                if same:
                    return dim, layout
        dim = len(shapes[0]) - 1
        sizes = tuple(shape[-1] if shape else None for shape in shapes)
        if dim < 1 or None in sizes or len({shape[:-1] for shape in shapes}) > 1:
            raise Refusal(
                "it joins units that fusion keeps apart, and its result has no dimension along "
                f"which the sources' results could stand: shapes {' vs '.join(map(str, shapes))}"
            )
        return dim, Layout.blocks(sizes)

    def _broadcasts(self, calls, inputs):
        """Ways to make the inputs of an operation broadcast: `changes` of a `Step`, best first."""
        shapes = {number: [call.leaves[number].spec.shape for call in calls] for number in inputs}
        changes, layouts = {}, {}
        for number, value in inputs.items():
            for dim, layout in value.dims.items():
                known = layouts.get(dim - len(shapes[number][0]))
                if known is None or max(layout.sizes) > max(known.sizes):
                    layouts[dim - len(shapes[number][0])] = layout
        for number, value in inputs.items():
            rank = len(shapes[number][0])
            for place, layout in layouts.items():
                dim = rank + place
                if dim < 0:
                    continue
                own = value.dims.get(dim)
                sizes = tuple(shape[dim] for shape in shapes[number])
                ones = set(sizes) == {1}
                if own == layout or (own is None and ones) or (sizes != layout.sizes and not ones):
                    continue
                if ones and any(layout.shared):
                    continue
                before = own or Layout.whole(sizes[0], self.num_sources)
                changes.setdefault(number, {})[dim] = (before, layout)
        return [changes, {}] if changes else [{}]

    def _plan(self, operations, plan=None, values=None):
        """Function that returns the fused model's operation for one without weights."""
        first = operations[0]
        if not isinstance(first, keras.layers.Layer):
            return lambda: copied(first)
        known = self.layers.get(id(first))
        if known is None:
            known = self.layers[id(first)] = plan or LayerPlan(tuple(operations))
            if values is not None:
                known.config = _widened_noise(first, *values)
        return lambda: known.layer

    def _taken_over(self, calls, inputs):
        """A layer with weights that declares no axes: only where nothing grew, if all are equal."""
        operations = [call.operation for call in calls]
        if any(value.kind != SHARED for value in inputs.values()):
            raise Refusal(
                "it has weights and declares no axes; declare them with @kf.register_fusion"
            )
        settings = setting_mismatches(operations)
        if settings:
            raise Refusal("; ".join(settings))
        if not _equal(operations):
            raise Refusal(
                "it declares no axes, so its weights must be equal in every source; declare them "
                "with @kf.register_fusion, or give all sources one such layer"
            )
        plan = self.layers.setdefault(id(operations[0]), LayerPlan(tuple(operations)))
        return Step([Value() for _ in calls[0].outputs], lambda: plan.layer)

    # Layers with declared axes

    def _declared(self, calls, inputs, declaration):
        call, layers = calls[0], [each.operation for each in calls]
        allowed = {*declaration.sizes, *_SIZES, "units"}
        averages = id(call) in self.averaged
        layouts, changes = self._bound(calls, inputs, declaration)
        if not layouts and not averages and self._is_shared(layers, declaration):
            plan = self._register(layers, LayerPlan(tuple(layers), declaration))
            return Step([Value() for _ in call.outputs], lambda: plan.layer)
        layouts, more = self._grown(calls, layouts, declaration, averages)
        changes = changes | more
        settings = setting_mismatches(layers, allowed)
        reason = declaration.refuse and declaration.refuse(layers, layouts, self.options.norm)
        problems = [*settings, *([reason] if reason else [])]
        problems += self._weight_problems(layers, layouts, declaration)
        if problems:
            raise Refusal("; ".join(problems))
        kind, config = declaration.widened(layers[0], layers, layouts, self.options.norm)
        values = self._outputs(call, declaration, layouts, averages)
        exact = (
            declaration.keeps is None
            or self.equal_sources
            or declaration.keeps(layers, layouts, self.options.norm)
        )
        values = [dataclasses.replace(value, exact=exact) for value in values]
        finish, linear = self._activation(layers[0], declaration, values)
        plan = self._register(
            layers, LayerPlan(tuple(layers), declaration, layouts, averages, linear, kind, config)
        )
        return Step(values, lambda: plan.layer, changes, finish)

    def _register(self, layers, plan):
        known = self.layers.setdefault(id(layers[0]), plan)
        if known is not plan and (known.layouts, known.averages) != (plan.layouts, plan.averages):
            raise Refusal("it is called in two ways: what it reads or makes grows in one of them")
        return known

    def _is_shared(self, layers, declaration):
        """Whether a layer that treats units apart is one and the same in all sources."""
        return (
            declaration.unitwise
            and not declaration.inner_axes
            and not declaration.averages
            and not setting_mismatches(layers)
            and _equal(layers)
        )

    def _bound(self, calls, inputs, declaration):
        """Layouts of the input axes that grew, and how inputs are rearranged to agree on them."""
        call, layouts, changes, readers = calls[0], {}, {}, {}
        arguments = _arguments(call)
        dims_of = {}
        for key, dims in declaration.inputs.items():
            name = list(arguments)[key] if isinstance(key, int) else key
            for number in arguments.get(name, ()):
                dims_of[number] = dims
        for number, value in inputs.items():
            rank = len(call.leaves[number].spec.shape)
            dims = {dim % rank: axis for dim, axis in dims_of.get(number, {}).items()}
            stray = value.dims.keys() - dims.keys()
            if stray or (value.kind == GROWN and number not in dims_of):
                raise Refusal(
                    "it reads a tensor that grew along a dimension that is none of its axes, "
                    f"dimension {min(stray or value.dims)}"
                )
            if value.kind in (MEAN, AFTER):
                raise Refusal("it uses an output of the model, where the sources' mean is taken")
            for dim, axis in dims.items():
                readers.setdefault(axis, []).append((number, dim))
                if dim in value.dims:
                    layouts.setdefault(axis, value.dims[dim])
        for axis, places in readers.items():
            if axis in layouts:
                changes |= self._agreed(calls, inputs, layouts[axis], places)
        return layouts, changes

    def _agreed(self, calls, inputs, layout, places):
        changes = {}
        for number, dim in places:
            own = inputs[number].dims.get(dim)
            if own == layout:
                continue
            sizes = tuple(call.leaves[number].spec.shape[dim] for call in calls)
            before = own or Layout.whole(sizes[0], self.num_sources)
            changes[number] = {dim: (before, layout)}
        return changes

    def _grown(self, calls, layouts, declaration, averages):
        """Layouts of all axes that grow, and the copies that a shared input needs for that."""
        call, layers, changes = calls[0], [each.operation for each in calls], {}
        layouts, given = dict(layouts), set()
        arguments = _arguments(call)
        for key, dims in declaration.inputs.items():
            name = list(arguments)[key] if isinstance(key, int) else key
            if not arguments.get(name):
                # An attention without a key reads its value.
                for axis in dims.values():
                    if axis == "key" and "value" in layouts:
                        layouts[axis] = layouts["value"]
                continue
            given |= set(dims.values())
            for dim, axis in dims.items():
                if axis in declaration.unitwise and axis not in layouts:
                    for number in arguments[name]:
                        shapes = [each.leaves[number].spec.shape for each in calls]
                        place = dim % len(shapes[0])
                        size = shapes[0][place]
                        if size is None or (place != len(shapes[0]) - 1 and place != 1):
                            continue
                        layout = Layout.blocks((size,) * self.num_sources)
                        layouts[axis] = layout
                        before = Layout.whole(size, self.num_sources)
                        changes.setdefault(number, {})[place] = (before, layout)
        sizes = self._sizes(layers, declaration)
        made = declaration.output_axes - given - set(declaration.tied)
        for axis in (*declaration.inner_axes, *(() if averages else made)):
            if axis in sizes:
                layouts[axis] = Layout.blocks(sizes[axis])
        for axis, other in declaration.tied.items():
            if other in layouts:
                layouts[axis] = layouts[other]
        return {axis: layout for axis, layout in layouts.items() if layout.grows}, changes

    def _sizes(self, layers, declaration):
        """`{axis: sizes}` of the axes of a layer, one for each source."""
        sizes = {}
        paths = list(own_weights_inside(layers[0]))
        weights = [list(own_weights_inside(layer).values()) for layer in layers]
        for index, path in enumerate(paths):
            axes = declaration.weights.get(path)
            shapes = [tuple(own[index].shape) for own in weights if index < len(own)]
            if axes is None or any(len(shape) != len(axes.dims) for shape in shapes):
                continue
            sizes |= axes.widths(shapes, set(axes.names))
        return sizes

    def _weight_problems(self, layers, layouts, declaration):
        """What keeps the weights of layers from being fused, as messages."""
        weights = [own_weights_inside(layer) for layer in layers]
        if len({len(own) for own in weights}) > 1:
            return ["it has other weights in another source"]
        problems = [
            f"weight `{path}` declares no axes; merge adapters and quantised weights first"
            for path in weights[0]
            if path not in declaration.weights
        ]
        if problems:
            return problems
        for path, variables in zip(
            weights[0], zip(*(own.values() for own in weights), strict=True), strict=True
        ):
            axes = declaration.weights[path]
            shapes = [tuple(variable.shape) for variable in variables]
            dtypes = [variable.dtype for variable in variables]
            if len(set(dtypes)) > 1:
                problems.append(f"weight `{path}`: dtype {' vs '.join(map(str, dtypes))}")
            try:
                axes.layouts(layouts, shapes)
            except FusionError as error:
                problems.append(f"weight `{path}`: {error}")
                continue
            if not axes.growing(layouts) and not axes.averages and not _same_values(variables):
                problems.append(
                    f"weight `{path}` has no axis that grows, so it must be equal in every source"
                )
        for layer, own in {id(a): (a, b) for a, b in zip(layers, weights, strict=True)}.values():
            problems += unusable_values(
                {path: to_numpy(variable) for path, variable in own.items()}, layer.name
            )
        return problems

    def _outputs(self, call, declaration, layouts, averages):
        values = []
        for tensor, dims in zip(call.outputs, declaration.outputs, strict=False):
            rank = len(tensor.spec.shape)
            outer = {dim % rank: self._expression(axis, layouts) for dim, axis in dims.items()}
            value = grown(outer)
            values.append(Value(MEAN) if averages and value.kind == SHARED else value)
        if len(values) < len(call.outputs):
            raise Refusal("it has more outputs than its declaration names")
        if averages and any(value.kind == GROWN for value in values):
            raise Refusal("its outputs would be averaged, and one of them grows")
        return values

    def _expression(self, axis, layouts):
        """Layout of a dimension; None where it did not grow."""
        if isinstance(axis, Stacked):
            parts = [layouts.get(name) for name in axis.names]
            return Layout.stacked(parts) if all(parts) else None
        (name,) = names_of(axis)
        layout = layouts.get(name)
        if isinstance(axis, Joined) and layout is not None:
            return Layout.joined(layout, axis.before, axis.after)
        return layout

    def _activation(self, layer, declaration, values):
        """`(finish, linear)`: how an activation that joins units acts on each source's part."""
        activation = getattr(layer, "activation", None)
        if activation is None or values[0].kind != GROWN or acts_on_units_apart(activation):
            return None, False
        if not declaration.averages or len(values[0].dims) > 1:
            raise Refusal("its activation joins units that fusion keeps apart")
        ((dim, layout),) = values[0].dims.items()
        return activated_apart(activation, dim, layout), True


def _sized(operation):
    """Settings of an operation that are sizes, and may differ."""
    is_layer = isinstance(operation, keras.layers.Layer)
    declaration = declaration_of(operation) if is_layer else None
    return tuple(declaration.sizes) if declaration else ("target_shape", "newshape")


def _arguments(call):
    """`{parameter of call: numbers of the tensor leaves given for it}`."""
    signature = inspect.signature(type(call.operation).call)
    names = [name for name in signature.parameters if name != "self"]
    numbered = keras.tree.pack_sequence_as(
        (call.args, call.kwargs),
        [number if isinstance(leaf, Tensor) else None for number, leaf in enumerate(call.leaves)],
    )
    args, kwargs = numbered
    given = dict(zip(names, args, strict=False)) | kwargs
    return {
        name: [n for n in keras.tree.flatten(given.get(name)) if n is not None] for name in names
    }


def _widened_noise(layer, values, shapes):
    """Configuration of a dropout whose noise has a fixed shape along what grew; None for others."""
    noise = getattr(layer, "noise_shape", None)
    if noise is None:
        return None
    noise = list(noise)
    for dim, layout in values[0].dims.items():
        if noise[dim] not in (None, 1):
            noise[dim] = layout.size
    return layer.get_config() | {"noise_shape": noise}


def _same_values(variables):
    first, *others = map(to_numpy, variables)
    return all(np.array_equal(first, other) for other in others)


def _equal(layers):
    weights = [list(own_weights_inside(layer).values()) for layer in layers]
    return len({len(own) for own in weights}) == 1 and all(
        _same_values(variables) for variables in zip(*weights, strict=True)
    )
