"""Meshes of devices and layouts of named axes on them, in Mesh TensorFlow's syntax.

A mesh shape names the dimensions of a grid of devices, `batch:2,model:4`. A layout sends named axes
to them, `batch:batch,heads:model,mlp:model,vocab:model`: whatever has such an axis is split along
it, everything else is replicated. A weight's axes are those that its layer declares; nothing is
inferred from names or shapes of weights. Rules whose mesh dimension the mesh lacks have no effect.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import keras

from keras_fusion.layers import tree
from trainers.errors import UserError

BATCH = "batch"
# Mesh TensorFlow's names of axes that are called otherwise here.
ALIASES = {"d_ff": "mlp", "d_model": "hidden"}

Spec = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Names and sizes of the dimensions of a grid of devices.

    Args:
        dims: (name, size) of each dimension.

    Raises:
        UserError: no dimension, one named twice, or a size that is not a positive integer.

    Example:
        >>> MeshShape.parse("batch:2,model:4").size
        8
    """

    dims: tuple[tuple[str, int], ...]

    def __post_init__(self):
        names = [name for name, _ in self.dims]
        if not names or len(set(names)) < len(names):
            raise UserError(
                "Expected mesh dimensions with a name each. "
                f"Received: mesh_shape={str(self)!r}. Write it as batch:2,model:4."
            )
        for name, size in self.dims:
            if type(size) is not int or size < 1:
                raise UserError(
                    f"Expected a positive number of devices along {name}. "
                    f"Received: mesh_shape={str(self)!r}. Write it as batch:2,model:4."
                )

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """Reads `name:size` pairs, separated by `,` `.` `;` or spaces."""
        pairs = _pairs(text, "mesh_shape", "batch:2,model:4")
        return cls(tuple((name, _integer(size)) for name, size in pairs))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.dims)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.dims)

    @property
    def size(self) -> int:
        """Number of devices."""
        return math.prod(self.sizes)

    def along(self, dim: str | None) -> int:
        """Devices along a dimension; 1 where there is none of that name."""
        return dict(self.dims).get(dim, 1)

    def __str__(self):
        return ",".join(f"{name}:{size}" for name, size in self.dims)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Rules that send named axes to mesh dimensions.

    Args:
        rules: (axis, mesh dimension) pairs; Mesh TensorFlow's `d_ff` and `d_model` stand for the
            axes `mlp` and `hidden`.

    Raises:
        UserError: an axis is sent to two mesh dimensions.

    Example:
        >>> Layout.parse("batch:batch,d_ff:model").dim("mlp")
        'model'
    """

    rules: tuple[tuple[str, str], ...]

    def __post_init__(self):
        rules = tuple(dict.fromkeys((ALIASES.get(axis, axis), dim) for axis, dim in self.rules))
        object.__setattr__(self, "rules", rules)
        dims: dict[str, str] = {}
        for axis, dim in rules:
            if axis in dims:
                raise UserError(
                    f"Expected one mesh dimension for an axis. Received: layout={str(self)!r}, "
                    f"with {axis} on {dims[axis]} and on {dim}. Leave out one of the two rules."
                )
            dims[axis] = dim

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """Reads `axis:dimension` pairs, separated by `,` `.` `;` or spaces."""
        return cls(tuple(_pairs(text, "layout", "batch:batch,heads:model,mlp:model,vocab:model")))

    def dim(self, axis: str) -> str | None:
        """The mesh dimension that an axis is sent to, or None."""
        return dict(self.rules).get(axis)

    def restricted(self, axes=None, dims=None) -> "Layout":
        """The rules of these axes and of these mesh dimensions; None for any."""
        return Layout(
            tuple(
                (axis, dim)
                for axis, dim in self.rules
                if (axes is None or axis in axes) and (dims is None or dim in dims)
            )
        )

    def __str__(self):
        return ",".join(f"{axis}:{dim}" for axis, dim in self.rules)


# T5's rules in Mesh TensorFlow.
T5_LAYOUT = Layout((("batch", "batch"), ("heads", "model"), ("mlp", "model"), ("vocab", "model")))


def _pairs(text: str, flag: str, example: str) -> list[tuple[str, str]]:
    pairs = [tuple(part.split(":")) for part in re.split(r"[,.; ]+", text.strip()) if part]
    if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise UserError(
            f"Expected --{flag} as name:value pairs. Received: {flag}={text!r}. "
            f"Write it as {example}."
        )
    return pairs


def _integer(text: str):
    """An integer, or the text itself, which `MeshShape` refuses."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text


