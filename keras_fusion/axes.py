"""Named axes: the one declaration that fusion, sharding and monitoring read.

A weight names its axes, in the manner of Mesh TensorFlow, and says which of them its operation
sums over. A T5 query kernel is `Axes(("hidden", Joined("heads", after=64)), sums=("hidden",))`; an
embedding looks up and sums over nothing: `Axes(("vocabulary", "hidden"))`. Everything that happens
to a weight when networks are fused follows from this and from the axes that *grow*.
"""

import dataclasses
from collections.abc import Mapping

from keras_fusion.errors import FusionError
from keras_fusion.layouts import Layout


@dataclasses.dataclass(frozen=True)
class Joined:
    """A dimension that is a product, in row-major order, of which one factor has a name.

    Args:
        name: Name of the factor that may grow.
        before: Size of the factors before it, such as the 4 gates of an LSTM's units.
        after: Size of the factors after it, such as a head's size.

    Examples:
        >>> Axes(("input", Joined("units", before=4)), sums=("input",)).names
        ('input', 'units')
    """

    name: str
    before: int = 1
    after: int = 1

    @property
    def factor(self):
        """Entries of the dimension for each entry of the named factor."""
        return self.before * self.after


@dataclasses.dataclass(frozen=True)
class Stacked:
    """A dimension that is the concatenation of named axes, such as the outputs of two directions.

    Args:
        names: Names of the axes, in order.
    """

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Axes:
    """The names of a weight's axes, and what its operation does with them.

    Args:
        dims: For each dimension of the weight, in order, the name of its axis, or a `Joined`.
        sums: Names that the weight's operation sums over (the inputs of a matrix).
        averages: Whether the mean of several such weights computes the mean of their outputs.
            True for whatever acts linearly on its input; a norm's scale does not.

    Raises:
        ValueError: A name is repeated, or `sums` holds a name that is not among them.

    Examples:
        >>> Axes(("hidden", "mlp"), sums=("hidden",)).outputs
        ('mlp',)
    """

    dims: tuple[str | Joined, ...]
    sums: tuple[str, ...] = ()
    averages: bool = True

    def __post_init__(self):
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"Each axis needs its own name. Received: dims={self.dims}")
        if set(self.sums) - set(self.names):
            raise ValueError(
                f"`sums` must be among the axes {self.names}. Received: sums={self.sums}"
            )

    def renamed(self, names):
        """The same axes under other names.

        Args:
            names: `{name: name, or a Joined of one}`; what is not there keeps its name.
        """

        def rename(dim):
            if not isinstance(dim, Joined):
                return names.get(dim, dim)
            return dataclasses.replace(dim, name=_name(names.get(dim.name, dim.name)))

        sums = tuple(_name(names.get(name, name)) for name in self.sums)
        return Axes(tuple(map(rename, self.dims)), sums, self.averages)

    @property
    def names(self):
        """One name for each dimension; of a joined one, that of the factor that may grow."""
        return tuple(map(_name, self.dims))

    @property
    def outputs(self):
        """Names of the axes that the operation does not sum over."""
        return tuple(name for name in self.names if name not in self.sums)

    def growing(self, grow):
        """Names of this weight's axes that grow, in the order of its dimensions."""
        return tuple(name for name in self.names if name in grow)

    def averages_here(self, grow):
        """Returns whether the sources' representations meet here: no output axis grows.

        There the fused network averages (section 3.1, DF = AVG ∘ F).
        """
        return not any(name in grow for name in self.outputs)

    def divisor(self, grow, num_sources):
        """Number that the sources' values are divided by: n where AVG acts, else 1."""
        return num_sources if self.averages_here(grow) else 1

    def widths(self, shapes, grow):
        """`{name: widths}` of the axes that grow, one width for each source.

        Args:
            shapes: The sources' shapes.
            grow: Names of the axes that grow.

        Raises:
            FusionError: A joined dimension is no multiple of the factors beside the name.
        """
        return {
            name: tuple(self._entries(dim, shape[dim]) for shape in shapes)
            for dim, name in enumerate(self.names)
            if name in grow
        }

    def layouts(self, grow, shapes):
        """`Layout` of each dimension of the fused array.

        Args:
            grow: Names of the axes that grow, or `{name: Layout or widths}`.
            shapes: The sources' shapes.

        Raises:
            FusionError: Shapes differ in rank, or along an axis that does not grow.

        Examples:
            >>> axes = Axes(("hidden", Joined("heads", after=2)), sums=("hidden",))
            >>> [layout.size for layout in axes.layouts({"heads"}, [(3, 2), (3, 4)])]
            [3, 6]
        """
        if any(len(shape) != len(self.dims) for shape in shapes):
            raise FusionError(
                f"a weight with axes {self.names} needs that many dimensions. "
                f"Received: shapes={[tuple(shape) for shape in shapes]}"
            )
        named = grow if isinstance(grow, Mapping) else self.widths(shapes, grow)
        return tuple(
            self._layout(dim, named, tuple(sizes))
            for dim, sizes in enumerate(zip(*shapes, strict=True))
        )

    def _layout(self, dim, named, sizes):
        name = self.names[dim]
        if name not in named:
            if len(set(sizes)) > 1:
                raise FusionError(
                    f"axis `{name}` does not grow, so its size must be the same in "
                    f"every source. Received: sizes={sizes}"
                )
            return Layout.whole(sizes[0], len(sizes))
        layout = self._joined(dim, named[name])
        if layout.sizes != sizes:
            raise FusionError(
                f"axis `{name}` has the sizes {layout.sizes} in the layers around this weight. "
                f"Received: sizes={sizes}"
            )
        return layout

    def _joined(self, dim, layout):
        """Layout of a dimension from the layout, or the widths, of its named factor."""
        if not isinstance(layout, Layout):
            layout = Layout.blocks(tuple(layout))
        if isinstance(self.dims[dim], Joined):
            return Layout.joined(layout, self.dims[dim].before, self.dims[dim].after)
        return layout

    def positions(self, shape, blocks):
        """Layouts of the dimensions of a fused array, from the blocks that a fusion recorded.

        Args:
            shape: Shape of the fused array.
            blocks: `{axis name: widths}`, one width for each source.

        Returns:
            A `Layout` for each dimension; none where the array has no axis in `blocks`.

        Raises:
            FusionError: The blocks do not add up to the array's size.
        """
        widths = [tuple(blocks[name]) for name in self.names if name in blocks]
        layouts = []
        for dim, (name, size) in enumerate(zip(self.names, shape, strict=True)):
            if not widths:
                return ()
            if name not in blocks:
                layouts.append(Layout.whole(size, len(widths[0])))
                continue
            layouts.append(self._joined(dim, blocks[name]))
            if layouts[-1].size != size:
                raise FusionError(
                    f"blocks of axis `{name}` must add up to its size {size}. "
                    f"Received: widths={tuple(blocks[name])}"
                )
        return tuple(layouts)

    def slices(self, shape, blocks):
        """Position of the block of each source in a fused array whose blocks are rectangles.

        Args:
            shape: Shape of the fused array.
            blocks: `{axis name: widths}`, one width for each source.

        Returns:
            A list with one tuple of slices for each source; axes without blocks are whole.

        Raises:
            FusionError: The blocks do not add up to the array's size, or are no rectangles.

        Examples:
            >>> Axes(("hidden", "heads")).slices((4, 4), {"hidden": (1, 3)})[1]
            (slice(1, 4, None), slice(0, 4, None))
        """
        layouts = self.positions(shape, blocks)
        if not layouts:
            return []
        positions = []
        for source in range(len(layouts[0].sizes)):
            runs = [layout.runs(source) for layout in layouts]
            if any(len(parts) != 1 for parts in runs):
                raise FusionError(
                    f"the blocks of a weight with axes {self.dims} are no rectangles; read "
                    "`positions` instead"
                )
            positions.append(tuple(slice(run.target, run.target + run.length) for (run,) in runs))
        return positions

    def _entries(self, dim, size):
        """Size of the named factor of a dimension."""
        factor = self.dims[dim].factor if isinstance(self.dims[dim], Joined) else 1
        entries, rest = divmod(size, factor)
        if rest:
            raise FusionError(
                f"axis `{self.names[dim]}` is joined with factors of {factor} entries, which must "
                f"divide its dimension. Received: size={size}"
            )
        return entries


def _name(dim):
    """Name of a dimension; of a joined one, that of the factor that may grow."""
    return dim.name if isinstance(dim, Joined) else dim
