"""The Lie bracket of the gradients before and after a fusion (section 4.1), and its parts.

Write the fused network's gradient and Hessian at η = 0 in parts along θ and η:
∇L_B = (a, b), ∇²L_B = [[A, Bᵀ], [B, C]]. L1 is L_B with η frozen at zero, so ∇L1 = (a, 0) and
∇²L1 = [[A, 0], [0, 0]]. By the paper's [F, G] = (∇G)F − (∇F)G, whose sign is the same for F = −∇L1
and G = −∇L2,

    [∇L1, ∇L2] = ∇²L2 ∇L1 − ∇²L1 ∇L2 = (A a, B a) − (A a, 0) = (0, B a).        (Lemma 3)

So the bracket is zero outside η whenever η = 0: for any sources, not for self-fusion alone.

**Lemma 3's factor.** In self-fusion ∇_{θ_i} L1 = ∇L_S(θ) / n (Lemma 1), so with Eq. 6-9

    B a = (1/n) (Σ_i ∇_{θ_i} ∇_η L_B) ∇L_S(θ):

the paper's last line lost 1/n. (It is right for F = −(∇L_S(θ_1), …, ∇L_S(θ_n), 0), the sources' own
steps, which are n times those of Eq. 6.) The gradients here are those with respect to the fused
weights w_i = c θ_i (see `partition`), and for these the factor in front of a weight's
∇_{w_i} ∇_η L_B ∇_w L_S is 1 / (n c): 1/n but for an untied head (c = 1/n: 1) and the final norm
below a tied head (c = 1/√n: 1/√n), and 1 for a weight that fusing averages.

**What the bracket is.** Lemma 2 holds on all of N = {(θ, …, θ, 0)}: at each of its points every η
block of a weight has the gradient ∇_w L_S(θ) / n. Moving along N by a velocity u of θ changes that
by ∇²L_S u / n. The first step moves along N, with u = D ∇L_S(θ): a block moves by ∇L_S / (n c), so
θ by D = 1 / (n c²), and D = 1 for a mean. Hence on N, in every η block of a weight,

    [∇L1, ∇L2] = (1/n) [∇²L_S(θ) D ∇L_S(θ)]_w ,

which where all c = 1 is (1/n²) ∇²L_S ∇L_S = ∇ ‖∇L_S‖² / (2n²), the same in all n (n − 1) blocks.
Two things follow. Corollary 2: the bracket vanishes with ∇L_S, in proportion. And the bracket does
not tell the copies apart: it is as uniform over blocks as the gradients of Corollary 3 are, so that
copies which start equal, with η = 0, stay equal with it as they would without.
"""

import dataclasses

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.derivatives import Derivatives
from keras_fusion.theory.fields import Fields
from keras_fusion.theory.partition import Partition


@dataclasses.dataclass(frozen=True)
class LieBracket:
    """[∇L1, ∇L2] at one point, by weight and split into θ and η.

    Args:
        theta: `{weight path: array}` of the fused weights' shapes, zero at η.
        eta: The same, zero outside η; only weights that have η.
    """

    theta: dict[str, np.ndarray]
    eta: dict[str, np.ndarray]

    @property
    def values(self):
        """`{weight path: array}`, both parts together."""
        return {path: part + self.eta.get(path, 0.0) for path, part in self.theta.items()}

    @property
    def theta_norm(self):
        """Euclidean norm over the entries that come from sources; 0 at η = 0 (Lemma 3)."""
        return _norm(self.theta)

    @property
    def eta_norm(self):
        """Euclidean norm over η."""
        return _norm(self.eta)

    @property
    def norm(self):
        """Euclidean norm over all weights."""
        return float(np.hypot(self.theta_norm, self.eta_norm))

    @property
    def norms(self):
        """`{weight path: (norm of its θ part, norm of its η part)}`."""
        return {
            path: (_norm({path: part}), _norm({path: self.eta.get(path, np.zeros(0))}))
            for path, part in self.theta.items()
        }

    @property
    def eta_share(self):
        """The part of ‖bracket‖² in η, from 0 to 1; 1 at η = 0. 0 where the bracket is zero."""
        return self.eta_norm**2 / self.norm**2 if self.norm else 0.0


def lie_bracket(fused, sources, batch, loss=mean_cross_entropy):
    """The Lie bracket [∇L1, ∇L2] of the losses before and after a fusion (Eq. 6-9).

    L2 is the loss of the fused network, L1 the same with η frozen at zero. Two gradients and two
    Hessian-vector products, no Hessian. See this module for what the bracket is.

    Args:
        fused: A T5, or a functional or sequential model of fusable layers, that was made by a
            fusion; it may have been trained since. It is taken where its weights are now.
        sources: What it was fused from; for a self-fusion `[small] * n`.
        batch: A dictionary of a T5's inputs, (batch, length) each, and `targets`; or for other
            networks a pair (inputs, targets).
        loss: `(targets, outputs) → scalar`; default T5's mean cross-entropy.

    Returns:
        A `LieBracket`.

    Raises:
        FusionError: The network was not fused from such sources.
        ValueError: Another backend than TensorFlow, JAX and torch, or a batch of another form.

    Examples:
        >>> bracket = kf.theory.lie_bracket(small.self_fuse(2), [small, small], batch)
        >>> bracket.theta_norm, bracket.eta_share
        (0.0, 1.0)
    """
    fields = Fields(fused, sources, batch, loss)
    return lie_bracket_at(fields, fields.at(fields.weights()))


def lie_bracket_at(fields, point):
    """`lie_bracket` of `Fields` at a `Point`."""
    bracket, partition = fields.bracket(point), fields.partition
    theta, eta = (partition.by_path(part(bracket)) for part in (partition.theta, partition.eta))
    kept = {part.path: eta[part.path] for part in partition.parts if part.has_eta}
    return LieBracket(theta, kept)


def self_fusion_bracket(fused, sources, batch, loss=mean_cross_entropy):
    """The bracket right after a self-fusion, from the small network alone.

    (1/n) ∇²L_S D ∇L_S, derived in this module: one gradient and one Hessian-vector product of the
    small network say what the bracket of the big one will be, at about 1/n² of its cost. It holds
    where all copies are equal and η = 0.

    Args:
        fused: The network that was fused with itself; only its structure counts.
        sources: `[small] * n`; the bracket is taken at the small network's weights.
        batch, loss: As in `lie_bracket`.

    Returns:
        `{weight path: array}`: what each block of η holds, in the small network's shape; only
        weights that have η.

    Raises:
        FusionError: Sources that are not one network.

    Examples:
        >>> blocks = kf.theory.self_fusion_bracket(big, [small, small], batch)
        >>> blocks["encoder/block_0/feed_forward/input_projector/kernel"].shape
        (64, 128)
    """
    partition = Partition(fused, sources)
    if not partition.is_self_fusion:
        names = [source.name for source in partition.sources]
        raise FusionError(f"expected one network, once for every copy. Received: {names}")
    return self_fusion_blocks(partition, Derivatives(partition.sources[0], batch, loss))


def self_fusion_blocks(partition, small):
    """`self_fusion_bracket` from a `Partition` and the small network's `Derivatives`."""
    weights = small.weights()
    _, gradient = small.gradient(weights)
    count = partition.num_sources
    velocity = [
        slope / (count * part.factors[0] ** 2) if part.positions else slope
        for part, slope in zip(partition.parts, gradient, strict=True)
    ]
    blocks = partition.by_path([array / count for array in small.product(weights, velocity)])
    return {part.path: blocks[part.path] for part in partition.parts if part.has_eta}


def _norm(arrays):
    return (
        sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays.values()) ** 0.5
    )
