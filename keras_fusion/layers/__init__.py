"""Layers that stand in for Keras' own and can be fused."""

from keras_fusion.layers import stock as _stock  # noqa: F401 - registers declarations
from keras_fusion.layers import stock_attention as _stock_attention  # noqa: F401
from keras_fusion.layers import stock_norms as _stock_norms  # noqa: F401
from keras_fusion.layers import stock_recurrent as _stock_recurrent  # noqa: F401
from keras_fusion.layers.attention import FusableMultiHeadAttention
from keras_fusion.layers.declarations import Declaration, register_fusion
from keras_fusion.layers.dense import FusableDense, FusableEinsumDense, FusableEmbedding
from keras_fusion.layers.dropout import FusableDropout, fold_seed
from keras_fusion.layers.fusable import Fusable
from keras_fusion.layers.norms import FusableLayerNorm, FusableRMSNorm
from keras_fusion.layers.position_bias import FusableRelativePositionBias

__all__ = [
    "Declaration",
    "fold_seed",
    "Fusable",
    "FusableDense",
    "FusableDropout",
    "FusableEinsumDense",
    "FusableEmbedding",
    "FusableLayerNorm",
    "FusableMultiHeadAttention",
    "FusableRelativePositionBias",
    "FusableRMSNorm",
    "register_fusion",
]
