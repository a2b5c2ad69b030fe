"""The rule of layers whose axes are declared: what grows in them, and what is wrong with that."""

import dataclasses

import keras
import numpy as np

from keras_fusion.axes import Joined, Stacked
from keras_fusion.errors import FusionError
from keras_fusion.graph.alignment import setting_mismatches
from keras_fusion.graph.steps import LayerPlan, Refusal, Step, activated_apart
from keras_fusion.graph.tracing import Tensor, parameters
from keras_fusion.graph.trials import activations_of, acts_on_units_apart
from keras_fusion.graph.values import AFTER, GROWN, MEAN, SHARED, Value, grown
from keras_fusion.layers.declarations import names_of
from keras_fusion.layers.fusing import unusable_values
from keras_fusion.layers.tree import own_weights_inside, to_numpy
from keras_fusion.layouts import Layout
from keras_fusion.noise import uneven_inputs

# Arguments that hold sizes in ways of their own; the shapes of the weights are compared.
SIZES = ("output_shape", "groups", "filters", "units")


class DeclaredCall:
    """One call of a layer that has a declaration, in every source.

    Args:
        planner: The `Planner`.
        calls: The call in each source.
        inputs: `{leaf: Value}` of the tensors.
        declaration: The first layer's `Declaration`.
    """

    def __init__(self, planner, calls, inputs, declaration):
        self.planner, self.calls, self.inputs = planner, calls, inputs
        self.declaration, self.call = declaration, calls[0]
        self.layers = [call.operation for call in calls]
        self.dims_read = _dims_read(self.call, declaration)

    def step(self):
        """Returns the `Step` of the call, and registers its layer."""
        call, layers, declaration = self.call, self.layers, self.declaration
        allowed = {*declaration.sizes, *SIZES}
        averages = id(call) in self.planner.averaged
        layouts, changes = self._bound()
        if not layouts and not averages and self.is_shared():
            plan = self._register(LayerPlan(tuple(layers), declaration))
            return Step([Value() for _ in call.outputs], lambda: plan.layer)
        settings = setting_mismatches(layers, allowed)
        try:
            layouts, more = self.grown(layouts, averages)
        except FusionError:
            if settings:  # They are the reason.
                raise Refusal("; ".join(settings)) from None
            raise
        changes = changes | more
        norm = self.planner.options.norm
        reason = declaration.refuse and declaration.refuse(layers, layouts, norm)
        apart = [a for a in declaration.unitwise if a in layouts and not layouts[a].is_blocks]
        if apart and (reason or any(any(layouts[axis].shared) for axis in apart)):
            # Each source's units side by side, with a copy of those that all sources share.
            more = self._side_by_side(layouts, apart)
            changes = changes | more
            reason = declaration.refuse and declaration.refuse(layers, layouts, norm)
        problems = [*settings, *([reason] if reason else [])]
        problems += self._weight_problems(layouts)
        if problems:
            raise Refusal("; ".join(problems))
        if not averages and not any(layout.grows for layout in layouts.values()):
            if not have_equal_weights(layers):
                raise Refusal(
                    "its weights differ, and none of its axes can grow here; put a layer with an "
                    "output of its own, such as a Dense, before it"
                )
        kind, config = declaration.widened(layers[0], layers, layouts, self.planner.options.norm)
        values = self._outputs(layouts, averages)
        exact = (
            declaration.keeps is None
            or self.planner.equal_sources
            or declaration.keeps(layers, layouts, self.planner.options.norm)
        )
        values = [dataclasses.replace(value, exact=exact) for value in values]
        finish, linear = self._activation(values)
        plan = self._register(
            LayerPlan(tuple(layers), declaration, layouts, averages, linear, kind, config)
        )
        return Step(values, lambda: plan.layer, changes, finish)

    def _register(self, plan):
        first = self.planner.layers.setdefault(id(self.layers[0]), plan)
        if first is not plan and (first.layouts, first.averages) != (plan.layouts, plan.averages):
            raise Refusal("it is called in two ways: what it reads or makes grows in one of them")
        return first

    def is_shared(self):
        """Returns whether a layer that treats units apart is the same in all sources."""
        return (
            self.declaration.unitwise
            and not self.declaration.inner_axes
            and not self.declaration.averages
            and not setting_mismatches(self.layers)
            and have_equal_weights(self.layers)
        )

    def _bound(self):
        """Layouts of the input axes that grew, and how inputs are rearranged to agree on them."""
        call, inputs, layouts, changes, readers = self.call, self.inputs, {}, {}, {}
        dims_of = self.dims_read
        states = _arguments(call).get("initial_state", ())
        if any(n not in dims_of or inputs[n].kind != GROWN for n in states):
            raise Refusal(
                "its initial state must come from layers that grow, one state for each of its own; "
                "put a Dense between, or leave the state out"
            )
        for number, value in inputs.items():
            rank = len(call.leaves[number].spec.shape)
            dims = {dim % rank: axis for dim, axis in dims_of.get(number, {}).items()}
            stray = value.dims.keys() - dims.keys()
            if stray or (value.kind == GROWN and number not in dims_of):
                raise Refusal(
                    "it reads a tensor that grew along a dimension that is none of its axes, "
                    f"dimension {min(stray or value.dims)}; move the units to the dimension that "
                    "it sums over, with a Permute or Reshape before it"
                )
            if value.kind in (MEAN, AFTER):
                raise Refusal("it uses an output of the model, where the sources' mean is taken")
            for dim, axis in dims.items():
                readers.setdefault(axis, []).append((number, dim))
                if dim in value.dims:
                    layouts.setdefault(axis, value.dims[dim])
        for axis, places in readers.items():
            if axis in layouts:
                changes |= self._agreed(layouts[axis], places)
        return layouts, changes

    def _agreed(self, layout, places):
        changes = {}
        for number, dim in places:
            present = self.inputs[number].dims.get(dim)
            if present == layout:
                continue
            sizes = tuple(call.leaves[number].spec.shape[dim] for call in self.calls)
            before = present or Layout.whole(sizes[0], len(self.layers))
            changes[number] = {dim: (before, layout)}
        return changes

    def _side_by_side(self, layouts, axes):
        """Rearranges the inputs of axes to one block for each source; changes `layouts`."""
        changes = {}
        for number, dims in self.dims_read.items():
            for dim, axis in dims.items():
                if axis not in axes:
                    continue
                before, after = layouts[axis], Layout.blocks(layouts[axis].sizes)
                place = dim % len(self.call.leaves[number].spec.shape)
                changes.setdefault(number, {})[place] = (before, after)
        for axis in axes:
            layouts[axis] = Layout.blocks(layouts[axis].sizes)
        return changes

    def grown(self, layouts, averages):
        """Layouts of all axes that grow, and the copies that a shared input needs for that."""
        declaration, changes = self.declaration, {}
        layouts, given = dict(layouts), set()
        for number, dims in self.dims_read.items():
            given |= set(dims.values())
            place, axis = self._copied_axis(dims, number, layouts)
            if axis is not None:
                size = self.call.leaves[number].spec.shape[place]
                after = layouts[axis] = Layout.blocks((size,) * len(self.calls))
                before = Layout.whole(size, len(self.calls))
                changes.setdefault(number, {})[place] = (before, after)
        made = declaration.output_axes - given - set(declaration.tied) - self._kept()
        if averages:
            # The mean is that of the first output; the heads of an attention's scores grow.
            made -= {name for axis in declaration.outputs[0].values() for name in names_of(axis)}
        return self.with_made(layouts, (declaration.inner_axes - given) | made), changes

    def _kept(self):
        """Axes that the declaration keeps, such as a head's size, where the sources agree on it."""
        sizes = self._sizes()
        return {axis for axis in self.declaration.fixed if len(set(sizes.get(axis, ()))) == 1}

    def with_made(self, layouts, made):
        """Layouts of all axes that grow: those that come in, those made here, and their like."""
        layouts, sizes = dict(layouts), self._sizes()
        layouts |= {axis: Layout.blocks(sizes[axis]) for axis in made if axis in sizes}
        if "key" in self.declaration.inputs and not _arguments(self.call).get("key"):
            # An attention without a key reads its value.
            layouts |= {"key": layouts["value"]} if "value" in layouts else {}
        for axis, other in self.declaration.tied.items():
            if other in layouts:
                layouts[axis] = layouts[other]
        return {axis: layout for axis, layout in layouts.items() if layout.grows}

    def _copied_axis(self, dims, number, layouts):
        """Dimension, and axis, along which an input that all sources share is copied for each."""
        shape = self.call.leaves[number].spec.shape
        places = {
            dim % len(shape): axis
            for dim, axis in dims.items()
            if axis in self.declaration.unitwise
        }
        if not places or any(axis in layouts for axis in places.values()):
            return None, None
        place = max(places)
        return (place, places[place]) if shape[place] is not None else (None, None)

    def _sizes(self):
        """`{axis: sizes}` of the axes of a layer, one for each source."""
        sizes = {}
        paths = list(own_weights_inside(self.layers[0]))
        weights = [list(own_weights_inside(layer).values()) for layer in self.layers]
        for index, path in enumerate(paths):
            axes = self.declaration.weights.get(path)
            shapes = [
                tuple(variables[index].shape) for variables in weights if index < len(variables)
            ]
            if axes is None or any(len(shape) != len(axes.dims) for shape in shapes):
                continue
            sizes |= axes.widths(shapes, set(axes.names))
        return sizes

    def _weight_problems(self, layouts):
        """Returns messages on weights that cannot be fused."""
        layers, declared = self.layers, self.declaration.weights
        weights = [own_weights_inside(layer) for layer in layers]
        if len({len(variables) for variables in weights}) > 1:
            return ["it has other weights in another source"]
        problems = [
            f"weight `{path}` declares no axes; merge adapters and quantised weights first"
            for path in weights[0]
            if path not in declared
        ]
        if problems:
            return problems
        for path, variables in zip(
            weights[0],
            zip(*(variables.values() for variables in weights), strict=True),
            strict=True,
        ):
            axes = declared[path]
            shapes = [tuple(variable.shape) for variable in variables]
            dtypes = [variable.dtype for variable in variables]
            if len(set(dtypes)) > 1:
                problems.append(f"weight `{path}`: dtype {' vs '.join(map(str, dtypes))}")
            try:
                fused = axes.layouts(layouts, shapes)
            except FusionError as error:
                problems.append(f"weight `{path}`: {error}")
                continue
            noise = self.planner.options.noise
            if noise.scale and noise.kind == "balanced":
                problems += _uneven(path, axes, fused)
            if not axes.growing(layouts) and not axes.averages and not have_equal_values(variables):
                problems.append(
                    f"weight `{path}` has no axis that grows, so it must be equal in every source"
                )
        for layer, of_layer in {
            id(a): (a, b) for a, b in zip(layers, weights, strict=True)
        }.values():
            problems += unusable_values(
                {path: to_numpy(variable) for path, variable in of_layer.items()}, layer.name
            )
        return problems

    def _outputs(self, layouts, averages):
        values = []
        for tensor, dims in zip(self.call.outputs, self.declaration.outputs, strict=False):
            rank = len(tensor.spec.shape)
            outer = {dim % rank: self._expression(axis, layouts) for dim, axis in dims.items()}
            value = grown(outer)
            values.append(Value(MEAN) if averages and value.kind == SHARED else value)
        if len(values) < len(self.call.outputs):
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

    def _activation(self, values):
        """`(finish, linear)`: how an activation that joins units acts on each source's part."""
        layer = self.layers[0]
        if all(value.kind != GROWN for value in values):
            return None, False
        rank = len(self.call.outputs[0].spec.shape)
        joining = [f for f in activations_of(layer) if not acts_on_units_apart(f, rank)]
        if not joining:
            return None, False
        if joining != [getattr(layer, "activation", None)] or not self.declaration.averages:
            raise Refusal(
                "an activation inside it joins units that fusion keeps apart; use one that acts on "
                "each unit, or give it to an Activation layer behind this one"
            )
        if len(values[0].dims) > 1:
            raise Refusal("its activation joins units of several dimensions that grew")
        ((dim, layout),) = values[0].dims.items()
        return activated_apart(joining[0], dim, layout), True


