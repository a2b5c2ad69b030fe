"""The two losses around a fusion, L1 and L2 of Eq. 6-9, on the space of the fused weights.

L2 = L_B is the loss of the fused network at w = (θ_1, …, θ_n, η). L1 is the same loss with η
frozen at zero, L1(w) = L_B(θ_1, …, θ_n, 0): under the fusion property that is Eq. 8, the loss of
the mean of the sources' outputs. Both are functions of all of w, and ∇L1 has no part along η.

With P the projection that sets η to zero, ∇L1(w) = P ∇L_B(P w) and, for any vector v,
∇²L1(w) v = P ∇²L_B(P w) P v. So the fused network's gradient and Hessian-vector product are all
that is ever needed.

The gradients are those that training sees, with respect to the fused network's own weights. A
block that fusing scaled, w_i = c θ_i (see `partition`), therefore has c⁻¹ times the gradient that
section 4 writes with respect to θ_i.
"""

import dataclasses

from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.derivatives import Derivatives, combine
from keras_fusion.theory.partition import Partition


@dataclasses.dataclass(frozen=True)
class Point:
    """Weights, and what both losses are there; every vector a list of tensors.

    Args:
        weights: The fused network's weights.
        first_loss, first: L1 and ∇L1.
        second_loss, second: L2 and ∇L2.
    """

    weights: list
    first_loss: float
    first: list
    second_loss: float
    second: list


class Fields:
    """∇L1 and ∇L2, their Jacobians times a vector, and their Lie bracket, on one batch.

    The functions of this package make one and use it once; make one yourself to ask several
    things of it, it compiles once.

    Args:
        fused: A T5, or a functional or sequential model of fusable layers, that was made by a
            fusion; it may have been trained since.
        sources: What it was fused from; a network that was fused with itself is named once for
            every copy. Only their structure counts: θ_i is read from the fused network.
        batch: A dictionary of a T5's inputs and `targets`, or a pair (inputs, targets).
        loss: `(targets, outputs) → scalar`; default `mean_cross_entropy`, T5's.

    Raises:
        FusionError: The network was not fused from such sources.
        ValueError: Another backend than TensorFlow, JAX and torch, or a batch of another form.

    Examples:
        >>> fields = Fields(small.self_fuse(2), [small, small], batch)
        >>> point = fields.at(fields.weights())
        >>> bracket = fields.bracket(point)   # a list of tensors, in the order of the weights
    """

    def __init__(self, fused, sources, batch, loss=mean_cross_entropy):
        self.partition = Partition(fused, sources)
        self.loss = loss
        self.batch = batch
        self._fused = Derivatives(fused, batch, loss)
        self._small = {}

    def weights(self):
        """The fused network's present weights, a list of tensors."""
        return self._fused.weights()

    def at(self, weights):
        """Both losses and their gradients at a list of tensors, a `Point`."""
        theta = self.partition.theta
        first_loss, first = self._fused.gradient(theta(weights))
        return Point(weights, first_loss, theta(first), *self._fused.gradient(weights))

    def first_product(self, weights, vector):
        """∇²L1 times a vector."""
        theta = self.partition.theta
        return theta(self._fused.product(theta(weights), theta(vector)))

    def second_product(self, weights, vector):
        """∇²L2 times a vector."""
        return self._fused.product(weights, vector)

    def bracket(self, point):
        """[∇L1, ∇L2] = ∇²L2 ∇L1 − ∇²L1 ∇L2, by the paper's [F, G] = (∇G)F − (∇F)G."""
        return combine(
            (1.0, self.second_product(point.weights, point.first)),
            (-1.0, self.first_product(point.weights, point.second)),
        )

    def source(self, weights, index):
        """L_S(θ_i) of source i, and its gradient with respect to θ_i."""
        return self._source(index).gradient(self.partition.source_weights(weights, index))

    def _source(self, index):
        """The derivatives of a source; one that occurs several times compiles once."""
        source = self.partition.sources[index]
        if id(source) not in self._small:
            self._small[id(source)] = Derivatives(source, self.batch, self.loss)
        return self._small[id(source)]
