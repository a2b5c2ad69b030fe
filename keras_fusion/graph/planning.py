"""Planning a fusion: along every edge of the sources' graphs, what grew and where each source lies.

Tensors that lead to an output through no layer with weights are averaged in the layers that make
them, where these are linear in their weights (section 3.1, DF = AVG ∘ F). All other layers with
weights grow. Nothing is built here.
"""

import dataclasses
import functools

import keras

from keras_fusion import _keras
from keras_fusion.errors import FusionError, docs_page
from keras_fusion.graph import movers
from keras_fusion.graph.alignment import setting_mismatches
from keras_fusion.graph.averaging import averaged_calls
from keras_fusion.graph.declared import SIZES, DeclaredCall, have_equal_weights
from keras_fusion.graph.masks import MaskFlow
from keras_fusion.graph.steps import (
    LayerPlan,
    Refusal,
    Step,
    averaged,
    computed_apart,
    copied,
    joined,
)
from keras_fusion.graph.trials import tensor_leaves, tried
from keras_fusion.graph.values import AFTER, GROWN, MEAN, SHARED, Value, grown
from keras_fusion.layers.declarations import declaration_of
from keras_fusion.layers.tree import own_weights_inside
from keras_fusion.layouts import Layout

_CONCATENATIONS = ("Concatenate", "Hstack", "Vstack")
_RESHAPES = ("Flatten", "Reshape")
_REGISTER = f"@kf.register_fusion ({docs_page('plugin', 'layers-of-your-own')})"


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
        masks: `MaskFlow` of the first graph.
    """

    declared_call = DeclaredCall

    def __init__(self, graphs, pairs, options):
        self.graphs, self.pairs, self.options = graphs, pairs, options
        self.num_sources = len(graphs)
        self.values, self.steps, self.layers, self.messages = {}, {}, {}, []
        self.equal_sources = all(graph is graphs[0] for graph in graphs[1:])
        self.masks = MaskFlow()
        self._at_nodes, self._read = {}, set()

    def run(self):
        """Fills `values`, `steps` and `layers`, or `messages`."""
        for tensors in zip(*(graph.inputs for graph in self.graphs), strict=True):
            self._input(tensors)
        self.averaged = self.averaged_calls()
        self._read = set(self.graphs[0].consumers())
        broken = set()
        for call in self.graphs[0].calls:
            if id(call) not in self.pairs:
                continue  # Nothing that leaves the model needs it.
            if any(id(tensor) in broken for tensor in call.inputs):
                # What it reads is not known, but its settings are compared all the same.
                broken |= set(map(id, call.outputs))
                operations = [other.operation for other in self.pairs[id(call)]]
                settings = setting_mismatches(operations, (*SIZES, *_sized(call.operation)))
                self.messages += [f"{call.name}: {'; '.join(settings)}"] if settings else []
                continue
            try:
                step = self.step(self.pairs[id(call)])
                self.check_node(call)
                reason = self.masks.follow(call, step.cuts)
                if reason:
                    raise Refusal(reason)
            except (Refusal, FusionError) as error:
                self.messages.append(f"{call.name}: {error}")
                broken |= set(map(id, call.outputs))
                continue
            self.steps[id(call)] = step
            for tensor, value in zip(call.outputs, step.values, strict=True):
                self.values[id(tensor)] = value

    def averaged_calls(self):
        """Ids of the calls whose layers take the mean of their outputs."""
        return averaged_calls(self.graphs[0], self.pairs, self.options)

    def check_outputs(self):
        """Adds messages on outputs whose mean cannot be taken."""
        self.messages += [
            f"output {index}: it carries a mask, by which Keras weighs the loss, and a layer "
            "before it that joins units would lose that; remove the mask, or that layer"
            for index, tensor in enumerate(self.graphs[0].outputs)
            if self.masks.loses(tensor)
        ]
        if self.options.outputs == "concat" or self.messages:
            return
        for tensors in zip(*(graph.outputs for graph in self.graphs), strict=True):
            value = self.values[id(tensors[0])]
            shapes = [tuple(tensor.spec.shape) for tensor in tensors]
            dtype = keras.backend.standardize_dtype(tensors[0].spec.dtype)
            name = f"output {self.graphs[0].outputs.index(tensors[0])}"
            if value.kind == GROWN and len(set(shapes)) > 1:
                self.messages.append(
                    f"{name}: the mean needs outputs of one shape, received "
                    f"{' vs '.join(map(str, shapes))}; outputs='concat' keeps all of them"
                )
            elif value.kind == GROWN and self.masks.carries(tensors[0]):
                self.messages.append(
                    f"{name}: it carries a mask, by which Keras weighs the loss, and averaging it "
                    "behind the model would lose that; use average='logits', or outputs='concat'"
                )
            elif value.kind == GROWN and "float" not in dtype:
                self.messages.append(
                    f"{name}: its values are of type {dtype}, which have no mean; leave the last "
                    "operation out of the models, or use outputs='concat'"
                )

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

    def check_node(self, call):
        """A nested model that is called twice is built once, so both calls must read alike."""
        inputs = [self.values[id(tensor)] for tensor in call.inputs]
        if self._at_nodes.setdefault(id(call.place[-1]), inputs) != inputs:
            raise Refusal("it is called in two ways, once on what grew and once on what did not")

    def step(self, calls):
        """The `Step` of a call in every source.

        Raises:
            Refusal: It cannot be fused.
            FusionError: The same, where a layout or an array finds it.
        """
        call = calls[0]
        inputs = tensor_leaves(call, self.values)
        is_layer = isinstance(call.operation, keras.layers.Layer)
        declaration = declaration_of(call.operation) if is_layer else None
        if declaration is not None:
            step = self.declared_call(self, calls, inputs, declaration).step()
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
        if self._ends(calls):
            apart = computed_apart(calls, inputs, functools.partial(averaged, self.options.weights))
            return Step([Value(MEAN) for _ in calls[0].outputs], apart=apart)
        outputs = [
            self._kept_apart(tensors, calls, inputs)
            for tensors in zip(*(call.outputs for call in calls), strict=True)
        ]
        values = [grown({dim: layout}) for dim, layout in outputs]
        join = functools.partial(joined, outputs)
        return Step(values, apart=computed_apart(calls, inputs, join))

    def _ends(self, calls):
        """Returns whether all that a call makes are numbers for each row, and outputs of the model.

        Such numbers, like the sum of the last layer's units, have no dimension along which the
        sources' could stand, but a mean.
        """
        ends = set(map(id, self.graphs[0].outputs)) - self._read
        return self.options.outputs == "average" and all(
            id(tensor) in ends
            and len(tensor.spec.shape) == 1
            and "float" in keras.backend.standardize_dtype(tensor.spec.dtype)
            for tensor in calls[0].outputs
        )

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
                    # What is computed for each source apart is its own, also where it read what
                    # all sources share.
                    shares = any(layout.shared)
                    return dim, Layout.blocks(layout.sizes) if shares else layout
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
                widest = layouts.get(dim - len(shapes[number][0]))
                if widest is None or max(layout.sizes) > max(widest.sizes):
                    layouts[dim - len(shapes[number][0])] = layout
        for number, value in inputs.items():
            rank = len(shapes[number][0])
            for place, layout in layouts.items():
                dim = rank + place
                if dim < 0:
                    continue
                present = value.dims.get(dim)
                sizes = tuple(shape[dim] for shape in shapes[number])
                is_broadcast = set(sizes) == {1}
                if (
                    present == layout
                    or (present is None and is_broadcast)
                    or (sizes != layout.sizes and not is_broadcast)
                ):
                    continue
                if is_broadcast and any(layout.shared):
                    continue
                before = present or Layout.whole(sizes[0], self.num_sources)
                changes.setdefault(number, {})[dim] = (before, layout)
        return [changes, {}] if changes else [{}]

    def _plan(self, operations, plan=None, values=None):
        """Function that returns the fused model's operation for one without weights."""
        first = operations[0]
        if not isinstance(first, keras.layers.Layer):
            return lambda: copied(first)
        made = self.layers.get(id(first))
        if made is None:
            made = self.layers[id(first)] = plan or LayerPlan(tuple(operations))
            if values is not None:
                made.config = _widened_noise(first, *values)
        return lambda: made.layer

    def _taken_over(self, calls, inputs):
        """A layer with weights that declares no axes: only where nothing grew, if all are equal."""
        operations = [call.operation for call in calls]
        inner = getattr(operations[0], "layer", None)
        grows = any(value.kind != SHARED for value in inputs.values())
        settings = [] if grows else setting_mismatches(operations)
        equal = not grows and not settings and have_equal_weights(operations)
        if inner is not None and _keras.is_functional(inner) and not equal:
            raise Refusal(
                f"it wraps the model `{inner.name}`; wrap each layer of that in a "
                f"{type(operations[0]).__name__} of its own"
            )
        if grows:
            raise Refusal(f"it has weights and declares no axes; declare them with {_REGISTER}")
        if settings:
            raise Refusal(
                "it declares no axes, so it must be alike in every source, received "
                f"{', '.join(settings)}; declare its axes with {_REGISTER}, or build all sources "
                "with one value"
            )
        if not equal:
            raise Refusal(
                "it declares no axes, so its weights must be equal in every source; declare them "
                f"with {_REGISTER}, or give all sources one such layer"
            )
        plan = self.layers.setdefault(id(operations[0]), LayerPlan(tuple(operations)))
        return Step([Value() for _ in calls[0].outputs], lambda: plan.layer)


def _sized(operation):
    """Settings of an operation that are sizes, and may differ."""
    is_layer = isinstance(operation, keras.layers.Layer)
    declaration = declaration_of(operation) if is_layer else None
    return tuple(declaration.sizes) if declaration else ("target_shape", "newshape")


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