def _uneven(path, axes, layouts):
    """Returns messages on inputs of a weight over which balanced noise cannot add up to zero."""
    widths = {
        name: layout.widths
        for name, layout in zip(axes.names, layouts, strict=True)
        if layout.grows
    }
    return [
        f"weight `{path}`: balanced noise needs sources of equal widths, axis `{axis}` has "
        f"{sizes}; use noise_kind='gaussian'"
        for axis, sizes in uneven_inputs(widths, axes).items()
    ]


def _dims_read(call, declaration):
    """`{number of a leaf: {dimension: axis}}` of the tensors that have axes of the layer."""
    arguments, read = _arguments(call), {}
    for key, dims in declaration.inputs.items():
        numbers = arguments.get(list(arguments)[key] if isinstance(key, int) else key, ())
        dims = dims if isinstance(dims, tuple) else (dims,) * len(numbers)
        read |= dict(zip(numbers, dims, strict=False))
    return read


def _arguments(call):
    """`{parameter of call: numbers of the tensor leaves given for it}`."""
    names = parameters(type(call.operation))
    numbered = keras.tree.pack_sequence_as(
        (call.args, call.kwargs),
        [number if isinstance(leaf, Tensor) else None for number, leaf in enumerate(call.leaves)],
    )
    args, kwargs = numbered
    given = dict(zip(names, args, strict=False)) | kwargs
    return {
        name: [n for n in keras.tree.flatten(given.get(name)) if n is not None] for name in names
    }


def have_equal_values(variables):
    """Returns whether variables hold the same values."""
    first, *others = map(to_numpy, variables)
    return all(np.array_equal(first, other) for other in others)


def have_equal_weights(layers):
    """Returns whether layers have the same weights."""
    weights = [list(own_weights_inside(layer).values()) for layer in layers]
    return len({len(variables) for variables in weights}) == 1 and all(
        have_equal_values(variables) for variables in zip(*weights, strict=True)
    )
