"""Theorems 1 and 2: the flow that two gradient steps around a fusion follow, and its loss.

The first step is the last one before the fusion, the second the first one after (Eq. 6-7):

    w_1 = w_0 − h ∇L1(w_0),        w_2 = w_1 − α h ∇L2(w_1).

Expanding the second around w_0, with F = −∇L1 and G = −∇L2 (a prime is a Jacobian),

    w_2 = w_0 + h (F + α G) + h² α G'F + O(h³).

A flow ẇ = H_0 + h H_1 is after the time h at w_0 + h H_0 + h² (H_1 + ½ H_0' H_0) + O(h³). Equal
powers of h: H_0 = F + α G, and

    H_1 = α G'F − ½ (F' + α G')(F + α G) = ½ α (G'F − F'G) − ½ (F'F + α² G'G).

As F'F = ½ ∇‖∇L1‖², this is Theorem 2 with the modified loss of the proof in appendix A,

    ẇ = −∇L̃ + (h α / 2) [∇L1, ∇L2],
    L̃ = L1 + α L2 + (h/4) ‖∇L1‖² + (h α²/4) ‖∇L2‖²,

and the two steps are met to O(h³); without the bracket only to O(h²), by ½ α h² ‖[∇L1, ∇L2]‖.

**Which h.** The sources' own last step, with a learning rate h_S, moves each θ_i by −h_S ∇L_S(θ_i).
In self-fusion that is n h_S times −∇_{θ_i} L1: the first step of Eq. 6 with h = n h_S, for every
weight that fusing copies. So for a run h = n h_S, and α = h_B / h.

**What the paper prints differently.**

- Theorem 1 has L_B where the proof has α L_B. Without α the flow misses the steps by
  h |α − 1| ‖∇L_B‖, already in the first order.
- Section 4 quotes the two-step flow of continual learning (α = 1) with −(h/2)[∇L1, ∇L2] and
  (h/2) ‖∇L‖². By the paper's own definition of the bracket the sign is + and the factors are h/4.
- Theorem 1 for self-fusion has (h/4) ‖∇_θ L_S‖². By Lemma 1 each of n copies has the gradient
  ∇L_S / n, so ‖∇L1‖² = n ‖∇L_S / n‖² and the term is (h / 4n) ‖∇_θ L_S‖². That is what Eq. 10
  gives for equal sources; the special case is n times as large as its own upper bound. (Of a weight
  that fusing scales by c the square counts 1 / (n c²), of one that it averages, 1.)
- Eq. 10 is no bound. Jensen's inequality, L1 ≤ (1/n) Σ L_S(θ_i), needs a loss that is convex in
  the outputs (cross-entropy is) and the fusion property; it says nothing of gradients. With
  ∇_{θ_i} L1 = J_iᵀ ℓ'(f̄) / n and ∇L_S(θ_i) = J_iᵀ ℓ'(f_i), a source that is right on the batch,
  ℓ'(f_i) = 0, adds nothing to Eq. 10, but J_iᵀ ℓ'(f̄) / n to the flow. Nor does a bound on a loss
  bound its flow. Hence `ModifiedLoss.terms` are those of the proof, and Eq. 10 is beside them.
- Corollary 1: what the bracket does grows in proportion to α. Beside the other terms it does not
  keep growing: ‖∇L1 + α ∇L2‖ grows alike, and the flatness term with α².
"""

import dataclasses

from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.derivatives import combine, squared_norm
from keras_fusion.theory.fields import Fields


