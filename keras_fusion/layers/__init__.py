"""Layers that stand in for Keras' own and can be fused."""

from keras_fusion.layers.attention import (
    FusableMultiHeadAttention as FusableMultiHeadAttention,
)
from keras_fusion.layers.dense import FusableDense as FusableDense
from keras_fusion.layers.dense import FusableEinsumDense as FusableEinsumDense
from keras_fusion.layers.dense import FusableEmbedding as FusableEmbedding
from keras_fusion.layers.dropout import FusableDropout as FusableDropout
from keras_fusion.layers.dropout import fold_seed as fold_seed
from keras_fusion.layers.fusable import Fusable as Fusable
from keras_fusion.layers.norms import FusableLayerNorm as FusableLayerNorm
from keras_fusion.layers.norms import FusableRMSNorm as FusableRMSNorm
from keras_fusion.layers.position_bias import (
    FusableRelativePositionBias as FusableRelativePositionBias,
)
