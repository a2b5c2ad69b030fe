"""The plans that are known: the experiments of the paper, as far as its text tells them.

`table1` is section 5.1 (Tables 1 and 2, Figure 1), `figure2` section 5.2 (Tables 3 and 4): each
stands for plans that can be asked for alone. The plans made from lists of values are in
`trainers.plans.generated`.

Figure 2 is a drawing that the text does not tell in full. What it tells: (1) the large model from
random weights, (3) two medium models fused, (4) four small ones fused in pairs, then the two, (5)
one medium model fused with itself, (6) a small one fused with itself, and that again. Setting (2)
is not told and is not here. `four_at_once` and `pair_then_self` are what the text leaves possible;
they claim to be no setting of the paper and are not part of `figure2`. A fusion here keeps the
fusion property, a self-fusion the rule, as those of section 5.1 do; except that what is fused from
models with a norm for each part keeps these, since one norm would change its function.
"""

from trainers.plans.graph import Stage
from trainers.plans.plan import Plan, merge

# Seeds: the small models differ. All models of size M that stand alone share a third one, so that
# they see the same batches in the same order, none of them those that their sources were trained
# on. Two that are fused differ. All models of size L share one.
_SMALL = tuple(
    Stage(f"small_{i}", "S", seed=seed, like="small_0" if i else None)
    for i, seed in enumerate((0, 1, 4, 5))
)
_SMALL_0, _SMALL_1, _SMALL_2, _SMALL_3 = _SMALL
_BOTH = ("small_0", "small_1")
_M_SEED, _M_SEED_1 = 2, 3
_L_SEED = 6

BASELINE = Stage("baseline", "M", seed=_M_SEED)
SELF_FUSION = Stage("self_fusion", "M", "self_fusion", ("small_0",), copies=2, seed=_M_SEED)
_PROPERTY = Stage("fusion_property", "M", "fusion_property", _BOTH, seed=_M_SEED)
# The paper's baseline took 0.86 more of its steps to meet self-fusion; here it has as many again.
LONGER = Stage("baseline_longer", "M", "continued", ("baseline",), until="self_fusion")
_RULE = Stage("fusion_rule", "M", "fusion_rule", _BOTH, seed=_M_SEED)

_TABLE_1 = (
    Plan("baseline", "the big model from random weights", (BASELINE,)),
    Plan("self_fusion", "one small model fused with itself", (_SMALL_0, SELF_FUSION)),
    Plan(
        "fusion_property",
        "two small models fused, each half normalised apart",
        (_SMALL_0, _SMALL_1, _PROPERTY),
    ),
    Plan(
        "fusion_rule",
        "two small models fused, normalised as one",
        (_SMALL_0, _SMALL_1, _RULE),
    ),
    Plan(
        "baseline_longer",
        "the baseline is trained on until it is as accurate as self-fusion, or as long again",
        (BASELINE, _SMALL_0, SELF_FUSION, LONGER),
    ),
)

_BASELINE_1 = Stage("baseline_1", "M", seed=_M_SEED_1, like="baseline")
_PROPERTY_1 = Stage(
    "fusion_property_1",
    "M",
    "fusion_property",
    ("small_2", "small_3"),
    seed=_M_SEED_1,
    like="fusion_property",
)


def _fused(name: str, *sources: str) -> Stage:
    return Stage(name, "L", "fusion_property", sources, seed=_L_SEED)


def _self_fused(name: str, source: str, norm: str | None = None) -> Stage:
    return Stage(name, "L", "self_fusion", (source,), copies=2, norm=norm, seed=_L_SEED)


_FIGURE_2 = (
    Plan(
        "figure2_1",
        "the large model from random weights",
        (Stage("figure2_1", "L", seed=_L_SEED, like="baseline"),),
    ),
    Plan(
        "figure2_3",
        "two medium models fused",
        (BASELINE, _BASELINE_1, _fused("figure2_3", "baseline", "baseline_1")),
    ),
    Plan(
        "figure2_4",
        "four small models fused in pairs, then the two",
        (*_SMALL, _PROPERTY, _PROPERTY_1, _fused("figure2_4", "fusion_property", _PROPERTY_1.name)),
    ),
    Plan(
        "figure2_5",
        "a medium model fused with itself",
        (BASELINE, _self_fused("figure2_5", "baseline")),
    ),
    Plan(
        "figure2_6",
        "a small model fused with itself, and that once more",
        (_SMALL_0, SELF_FUSION, _self_fused("figure2_6", "self_fusion")),
    ),
)

_POSSIBLE = (
    Plan(
        "four_at_once",
        "four small models fused at once; no setting of the paper",
        (*_SMALL, _fused("four_at_once", *(stage.name for stage in _SMALL))),
    ),
    Plan(
        "pair_then_self",
        "two small models fused, then that with itself; no setting of the paper",
        (
            _SMALL_0,
            _SMALL_1,
            _PROPERTY,
            _self_fused("pair_then_self", "fusion_property", norm="property"),
        ),
    ),
)


def _together(name: str, description: str, plans: tuple[Plan, ...]) -> Plan:
    """A plan that stands for others; the last stage of each is a row of the same table."""
    return Plan(name, description, merge(plans), {plan.final: {"row": plan.name} for plan in plans})


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        *_TABLE_1,
        _together("table1", "Tables 1 and 2, Figure 1: ways to a model of size M", _TABLE_1),
        *_FIGURE_2,
        _together("figure2", "Tables 3 and 4: ways to a model of size L", _FIGURE_2),
        *_POSSIBLE,
    )
}