# ---- axes of a model ----


def declared_weights(model) -> dict[str, tuple]:
    """`{path: (variable, names of its axes)}` of the weights whose layers declare their axes."""
    return {
        tree.join(path, name): (variables[name], axes.names)
        for path, leaf in tree.leaves(model).items()
        for variables in (tree.own_weights(leaf),)
        for name, axes in tree.declared_axes(leaf).items()
    }


def axis_sizes(model) -> dict[str, int]:
    """`{axis: size}` of a model's axes: what a mesh dimension has to divide, to split the axis.

    That is the greatest common divisor of all sizes that the axis has: heads count as heads also
    where num_heads · key_value_dim are one joined axis, since no head is split.

    Example:
        >>> axis_sizes(T5(T5Config.from_size("t5_small")))["heads"]
        6
    """
    sizes: dict[str, int] = {}

    def meet(axis, size):
        sizes[axis] = math.gcd(sizes.get(axis, 0), size)

    for variable, names in declared_weights(model).values():
        for name, size in zip(names, variable.shape, strict=True):
            meet(name, size)
    for layer in _all_layers(model):
        for argument, axis in layer.sizes().items() if tree.is_fusable(layer) else ():
            size = getattr(layer, argument, None)
            if isinstance(size, int):
                meet(axis, size)
    return sizes


def _all_layers(layer):
    yield layer
    for child in tree.children(layer):
        yield from _all_layers(child)


# ---- from axes to shardings ----


def weight_specs(model, mesh: MeshShape, layout: Layout | None = None) -> dict[str, Spec]:
    """Says along which mesh dimension each dimension of each declared weight is split.

    Args:
        model: a built model or layer; weights need no values.
        mesh: shape of the mesh.
        layout: rules, each naming an axis of the model; None takes those of `T5_LAYOUT` that do.

    Returns:
        `{path: mesh dimension or None for each dimension of the weight}`.

    Raises:
        UserError: a rule names no axis of the model, a mesh dimension does not divide an axis, or
            two dimensions of one tensor are sent to one mesh dimension.

    Example:
        >>> weight_specs(t5, MeshShape.parse("model:2"))["head/kernel"]
        (None, 'model')
    """
    sizes = axis_sizes(model)
    layout = checked_layout(layout, sizes).restricted(dims=mesh.names)
    _check_sizes(sizes, mesh, layout)
    specs = {}
    for path, (_, names) in declared_weights(model).items():
        _check_apart(path, names, layout)
        # Activations have a batch beside every axis of the weights.
        for name in names:
            _check_apart("activations", (BATCH, name), layout)
        specs[path] = tuple(layout.dim(name) for name in names)
    return specs


def checked_layout(layout: Layout | None, axes: Mapping[str, int]) -> Layout:
    """The layout, if each of its rules names the batch or one of `axes`; T5's rules for None."""
    known = sorted({BATCH, *axes})
    if layout is None:
        return T5_LAYOUT.restricted(axes=known)
    unknown = [axis for axis, _ in layout.rules if axis not in known]
    if unknown:
        raise UserError(
            f"Expected rules of --layout to name axes of the model, which are {', '.join(known)}. "
            f"Received: layout={str(layout)!r}, with {', '.join(unknown)}. Leave that out."
        )
    return layout


def _check_sizes(sizes: Mapping[str, int], mesh: MeshShape, layout: Layout) -> None:
    for dim, devices in mesh.dims:
        split = {axis: size for axis, size in sizes.items() if layout.dim(axis) == dim}
        if any(size % devices for size in split.values()):
            fits = divisors(math.gcd(*split.values()))
            raise UserError(
                f"Expected a number of devices along {dim} that divides "
                f"{', '.join(f'{axis}={size}' for axis, size in split.items())}. Received: "
                f"mesh_shape={str(mesh)!r}. Take {_alternatives(fits)}, or leave out rules of "
                "--layout."
            )


