"""When to fuse for a budget: laws of loss against compute, from the curves of runs that exist.

>>> from trainers import advice
>>> curves = advice.read_curves([runs.read_run("runs/demo")], "flops")
>>> fits, effect = advice.learn(curves, ("S", "M"))
>>> advice.advise(1e14, "flops", ("S", "M"), fits, effect).verdict
'fuse'
"""

from collections.abc import Sequence

from trainers.advice import fusions
from trainers.advice.backtests import backtest
from trainers.advice.choice import Advice, advise
from trainers.advice.curves import Curve, best_rate, read_curves
from trainers.advice.fitting import fit_laws
from trainers.advice.fusions import Effect
from trainers.advice.laws import Fit
from trainers.errors import UserError

__all__ = ["Advice", "advise", "backtest", "learn", "read_curves", "sizes_of"]

_ORDER = "SML"


def sizes_of(curves: Sequence[Curve], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The sizes that an advice is about, from small to big.

    Args:
        curves: of any stages.
        wanted: sizes to take; empty for all that have a curve from random weights.

    Raises:
        UserError: there is no such curve of a small and of a big model, or of a size wanted.
    """
    there = sorted({c.size for c in curves if not c.sources and c.size in _ORDER}, key=_ORDER.find)
    missing = [size for size in wanted if size not in there]
    if missing or len(there) < 2:
        expected = ", ".join(wanted) if wanted else "a small and a big size"
        raise UserError(
            f"Expected curves of {expected}, trained from random weights. Received: curves of "
            f"{', '.join(there) or 'none'}. Train the other (trainers.pretrain "
            "--plan=baseline,self_fusion), or name other --sizes."
        )
    return tuple(sorted(wanted, key=_ORDER.find)) or tuple(there)


def learn(
    curves: Sequence[Curve], sizes: Sequence[str], seed: int = 0
) -> tuple[dict[str, Fit], Effect]:
    """Learns from curves all that an advice needs.

    Args:
        curves: of stages from random weights and of fused ones.
        sizes: from small to big.
        seed: of the draws.

    Returns:
        Size letter to its `Fit`, and the `Effect` of fusing.

    Raises:
        UserError: the curves of a size do not show enough of what follows its plateau.
    """
    groups = {s: best_rate([c for c in curves if c.size == s and not c.sources]) for s in sizes}
    fits = fit_laws(groups, seed=seed)
    return fits, fusions.learn([c for c in curves if c.sources], fits, seed=seed)
