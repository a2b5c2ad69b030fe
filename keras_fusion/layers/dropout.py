"""Dropout for fused stacks, with masks that a training engine can make differ per replica."""

import contextlib
import contextvars

import keras

from keras_fusion.layers.fusable import Fusable

_FOLD = contextvars.ContextVar("keras_fusion_fold_seed", default=None)


@contextlib.contextmanager
def fold_seed(fold):
    """Passes every dropout seed through `fold` within this context.

    A replica of a data-parallel step folds its own number in; without that all replicas draw the
    same mask.

    Args:
        fold: Function from a seed tensor (2,) to another.

    Examples:
        >>> with fold_seed(lambda seed: seed + 1):
        ...     dropout(x, training=True)
    """
    token = _FOLD.set(fold)
    try:
        yield
    finally:
        _FOLD.reset(token)


class FoldingSeedGenerator(keras.random.SeedGenerator):
    """A seed generator whose seeds pass through the function that `fold_seed` has set."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        fold = _FOLD.get()
        return seed if fold is None else fold(seed)


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableDropout(Fusable, keras.layers.Dropout):
    """`keras.layers.Dropout` that can be fused (it has no weights) and folds replica seeds.

    Takes the arguments of `keras.layers.Dropout`; a `noise_shape` such as `(None, 1, None)`
    broadcasts one mask along the length, as T5 does.

    Examples:
        >>> FusableDropout(0.1, noise_shape=(None, 1, None), seed=0)(x, training=True)
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.rate > 0:
            # Keras made and tracks this generator, and has closed the layer to another one: the
            # same generator, with another `next`.
            self.seed_generator.__class__ = FoldingSeedGenerator

    def build_fused(self, sources, options):
        del sources, options
        self.built = True
