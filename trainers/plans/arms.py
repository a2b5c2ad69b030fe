"""The arms of the plan `gains`: ways to a model of size M, each a change of one self-fusion.

That self-fusion takes half of a budget for the small model, restarts optimizer and schedule, has
the size's noise in the zero blocks, and grows along all axes.

Definitions that coincide are one arm. For exact doubling, Net2Net's and bert2BERT's duplicates
divided by their count are copies without noise; with neither noise nor dropout these never part, so
`net2net` shows what breaking the symmetry is worth. Staged Training is the self-fusion with m/2 and
v/4 on the diagonal and the schedule continued; it has the size's noise here, as its copies would
never part either. HyperCloning adds noise 10 dB below its blocks W/2, of opposite sign in the two
halves of every row: balanced noise of 10^(-10/20)/2 of the source's root mean square. (Its head has
noise 10 dB below W/2, ours 6 dB less.) G_stack grows a shallow model of the final width: that is
`stacked_half`; `stacked` starts from the small model of the other arms, up to M's parameters.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

REFERENCE, FUSED, PEER, CONTROL = "reference", "fused", "peer", "control"
# Sources: of size S; of size M, with half of the layers; of size M.
SMALL, HALF, WHOLE = "small", "half", "whole"
SHARES = (0.25, 0.5, 0.75)
# With one source only: of two, each would have less than a unit.
EARLIEST_SHARE = 0.125
# Re-warm-up as a share of the steps after the fusion.
REWARMUP = 0.03
_DECIBELS = 10


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to a model of size M."""

    about: str  # in words, for reports
    # `REFERENCE` (of full size from random weights), `FUSED`, `PEER` (another method), or `CONTROL`
    # (stays smaller).
    kind: str = FUSED
    init: str = "self_fusion"  # as for `Stage`; "stacked" takes as many layers as M's parameters
    size: str = "M"  # of what it ends with
    share: float = 0.5  # of a budget, that all its sources together take
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    rewarms: bool = False  # whether the learning rate rises onto the schedule after the fusion
    optimizer: str | None = None  # of all its stages; None for the size's
    source: str = SMALL  # what it starts from, or trains for all of a budget
    # Values of `grow`, one for each stage after the small model; each has as much compute.
    growth: tuple[str, ...] = ("all",)


def _baseline(optimizer: str | None = None) -> Arm:
    about = f"from random weights{f', {optimizer}' if optimizer else ''}"
    return Arm(about, REFERENCE, "scratch", share=0.0, optimizer=optimizer)


def _when_to_fuse() -> dict[str, Arm]:
    words = {
        "self_fusion": "one small model fused with itself",
        "fusion_property": "two small models fused, each half normalised apart",
        "fusion_rule": "two small models fused, normalised as one",
    }
    return {
        f"{init}_{round(100 * share)}": Arm(
            f"{about} at {100 * share:g}% of the budget", FUSED, init, share=share
        )
        for init, about in words.items()
        for share in ((EARLIEST_SHARE, *SHARES) if init == "self_fusion" else SHARES)
    }


def _after_the_fusion() -> dict[str, Arm]:
    states = {
        "fresh": ("fresh", "optimizer fresh"),
        "grown": ("grown", "optimizer state grown"),
        "first": ("grown_first", "optimizer state of the first copy kept, of new blocks zero"),
    }
    schedules = {
        "restarted": ("restart", False, "schedule restarts"),
        "rewarmed": ("continue", True, f"schedule continues after a ramp of {REWARMUP:.0%}"),
        "continued": ("continue", False, "schedule continues"),
    }
    return {
        f"{state}_{schedule}": Arm(
            f"{words}, {how}",
            settings={"optimizer_state": value, "schedule": kind},
            rewarms=rewarms,
        )
        for state, (value, words) in states.items()
        for schedule, (kind, rewarms, how) in schedules.items()
        # That is `self_fusion_50`.
        if (value, kind) != ("fresh", "restart")
    }


_COPIES = {"fill": "copies", "noise": 0.0}

ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "baseline": _baseline(),
        # Where it is ahead of the baseline, the budget is too small for the bigger model.
        "small_alone": Arm(
            "the small model, for all of the budget", CONTROL, "scratch", size="S", share=0.0
        ),
        "half_alone": Arm(
            "half of the big model's layers, for all of the budget",
            CONTROL,
            "scratch",
            share=0.0,
            source=HALF,
        ),
        **{
            # What a fresh optimizer and a restart give to a model that does not grow.
            f"restarted_{round(100 * share)}": Arm(
                f"from random weights, restarted at {share:.0%} of the budget",
                REFERENCE,
                "restarted",
                share=share,
                source=WHOLE,
            )
            for share in SHARES[:2]
        },
        **_when_to_fuse(),
        **_after_the_fusion(),
        "balanced": Arm("balanced noise", settings={"noise_kind": "balanced"}),
        "unequal": Arm(
            "copies in all blocks, of unequal shares (LEMON)",
            settings={**_COPIES, "asymmetry": 0.1},
        ),
        "without_noise": Arm("zero blocks stay zero at first", settings={"noise": 0.0}),
        "mlp": Arm("only the MLPs grow", growth=("mlp",)),
        "heads": Arm("only the heads grow", growth=("heads",)),
        "two_steps": Arm("the MLPs grow, then the rest", growth=("mlp", "hidden+heads")),
        "hypercloning": Arm(
            "HyperCloning: copies in all blocks, noise 10 dB below them",
            PEER,
            settings={
                "fill": "copies",
                "noise": 10 ** (-_DECIBELS / 20) / 2,
                "noise_kind": "balanced",
            },
        ),
        "net2net": Arm("Net2Net, bert2BERT: copies in all blocks", PEER, settings=_COPIES),
        "stacked": Arm("G_stack: layers of the small model stacked", PEER, "stacked"),
        "stacked_half": Arm(
            "G_stack: half of the big model's layers stacked", PEER, "stacked", source=HALF
        ),
        "staged_training": Arm(
            "Staged Training: m/2, v/4 on the diagonal, schedule continues",
            PEER,
            settings={"optimizer_state": "grown_diagonal", "schedule": "continue"},
        ),
        "sparkling": Arm(
            "copies, optimizer state of the first one alone, schedule continues after a ramp",
            PEER,
            settings={**_COPIES, "optimizer_state": "grown_first", "schedule": "continue"},
            rewarms=True,
        ),
        **{f"baseline_{name}": _baseline(name) for name in ("adamw", "muon")},
        **{
            f"self_fusion_{name}": Arm(f"self-fusion, {name}", optimizer=name)
            for name in ("adamw", "muon")
        },
    }
)