def _check_apart(tensor: str, names: Sequence[str], layout: Layout) -> None:
    taken: dict[str, str] = {}
    for name in names:
        dim = layout.dim(name)
        if dim is not None and dim in taken:
            raise UserError(
                "Expected the dimensions of a tensor on different mesh dimensions. Received: "
                f"layout={str(layout)!r}, with {taken[dim]} and {name} of {tensor} "
                f"({', '.join(names)}) on {dim}. Leave out one of the two rules."
            )
        taken[dim] = name


def layout_map(model, mesh: MeshShape, layout: Layout | None = None):
    """The same for `keras.distribution`: what Keras' own `fit` takes under `ModelParallel`.

    Args:
        model: as in `weight_specs`, for instance `T5.skeleton(config)`.
        mesh: shape of the mesh, on the first devices that there are.
        layout: rules; None for T5's.

    Returns:
        `keras.distribution.LayoutMap` with a key for each weight, which fits the weights of any
        model of this configuration.

    Example:
        >>> layouts = layout_map(T5.skeleton(config), MeshShape.parse("batch:2,model:2"))
        >>> with keras.distribution.ModelParallel(layout_map=layouts).scope():
        ...     model = T5(config)
    """
    check_backend(mesh)
    devices = keras.distribution.list_devices()
    check_devices(mesh, len(devices))
    grid = keras.distribution.DeviceMesh(mesh.sizes, mesh.names, devices[: mesh.size])
    layouts = keras.distribution.LayoutMap(grid)
    for path, spec in weight_specs(model, mesh, layout).items():
        # A path in a model begins with the model's name, which carries a counter.
        layouts[f"([^/]*/)?{re.escape(path)}"] = spec
    return layouts


def slot_spec(spec: Spec, shape: Sequence[int], slot_shape: Sequence[int]) -> Spec:
    """The spec of an optimizer's slot: that of its weight, in the dimensions that it shares.

    Example:
        >>> slot_spec(("batch", "model"), (512, 1024), (1, 1024))
        (None, 'model')
    """
    if len(shape) != len(slot_shape):
        return (None,) * len(slot_shape)
    sizes = zip(spec, shape, slot_shape, strict=True)
    return tuple(dim if size == slot else None for dim, size, slot in sizes)


def check_batch(rows: int, mesh: MeshShape, layout: Layout) -> int:
    """The rows of a batch that each replica gets.

    Raises:
        UserError: the mesh dimension of the batch does not divide them.
    """
    replicas = mesh.along(layout.dim(BATCH))
    if rows % replicas:
        raise UserError(
            f"Expected a batch size that the {replicas} devices along {layout.dim(BATCH)} divide. "
            f"Received: batch_size={rows}, mesh_shape={str(mesh)!r}. Take a multiple of "
            f"{replicas}, or {_alternatives(divisors(rows))} devices along {layout.dim(BATCH)}."
        )
    return rows // replicas


def divisors(number: int) -> list[int]:
    """All divisors of a positive integer, in order."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _alternatives(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last


# ---- devices ----


def check_backend(mesh: MeshShape) -> None:
    """Raises unless Keras runs on JAX, where alone a mesh works.

    Raises:
        UserError: saying why, and what to do.
    """
    backend = keras.backend.backend()
    if backend != "jax":
        raise UserError(
            "Expected Keras on its jax backend for a mesh: under tensorflow keras.distribution "
            f"does nothing and would say nothing. Received: mesh_shape={str(mesh)!r}, "
            f"KERAS_BACKEND={backend}. Set KERAS_BACKEND=jax; to split the batch alone, "
            "--strategy=mirrored works as well."
        )


def check_devices(mesh: MeshShape, available: int) -> None:
    """Raises unless there are as many devices as the mesh has places.

    Raises:
        UserError: saying how many there are, and how to have virtual ones.
    """
    if mesh.size > available:
        raise UserError(
            f"Expected a mesh of at most the {available} devices that there are. Received: "
            f"mesh_shape={str(mesh)!r}, which needs {mesh.size}. Take a smaller one; on a CPU, "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={mesh.size} gives virtual devices."
        )
