"""Numbers for a log: section 4's bracket and modified loss of a network in training."""

import dataclasses
import time

import numpy as np

from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.bracket import lie_bracket_at
from keras_fusion.theory.derivatives import combine, squared_norm
from keras_fusion.theory.fields import Fields
from keras_fusion.theory.modified import modified_loss_at

NAMES = (
    "bracket",
    "bracket_theta",
    "bracket_eta",
    "bracket_drift",
    "eta_share",
    "first_loss",
    "second_loss",
    "first_flatness",
    "second_flatness",
    "bound_first_loss",
    "bound_first_flatness",
    "seconds",
)


class Monitor:
    """Measures a fused network against section 4: a function of the model, for a log.

    Its numbers, at the model's weights now and on one batch:

    - `bracket`, `bracket_theta`, `bracket_eta`: norms of [∇L1, ∇L2] and of its parts;
    - `bracket_drift`: what the bracket adds to the flow over what the gradients do,
      (h α / 2) ‖[∇L1, ∇L2]‖ / ‖∇L1 + α ∇L2‖;
    - `eta_share`: the root mean square of η over that of the sources' blocks, in the weights that
      have both; 0 right after a fusion without noise;
    - `first_loss`, `second_loss`, `first_flatness`, `second_flatness`: L1, α L2, (h/4) ‖∇L1‖²,
      (h α²/4) ‖∇L2‖², which add up to the modified loss;
    - `bound_first_loss`, `bound_first_flatness`: what Eq. 10 has in their place,
      (1/n) Σ L_S(θ_i) and (h/4n²) Σ ‖∇L_S(θ_i)‖²;
    - `seconds`: what measuring cost. The first time it compiles.

    They are about plain gradient steps with the learning rates h and α h; an optimizer that
    rescales gradients takes others.

    Args:
        sources: What the model was fused from; only their structure counts.
        batch, loss: As in `lie_bracket`. Keep the batch the same over a run.
        h: Learning rate of Eq. 6: in self-fusion n times that of the small network's last step
            (see `modified`).
        alpha: α, the learning rate now over h; a number, or a function without arguments.

    Examples:
        >>> monitor = kf.theory.Monitor([small, small], batch, h=0.01, alpha=2.0)
        >>> monitor(big)["bracket_theta"]
        0.0
    """

    def __init__(self, sources, batch, h, alpha=1.0, loss=mean_cross_entropy):
        self._sources = list(sources)
        self._batch = batch
        self._loss = loss
        self._h = h
        self._alpha = alpha
        self._model = self._fields = None

    def __call__(self, model):
        """`{name: float}` of everything in `NAMES`."""
        began = time.perf_counter()
        if model is not self._model:
            self._model = model
            self._fields = Fields(model, self._sources, self._batch, self._loss)
        numbers = self._measure()
        return numbers | {"seconds": time.perf_counter() - began}

    def _measure(self):
        fields, h = self._fields, self._h
        alpha = self._alpha() if callable(self._alpha) else self._alpha
        point = fields.at(fields.weights())
        result = modified_loss_at(fields, point, h, alpha)
        bracket = lie_bracket_at(fields, point)
        speed = squared_norm(combine((1.0, point.first), (alpha, point.second))) ** 0.5
        return {
            "bracket": bracket.norm,
            "bracket_theta": bracket.theta_norm,
            "bracket_eta": bracket.eta_norm,
            "bracket_drift": h * alpha / 2 * bracket.norm / speed if speed else 0.0,
            "eta_share": eta_share(fields.partition, point.weights),
            "bound_first_loss": result.bound.first_loss,
            "bound_first_flatness": result.bound.first_flatness,
        } | dataclasses.asdict(result.terms)


def eta_share(partition, weights):
    """Returns the root mean square of η over that of the sources' blocks.

    Over all weights that have both; 0 where there is none.

    Args:
        partition: The `Partition` of a fused network.
        weights: Its weights, a list of tensors.
    """
    squares, counts = np.zeros(2), np.zeros(2)
    for part, theta, eta in zip(
        partition.parts, partition.theta(weights), partition.eta(weights), strict=True
    ):
        if part.has_eta:
            size = float(np.prod(theta.shape))
            inside = sum(
                float(np.prod([slot.stop - slot.start for slot in position]))
                for position in part.positions
            )
            squares += squared_norm([theta]), squared_norm([eta])
            counts += inside, size - inside
    if not counts.all() or not squares[0]:
        return 0.0
    theta, eta = (squares / counts) ** 0.5
    return float(eta / theta)
