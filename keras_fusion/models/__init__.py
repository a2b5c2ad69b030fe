"""Models made of fusable layers."""

from keras_fusion.models.config import T5Config as T5Config
from keras_fusion.models.fused import fused_weights as fused_weights
from keras_fusion.models.t5 import T5 as T5
from keras_fusion.models.t5 import parameter_count as parameter_count
