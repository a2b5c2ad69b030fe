"""Sources at unequal steps are refused before they are trained, where their steps go on."""

import pytest

from tests.trainers import nano
from trainers import pretrain
from trainers.errors import UserError
from trainers.plans import settings
from trainers.plans.counts import check_counts
from trainers.plans.graph import Stage

STEPS = {"steps": {"": 10, "long": 20}, "learning_rate_offset": {"late": 10}}
BOTH = {"optimizer_state": "grown", "schedule": "continue"}
SMALL = [
    *(Stage("a", "S"), Stage("b", "S"), Stage("long", "S"), Stage("late", "S")),
    Stage("longer", "S", "continued", ("a",)),
    Stage("big", "M", "self_fusion", ("a",), copies=2, settings=BOTH),
    Stage("restarted", "M", "self_fusion", ("a",), copies=2),
    Stage("early", "S", "continued", ("a",), until="b"),
]


def check(*sources, source_steps=(), **fields):
    last = Stage(
        "last", "M", "fusion_rule", sources, settings=fields, source_steps=dict(source_steps)
    )
    stages = [*SMALL, last]
    check_counts(stages, {s.name: settings.resolve(s, nano.NANO, STEPS) for s in stages})


@pytest.mark.parametrize(
    ("sources", "counts"),
    [
        (("a", "long"), "a at 10, 10, long at 20, 20"),
        (("a", "late"), "a at 10, 10, late at 10, 20"),
        (("longer", "b"), "longer at 20, 20, b at 10, 10"),
        (("big", "restarted"), "big at 20, 20, restarted at 10, 10"),
    ],
)
def test_unequal_steps_are_refused(sources, counts):
    with pytest.raises(UserError, match=f"stage 'last' at one step.*Received: {counts}[.]"):
        check(*sources, **BOTH)
    check(*sources)


def test_equal_steps_are_not():
    check("a", "b", **BOTH)
    check("longer", "long", "big", **BOTH)
    check("a", "long", source_steps={"long": 10}, **BOTH)
    check("early", "b", **BOTH)  # nobody knows where it ends


def test_a_command_is_refused_before_anything_is_trained():
    flags = ("--plan=shapes", "--size=tiny", "--workdir=nowhere", "--optimizer_state=grown")
    with pytest.raises(UserError, match="'shapes_fused' at one step of optimizer"):
        nano.config_of(pretrain, *flags)
