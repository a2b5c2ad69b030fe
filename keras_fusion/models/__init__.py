"""Models made of fusable layers."""

from keras_fusion.models.config import T5Config
from keras_fusion.models.fused import fused_weights, grown_weights
from keras_fusion.models.stacked import stacked_weights
from keras_fusion.models.t5 import T5, parameter_count

__all__ = [
    "fused_weights",
    "grown_weights",
    "parameter_count",
    "stacked_weights",
    "T5",
    "T5Config",
]