@dataclasses.dataclass(frozen=True)
class Terms:
    """The four terms of a modified loss, in nats per token where the loss is.

    Args:
        first_loss: Of the networks before the fusion.
        second_loss: Of the fused network.
        first_flatness: Of the first step, in proportion to its squared gradient.
        second_flatness: Of the second step.
    """

    first_loss: float
    second_loss: float
    first_flatness: float
    second_flatness: float

    @property
    def total(self):
        """Their sum."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class ModifiedLoss:
    """Theorem 1 at one point.

    Args:
        terms: L1, α L2, (h/4) ‖∇L1‖², (h α²/4) ‖∇L2‖²: the loss that the flow descends.
        bound: As Eq. 10 prints them: (1/n) Σ L_S(θ_i), L_B, (h/4n²) Σ ‖∇L_S(θ_i)‖²,
            (h α²/4) ‖∇L_B‖².
        self_fusion: As Theorem 1 prints them for self-fusion: L_S(θ), L_B, (h/4) ‖∇L_S(θ)‖²,
            (h α²/4) ‖∇L_B‖², at θ = θ_1; None where the sources are several networks.
    """

    terms: Terms
    bound: Terms
    self_fusion: Terms | None


def modified_loss(fused, sources, batch, h, alpha=1.0, loss=mean_cross_entropy):
    """Each term of Theorem 1, as derived and as printed.

    Args:
        fused, sources, batch, loss: As in `lie_bracket`. θ_i is read from the fused network, so
            the sources' terms follow it when it is trained on.
        h: Learning rate of the step before the fusion, Eq. 6.
        alpha: α, the learning rate after the fusion over h.

    Returns:
        A `ModifiedLoss`.

    Raises:
        FusionError, ValueError: As `lie_bracket`.

    Examples:
        >>> result = kf.theory.modified_loss(big, [a, b], batch, h=0.01, alpha=2.0)
        >>> result.terms.first_loss <= result.bound.first_loss     # Jensen
        True
    """
    fields = Fields(fused, sources, batch, loss)
    return modified_loss_at(fields, fields.at(fields.weights()), h, alpha)


def modified_loss_at(fields, point, h, alpha):
    """`modified_loss` of `Fields` at a `Point`."""
    count = fields.partition.num_sources
    losses, gradients = zip(
        *(fields.source(point.weights, index) for index in range(count)), strict=True
    )
    squares = [squared_norm(gradient) for gradient in gradients]
    first_flatness = h / 4 * squared_norm(point.first)
    second_flatness = h * alpha**2 / 4 * squared_norm(point.second)
    second = point.second_loss
    self_fusion = None
    if fields.partition.is_self_fusion:
        self_fusion = Terms(losses[0], second, h / 4 * squares[0], second_flatness)
    return ModifiedLoss(
        terms=Terms(point.first_loss, alpha * second, first_flatness, second_flatness),
        bound=Terms(
            sum(losses) / count, second, h / (4 * count**2) * sum(squares), second_flatness
        ),
        self_fusion=self_fusion,
    )


def two_steps(fused, sources, batch, h, alpha=1.0, loss=mean_cross_entropy):
    """The weights after the two gradient steps of Eq. 6-7; what Theorem 2's flow shadows.

    Args:
        fused, sources, batch, loss, h, alpha: As in `modified_loss`.

    Returns:
        `{weight path: array}`; the network keeps its weights.

    Examples:
        >>> after = kf.theory.two_steps(big, [a, b], batch, h=0.01, alpha=2.0)
    """
    fields = Fields(fused, sources, batch, loss)
    return fields.partition.by_path(two_steps_from(fields, fields.weights(), h, alpha))


def two_steps_from(fields, weights, h, alpha):
    """`two_steps` of `Fields` from any weights, a list of tensors."""
    weights = combine((1.0, weights), (-h, fields.at(weights).first))
    return combine((1.0, weights), (-alpha * h, fields.at(weights).second))


def modified_equation_step(
    fused,
    sources,
    batch,
    h,
    alpha=1.0,
    loss=mean_cross_entropy,
    bracket=True,
    substeps=4,
):
    """The weights after following the flow of Theorem 2 for the time of one pair of steps.

    ẇ = −∇L̃ + (h α / 2) [∇L1, ∇L2] from the network's weights, over the time h, by the classical
    Runge-Kutta method. One evaluation takes two gradients and two Hessian-vector products.

    Args:
        fused, sources, batch, loss, h, alpha: As in `modified_loss`.
        bracket: Whether the flow has the bracket. Without, it is that of the modified loss alone.
        substeps: Runge-Kutta steps over the time h. The error is O(h⁵ / substeps⁴), far below the
            O(h³) by which the flow misses the two steps.

    Returns:
        `{weight path: array}`; the network keeps its weights.

    Examples:
        >>> flow = kf.theory.modified_equation_step(big, [a, b], batch, h=0.01, alpha=2.0)
        >>> steps = kf.theory.two_steps(big, [a, b], batch, h=0.01, alpha=2.0)
        >>> gap = max(abs(flow[path] - steps[path]).max() for path in flow)     # O(h³)
    """
    fields = Fields(fused, sources, batch, loss)
    end = integrate(
        lambda weights: drift(fields, weights, h, alpha, bracket), fields.weights(), h, substeps
    )
    return fields.partition.by_path(end)


def drift(fields, weights, h, alpha, bracket=True):
    """ẇ of Theorem 2 at `weights`.

    The Hessians' terms are −(h/2) ∇²L1 ∇L1 − (h α²/2) ∇²L2 ∇L2, half of the gradients of the
    squares, and (h α/2) (∇²L2 ∇L1 − ∇²L1 ∇L2): collected by Hessian, one product with each.
    """
    point = fields.at(weights)
    first, second = point.first, point.second
    cross = h * alpha / 2 if bracket else 0.0
    return combine(
        (-1.0, first),
        (-alpha, second),
        (-1.0, fields.first_product(weights, combine((h / 2, first), (cross, second)))),
        (
            -1.0,
            fields.second_product(weights, combine((h * alpha**2 / 2, second), (-cross, first))),
        ),
    )


def integrate(field, weights, time, substeps):
    """The solution of ẇ = field(w) after `time`, by Runge and Kutta's method of order 4.

    Args:
        field: Maps a list of tensors to its velocity.
        weights: Where it begins.
        time: How long.
        substeps: In how many steps.
    """
    step = time / substeps
    for _ in range(substeps):
        one = field(weights)
        two = field(combine((1.0, weights), (step / 2, one)))
        three = field(combine((1.0, weights), (step / 2, two)))
        four = field(combine((1.0, weights), (step, three)))
        weights = combine(
            (1.0, weights),
            (step / 6, one),
            (step / 3, two),
            (step / 3, three),
            (step / 6, four),
        )
    return weights
