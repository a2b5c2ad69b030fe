"""Section 4 on a network at hand: the bias of gradient steps around a fusion.

`bracket` derives and computes the Lie bracket of the two gradients, `modified` the flow that the
two steps follow; both say where the paper's statements need a correction. Works on the backends
TensorFlow, JAX and torch. Small differences, such as distances to the flow, need networks of dtype
float64, and TensorFlow: Keras on JAX and torch computes parts of them in float32.
"""

from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.bracket import LieBracket, lie_bracket, self_fusion_bracket
from keras_fusion.theory.fields import Fields
from keras_fusion.theory.modified import (
    ModifiedLoss,
    modified_equation_step,
    modified_loss,
    two_steps,
)
from keras_fusion.theory.monitors import Monitor

__all__ = [
    "Fields",
    "lie_bracket",
    "LieBracket",
    "mean_cross_entropy",
    "modified_equation_step",
    "modified_loss",
    "ModifiedLoss",
    "Monitor",
    "self_fusion_bracket",
    "two_steps",
]
