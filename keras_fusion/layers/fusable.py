"""The mixin of fusable layers: they declare their axes, and everything else follows.

`Fusable` is mixed into a Keras layer. The layer declares the axes of its weights, which of its
constructor arguments are sizes of axes, and the axes of what it is built with. From these `fuse`
checks the sources, widens the configuration, and builds the target from blocks.
"""

import dataclasses

from keras_fusion.axes import Joined
from keras_fusion.layers import checks
from keras_fusion.layers.declarations import UNDECLARED, declaration_of
from keras_fusion.layers.fusing import FusionOptions, fuse_layers, widened_shape
from keras_fusion.layers.tree import own_weights


class Fusable:
    """Mixin of every layer that can be fused.

    A layer's axes are those of its `Declaration`, as `layers.stock` has them for Keras' classes;
    one that has none declares `weight_axes` and, where they exist, `sizes` and `input_axes`.
    `axes` gives the layer's axes other names, so that a model can say which of its layers share an
    axis (T5's "hidden").

    Args:
        axes: Names of the layer's axes, in the order of the class's `default_axes`; a `Joined`
            where an axis is a product.
        blocks: `{axis: widths}` of the last fusion; written by `fuse`.
    """

    default_axes = ()

    def __init__(self, *args, axes=None, blocks=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.dims = tuple(_dim(axis) for axis in axes or self.default_axes)
        self.axes = tuple(dim.name if isinstance(dim, Joined) else dim for dim in self.dims)
        if len(self.axes) != len(self.default_axes):
            raise ValueError(
                f"axes must name {self.default_axes}, one name each. Received: axes={axes}"
            )
        self.blocks = {name: tuple(widths) for name, widths in (blocks or {}).items()}

    def weight_axes(self):
        """`{weight name: Axes}` of the weights that this layer itself owns."""
        names = dict(zip(self.default_axes, self.dims, strict=True))
        return {
            name: axes.renamed(names)
            for name, axes in self._declaration().weights.items()
            if "/" not in name
        }

    def sizes(self):
        """`{constructor argument: axis}`: the arguments that are the size of an axis."""
        return {field: self._named(axis) for field, axis in self._declaration().sizes.items()}

    def input_axes(self):
        """`{argument of build: axes of its last dimensions}`."""
        dims = self._declaration().inputs.get(0, {})
        return {"input_shape": tuple(self._named(dims[dim]) for dim in sorted(dims))}

    def default_grow(self):
        """The axes that grow when `fuse` is not told."""
        return frozenset(self.axes) - set(map(self._named, self._declaration().fixed))

    def _declaration(self):
        return declaration_of(self) or UNDECLARED

    def _named(self, axis):
        """This layer's name of an axis of its declaration."""
        return dict(zip(self.default_axes, self.axes, strict=True)).get(axis, axis)

    def widened_config(self, sources, options):
        """The configuration of the fused layer."""
        config = self.get_config()
        for field, axis in self.sizes().items():
            if axis in options.grow and config[field] is not None:
                config[field] = sum(source.get_config()[field] for source in sources)
        config["blocks"] = {
            name: widths
            for axes in self._axes_with_shapes(sources, options.grow)
            for name, widths in axes.items()
        }
        return config

    def flow(self):
        """The names of the axes that the layer's inputs have, and those of its outputs."""
        axes = self.weight_axes().values()
        inputs = {name for declared in axes for name in declared.sums}
        return inputs, {name for declared in axes for name in declared.outputs}

    def weight_factors(self, sources, options=None):
        """`{weight path: factors}` that sources' blocks are multiplied by, besides AVG's weights.

        Args:
            sources: The sources.
            options: `FusionOptions`; default: everything grows, weights are 1/n.
        """
        del sources, options
        return {}

    def config_mismatches(self, sources, options):
        """Returns `field: a vs b` for what keeps the configurations from being fused."""
        sized = {field for field, axis in self.sizes().items() if axis in options.grow}
        sized.add("groups")  # Of norms: they follow from the sources.
        return checks.differing_fields([source.get_config() for source in sources], sized)

    def build_fused(self, sources, options):
        """Builds this target, whose leaves know their sources, with the widened input shapes."""
        shapes = [source.get_build_config() for source in sources]
        shapes = [shape.get("shapes_dict", shape) for shape in shapes]
        self.build(
            **{
                name: widened_shape(
                    [shape[name] for shape in shapes], self.input_axes().get(name, ()), options.grow
                )
                for name in shapes[0]
            }
        )

    def fuse(self, *others, grow=None, **options):
        """Fuses this layer with others into one built layer (Eq. 3-5).

        On the concatenation of the sources' inputs the fused layer computes the concatenation of
        their outputs; where the output axis does not grow, their mean.

        Args:
            others: One or more built layers of this class, of equal or other widths.
            grow: Names of the axes that grow; default all that the layer can grow.
            **options: `norm`, `noise`, `noise_kind`, `seed`, `weights`, `fill` and `asymmetry`,
                as for `kf.fuse`.

        Returns:
            A new, built layer of this class.

        Raises:
            FusionError: Naming everything that keeps the layers from being fused, before
                anything is allocated.

        Examples:
            >>> a, b = FusableDense(4), FusableDense(6)
            >>> a.build((None, 2)), b.build((None, 3))
            >>> a.fuse(b).kernel.shape
            (5, 10)
        """
        sources = [self, *others]
        grow = self.default_grow() if grow is None else grow
        return fuse_layers(sources, FusionOptions.of(grow, len(sources), **options))

    def add_weight(self, *args, name=None, initializer=None, **kwargs):
        birth = getattr(self, "_birth", None)  # Set by `born_as`.
        if birth is not None:
            initializer = birth(name) or initializer
        return super().add_weight(*args, name=name, initializer=initializer, **kwargs)

    def get_config(self):
        config = super().get_config()
        config["axes"] = [
            dataclasses.asdict(dim) if isinstance(dim, Joined) else dim for dim in self.dims
        ]
        config["blocks"] = {name: list(widths) for name, widths in self.blocks.items()}
        return config

    def _axes_with_shapes(self, sources, grow):
        for name, axes in self.weight_axes().items():
            shapes = [own_weights(source)[name].shape for source in sources]
            yield axes.widths(shapes, grow)


def _dim(axis):
    """An axis as a name or a `Joined`, which a configuration holds as a dictionary."""
    return Joined(**axis) if isinstance(axis, dict) else axis
