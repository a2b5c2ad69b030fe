"""The plans that are known: the experiments of the paper, as far as its text tells them.

The first four are those of section 5.1 (Tables 1 and 2, Figure 1).
"""

from trainers.graphs import Stage
from trainers.plans.plan import Plan

# Seeds: the two small models differ. All models of size M share a third one, so that they see the
# same batches in the same order, none of them those that their sources were trained on.
_SMALL_0 = Stage("small_0", "S", seed=0)
_SMALL_1 = Stage("small_1", "S", seed=1)
_BOTH = ("small_0", "small_1")
_M_SEED = 2

PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            "baseline",
            "the big model from random weights",
            (Stage("baseline", "M", seed=_M_SEED),),
        ),
        Plan(
            "self_fusion",
            "one small model fused with itself",
            (
                _SMALL_0,
                Stage("self_fusion", "M", "self_fusion", ("small_0",), copies=2, seed=_M_SEED),
            ),
        ),
        Plan(
            "fusion_property",
            "two small models fused, each half normalised apart",
            (
                _SMALL_0,
                _SMALL_1,
                Stage("fusion_property", "M", "fusion_property", _BOTH, seed=_M_SEED),
            ),
        ),
        Plan(
            "fusion_rule",
            "two small models fused, normalised as one",
            (_SMALL_0, _SMALL_1, Stage("fusion_rule", "M", "fusion_rule", _BOTH, seed=_M_SEED)),
        ),
    )
}
