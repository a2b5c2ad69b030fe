"""A callback for `fit` that watches how the copies in a fused network part."""

import keras

from keras_fusion.measures import eta_share, symmetry

__all__ = ["FusionMonitor"]


class FusionMonitor(keras.callbacks.Callback):
    """Logs `symmetry` and `eta_share` of a fused model at the end of each epoch.

    Raises:
        FusionError: When training begins, if the model was not fused from sources of equal widths.

    Examples:
        >>> history = fused.fit(x, y, callbacks=[kf.callbacks.FusionMonitor()])
        >>> history.history["symmetry"][-1]
        0.05
    """

    def on_train_begin(self, logs=None):
        symmetry(self.model)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["symmetry"] = symmetry(self.model)
            logs["eta_share"] = eta_share(self.model)
