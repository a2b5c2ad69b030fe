"""Layers that stand in for Keras' own and can be fused."""

from keras_fusion.layers import stock as _stock  # noqa: F401 - registers declarations
from keras_fusion.layers import stock_attention as _stock_attention  # noqa: F401
from keras_fusion.layers import stock_norms as _stock_norms  # noqa: F401
from keras_fusion.layers import stock_recurrent as _stock_recurrent  # noqa: F401
from keras_fusion.layers.attention import (
    FusableMultiHeadAttention as FusableMultiHeadAttention,
)
from keras_fusion.layers.declarations import Declaration as Declaration
from keras_fusion.layers.declarations import register_fusion as register_fusion
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
