"""Meshes of devices and layouts of named axes on them, in Mesh TensorFlow's syntax.

A mesh shape names the dimensions of a grid of devices, `batch:2,model:4`. A layout sends named axes
to them, `batch:batch,heads:model,mlp:model,vocab:model`: whatever has such an axis is split along
it, everything else is replicated. Rules whose mesh dimension the mesh lacks have no effect.
"""

import dataclasses
import math
import re

from trainers.errors import UserError

BATCH = "batch"
# Mesh TensorFlow's names of axes that are called otherwise here.
ALIASES = {"d_ff": "mlp", "d_model": "hidden"}
_MESH_EXAMPLE = "batch:2,model:4"


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Names and sizes of the dimensions of a grid of devices; checks itself.

    Args:
        dims: (name, size) of each dimension.

    Example:
        >>> MeshShape.parse("batch:2,model:4").size
        8
    """

    dims: tuple[tuple[str, int], ...]

    def __post_init__(self):
        expected = ""
        if not self.dims or len(set(self.names)) < len(self.names):
            expected = "mesh dimensions with a name each"
        for name, size in self.dims:
            if type(size) is not int or size < 1:
                expected = f"a positive number of devices along {name}"
        if expected:
            raise UserError(expected, f"mesh_shape={str(self)!r}", f"Write it as {_MESH_EXAMPLE}")

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """Reads `name:size` pairs, separated by `,` `.` `;` or spaces."""
        pairs = _pairs(text, "mesh_shape", _MESH_EXAMPLE)
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
        """Returns the devices along a dimension; 1 where there is none of that name."""
        return dict(self.dims).get(dim, 1)

    def __str__(self):
        return ",".join(f"{name}:{size}" for name, size in self.dims)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Rules that send named axes to mesh dimensions.

    Args:
        rules: (axis, mesh dimension) pairs, one for each axis; Mesh TensorFlow's `d_ff` and
            `d_model` stand for the axes `mlp` and `hidden`.

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
            if dims.setdefault(axis, dim) != dim:
                raise UserError(
                    "one mesh dimension for each axis",
                    f"layout={str(self)!r}, with {axis} on {dims[axis]} and on {dim}",
                    "Leave out one of the two rules",
                )

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """Reads `axis:dimension` pairs, separated by `,` `.` `;` or spaces."""
        return cls(tuple(_pairs(text, "layout", str(T5_LAYOUT))))

    def dim(self, axis: str) -> str | None:
        """Returns the mesh dimension that an axis is sent to, or None."""
        return dict(self.rules).get(axis)

    def restricted(self, axes=None, dims=None) -> "Layout":
        """Returns the rules of these axes and of these mesh dimensions; None for any."""
        rules = [rule for rule in self.rules if axes is None or rule[0] in axes]
        return Layout(tuple(rule for rule in rules if dims is None or rule[1] in dims))

    def __str__(self):
        return ",".join(f"{axis}:{dim}" for axis, dim in self.rules)


# T5's rules in Mesh TensorFlow.
T5_LAYOUT = Layout((("batch", "batch"), ("heads", "model"), ("mlp", "model"), ("vocab", "model")))


def _pairs(text: str, flag: str, example: str) -> list[tuple[str, str]]:
    pairs = [tuple(part.split(":")) for part in re.split(r"[,.; ]+", text.strip()) if part]
    if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs):
        do = f"Write it as {example}"
        raise UserError(f"--{flag} as name:value pairs", f"{flag}={text!r}", do)
    return pairs


def _integer(text: str):
    """Returns an integer, or the text itself, which `MeshShape` refuses."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def check_devices(mesh: MeshShape, available: int) -> None:
    """Raises a `UserError` if the mesh has more places than there are devices."""
    if mesh.size > available:
        raise UserError(
            f"a mesh of at most the {available} devices that there are",
            f"mesh_shape={str(mesh)!r}, which needs {mesh.size}",
            "Take a smaller one; on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count="
            f"{mesh.size} gives virtual devices",
        )
