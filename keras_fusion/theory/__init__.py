"""Section 4 on a network at hand: the bias of gradient steps around a fusion.

`bracket` derives and computes the Lie bracket of the two gradients, `modified` the flow that the
two steps follow; both say where the paper's statements need a correction. Works on the backends
TensorFlow and JAX. Small differences, such as distances to the flow, need networks of dtype
float64, and TensorFlow: Keras on JAX computes parts of them in float32.
"""

from keras_fusion.losses import mean_cross_entropy as mean_cross_entropy
from keras_fusion.theory.bracket import LieBracket as LieBracket
from keras_fusion.theory.bracket import lie_bracket as lie_bracket
from keras_fusion.theory.bracket import self_fusion_bracket as self_fusion_bracket
from keras_fusion.theory.fields import Fields as Fields
from keras_fusion.theory.modified import ModifiedLoss as ModifiedLoss
from keras_fusion.theory.modified import modified_equation_step as modified_equation_step
from keras_fusion.theory.modified import modified_loss as modified_loss
from keras_fusion.theory.modified import two_steps as two_steps
from keras_fusion.theory.monitors import Monitor as Monitor
