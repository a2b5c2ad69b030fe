"""Axes of a model's weights, and along which dimension of a mesh a layout splits each of them.

A weight's axes are those that its layer declares; nothing is inferred from names or shapes.
"""

import math
from collections.abc import Mapping, Sequence

from keras_fusion.axes import Joined
from keras_fusion.layers import tree
from trainers.engines.mesh import BATCH, T5_LAYOUT, Layout, MeshShape
from trainers.errors import UserError

Spec = tuple[str | None, ...]


def declared_weights(model) -> dict[str, tuple]:
    """Returns `{path: (variable, Axes)}` of the weights whose layers declare their axes."""
    return {
        tree.join(path, name): (variables[name], axes)
        for path, leaf in tree.leaves(model).items()
        for variables in (tree.own_weights(leaf),)
        for name, axes in tree.declared_axes(leaf).items()
    }


def axis_sizes(model) -> dict[str, int]:
    """Returns `{axis: size}` of a model: what a mesh dimension has to divide to split the axis.

    That is the greatest common divisor of all sizes that the axis has. Of a joined axis, such as
    num_heads · key_value_dim, it is the size of the factor that has the name: no head is split.
    """
    sizes: dict[str, int] = {}
    for variable, axes in declared_weights(model).values():
        for axis, (size,) in axes.widths([tuple(variable.shape)], axes.names).items():
            sizes[axis] = math.gcd(sizes.get(axis, 0), size)
    return sizes


def weight_specs(model, mesh: MeshShape, layout: Layout | None = None) -> dict[str, Spec]:
    """Returns the mesh dimension along which each dimension of each declared weight is split.

    Args:
        model: a built model or layer; weights need no values.
        mesh: shape of the mesh.
        layout: rules, each naming an axis of the model; None takes those of `T5_LAYOUT` that do.

    Raises:
        UserError: a rule names no axis of the model, a mesh dimension does not divide an axis, a
            weight does not hold an axis in one run, or two dimensions of one tensor are sent to
            one mesh dimension.

    Example:
        >>> weight_specs(t5, MeshShape.parse("model:2"))["head/kernel"]
        (None, 'model')
    """
    sizes = axis_sizes(model)
    layout = checked_layout(layout, sizes).restricted(dims=mesh.names)
    _check_sizes(sizes, mesh, layout)
    specs = {}
    for path, (_, axes) in declared_weights(model).items():
        _check_apart(path, axes.names, layout)
        _check_runs(path, axes.dims, layout)
        # Activations have a batch beside every axis of the weights.
        for name in axes.names:
            _check_apart("activations", (BATCH, name), layout)
        specs[path] = tuple(layout.dim(name) for name in axes.names)
    return specs


def state_specs(model, specs: Mapping[str, Spec], variables: Mapping) -> dict[str, Spec]:
    """Returns the specs of all variables of a state: the weights' own, and slots like weights.

    Args:
        model: the built model.
        specs: those of its weights, from `weight_specs`.
        variables: name to variable, from `state_variables`.
    """
    declared = declared_weights(model)
    of_weight = {id(variable): specs[path] for path, (variable, _) in declared.items()}
    state = {}
    for name, variable in variables.items():
        kind, _, rest = name.partition("/")
        weight = variable
        if kind == "optimizer":
            weight = variables.get(f"model/{rest.rpartition('/')[0]}")
        spec = of_weight.get(id(weight), ())
        state[name] = slot_spec(spec, weight.shape, variable.shape) if spec else ()
    return state


def checked_layout(layout: Layout | None, axes: Mapping[str, int]) -> Layout:
    """Returns the layout, or for None T5's rules of the axes that the model has."""
    names = sorted({BATCH, *axes})
    if layout is None:
        return T5_LAYOUT.restricted(axes=names)
    unknown = [axis for axis, _ in layout.rules if axis not in names]
    if unknown:
        raise UserError(
            f"rules of --layout to name axes of the model, which are {', '.join(names)}",
            f"layout={str(layout)!r}, with {', '.join(unknown)}",
            "Leave that out",
        )
    return layout


def _check_sizes(sizes: Mapping[str, int], mesh: MeshShape, layout: Layout) -> None:
    for dim, devices in mesh.dims:
        split = {axis: size for axis, size in sizes.items() if layout.dim(axis) == dim}
        if any(size % devices for size in split.values()):
            fitting = _alternatives(divisors(math.gcd(*split.values())))
            sizes_there = ", ".join(f"{axis}={size}" for axis, size in split.items())
            raise UserError(
                f"a number of devices along {dim} that divides {sizes_there}",
                f"mesh_shape={str(mesh)!r}",
                f"Take {fitting}, or leave out rules of --layout",
            )


def _check_apart(tensor: str, names: Sequence[str], layout: Layout) -> None:
    taken: dict[str, str] = {}
    for name in names:
        dim = layout.dim(name)
        if dim is not None and dim in taken:
            raise UserError(
                "the dimensions of a tensor on different mesh dimensions",
                f"layout={str(layout)!r}, with {taken[dim]} and {name} of {tensor} "
                f"({', '.join(names)}) on {dim}",
                "Leave out one of the two rules",
            )
        taken[dim] = name


def _check_runs(path: str, dims: Sequence[str | Joined], layout: Layout) -> None:
    """Raises where a device's part of an axis is no run of the weight's dimension."""
    for axis in dims:
        if isinstance(axis, Joined) and axis.before > 1 and layout.dim(axis.name) is not None:
            raise UserError(
                "axes that lie in one run of each weight",
                f"layout={str(layout)!r}, with {axis.name}, of which {path} has {axis.before} runs",
                f"Leave out the rule of {axis.name}",
            )


def slot_spec(spec: Spec, shape: Sequence[int], slot_shape: Sequence[int]) -> Spec:
    """Returns the spec of an optimizer's slot: that of its weight, in the dimensions they share.

    Example:
        >>> slot_spec(("batch", "model"), (512, 1024), (1, 1024))
        (None, 'model')
    """
    if len(shape) != len(slot_shape):
        return (None,) * len(slot_shape)
    sizes = zip(spec, shape, slot_shape, strict=True)
    return tuple(dim if size == slot else None for dim, size, slot in sizes)


def check_batch(rows: int, mesh: MeshShape, layout: Layout) -> int:
    """Returns the rows of a batch that each replica gets, or raises a `UserError`."""
    dim = layout.dim(BATCH)
    replicas = mesh.along(dim)
    if rows % replicas:
        fitting = _alternatives(divisors(rows))
        raise UserError(
            f"a batch size that the {replicas} devices along {dim} divide",
            f"batch_size={rows}, mesh_shape={str(mesh)!r}",
            f"Take a multiple of {replicas}, or {fitting} devices along {dim}",
        )
    return rows // replicas


def divisors(number: int) -> list[int]:
    """Returns all divisors of a positive integer, in order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _alternatives(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
