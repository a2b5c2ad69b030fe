"""Masks: Keras hands them from layer to layer beside the tensors.

What is no layer, such as a slice, has no mask when the model runs. So where a fused model cuts a
tensor into the sources' parts, or moves its units, the layers behind are given the mask by hand:
the one that the symbolic tensors carry.
"""

import keras

from keras_fusion import _keras
from keras_fusion.graph.tracing import parameters


class MaskFlow:
    """The masks along a graph, and which of them are lost when the fused model runs."""

    def __init__(self):
        self._masked, self._lost = set(), set()

    def follow(self, call, cuts):
        """Notes what a call makes of the masks of what it reads.

        Args:
            call: The first source's call; those that it reads from have been followed.
            cuts: Whether its inputs or outputs are cut or moved.

        Returns:
            Why the layer cannot be given its masks; None where it can.
        """
        layer, read = call.operation, list(filter(self.carries, call.inputs))
        if not read or not getattr(layer, "supports_masking", False):
            return None
        outputs = {id(tensor) for tensor in call.outputs if len(tensor.spec.shape) > 2}
        self._masked |= outputs
        lost = read if cuts else list(filter(self.loses, read))
        if lost and isinstance(layer, keras.layers.MultiHeadAttention):
            return (
                "it takes the mask of its query from the tensor itself, which loses it where units "
                "are cut or moved; put what joins units behind the attention, or remove the mask"
            )
        if any(_comes_from_outside(tensor, call) for tensor in lost):
            return (
                "it is in a nested model that is given a mask, which gets lost where units are cut "
                "or moved; put its layers into the outer model, or remove the mask"
            )
        self._lost |= outputs if lost else set()
        return None

    def carries(self, tensor):
        """Returns whether a tensor has a mask, also inside a nested model that is given one."""
        return _keras.mask_of(tensor.spec) is not None or id(tensor) in self._masked

    def loses(self, tensor):
        """Returns whether the fused counterpart of a tensor has no mask when the model runs."""
        return id(tensor) in self._lost

    @property
    def by_hand(self):
        """True where some masks are lost, so that layers are given theirs by hand."""
        return bool(self._lost)


def _comes_from_outside(tensor, call):
    """Returns whether the mask of what a call reads is known only when the model runs."""
    outer = () if tensor.call is None else tensor.call.place[:-1]
    return _keras.mask_of(tensor.spec) is None or outer != call.place[:-1]


def masks_of(layer, args, kwargs):
    """Masks of the tensors that a layer is called on, as the arguments that Keras makes of them.

    Args:
        layer: The layer, or an operation, which reads no masks.
        args, kwargs: Arguments of the call.
    """
    if not isinstance(layer, keras.layers.Layer):
        return {}
    names = parameters(type(layer))
    given = dict(zip(names, args, strict=False)) | kwargs
    tensors = {
        name: value
        for name, value in given.items()
        if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(value))
    }
    masks = {}
    for name, value in tensors.items():
        argument = "mask" if len(tensors) == 1 else f"{name}_mask"
        mask = keras.tree.map_structure(_keras.mask_of, value)
        masked = any(leaf is not None for leaf in keras.tree.flatten(mask))
        if masked and argument in names and given.get(argument) is None:
            masks[argument] = mask
    return masks
