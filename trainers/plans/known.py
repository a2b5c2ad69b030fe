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

from trainers.plans.graph import Stage, ancestors, in_order
from trainers.plans.plan import Plan, merge

# Seeds: the small models differ. All models of size M that stand alone share a third one, so that
# they see the same batches in the same order, none of them those that their sources were trained
# on. Two that are fused differ. All models of size L share one.
_M_SEED, _M_SEED_1, _L_SEED = 2, 3, 6


def _m(name: str, init: str = "scratch", *sources: str, seed: int = _M_SEED, **fields) -> Stage:
    return Stage(name, "M", init, sources, seed=seed, **fields)


def _l(name: str, init: str = "scratch", *sources: str, **fields) -> Stage:
    return Stage(name, "L", init, sources, seed=_L_SEED, **fields)


BASELINE = _m("baseline")
SELF_FUSION = _m("self_fusion", "self_fusion", "small_0", copies=2)
# The paper's baseline took 0.86 more of its steps to meet self-fusion; here it has as many again.
LONGER = Stage("baseline_longer", "M", "continued", ("baseline",), until="self_fusion")

_PAIR, _OTHER_PAIR = ("small_0", "small_1"), ("small_2", "small_3")
_STAGES = in_order(
    (
        BASELINE,
        Stage("small_0", "S", seed=0),
        Stage("small_1", "S", seed=1, like="small_0"),
        Stage("small_2", "S", seed=4, like="small_0"),
        Stage("small_3", "S", seed=5, like="small_0"),
        SELF_FUSION,
        _m("fusion_property", "fusion_property", *_PAIR),
        _m("fusion_rule", "fusion_rule", *_PAIR),
        LONGER,
        _m("baseline_1", seed=_M_SEED_1, like="baseline"),
        _m(
            "fusion_property_1",
            "fusion_property",
            *_OTHER_PAIR,
            seed=_M_SEED_1,
            like="fusion_property",
        ),
        _l("figure2_1", like="baseline"),
        _l("figure2_3", "fusion_property", "baseline", "baseline_1"),
        _l("figure2_4", "fusion_property", "fusion_property", "fusion_property_1"),
        _l("figure2_5", "self_fusion", "baseline", copies=2),
        _l("figure2_6", "self_fusion", "self_fusion", copies=2),
        _l("four_at_once", "fusion_property", *_PAIR, *_OTHER_PAIR),
        _l("pair_then_self", "self_fusion", "fusion_property", copies=2, norm="property"),
    )
)


def _plans(**descriptions: str) -> tuple[Plan, ...]:
    """The plan of each stage, with all that it comes from."""
    return tuple(Plan(name, text, ancestors(_STAGES, name)) for name, text in descriptions.items())


_TABLE_1 = _plans(
    baseline="the big model from random weights",
    self_fusion="one small model fused with itself",
    fusion_property="two small models fused, each half normalised apart",
    fusion_rule="two small models fused, normalised as one",
    baseline_longer="the baseline is trained on until it is as accurate as self-fusion, or as long "
    "again",
)
_FIGURE_2 = _plans(
    figure2_1="the large model from random weights",
    figure2_3="two medium models fused",
    figure2_4="four small models fused in pairs, then the two",
    figure2_5="a medium model fused with itself",
    figure2_6="a small model fused with itself, and that once more",
)
_POSSIBLE = _plans(
    four_at_once="four small models fused at once; no setting of the paper",
    pair_then_self="two small models fused, then that with itself; no setting of the paper",
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
