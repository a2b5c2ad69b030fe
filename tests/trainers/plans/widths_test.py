"""Widths of a plan's models: they add up, or what does not is named."""

import pytest

from trainers import plans
from trainers.errors import UserError
from trainers.plans.widths import check_widths

S = {"num_layers": 2, "hidden_dim": 8, "num_heads": 2, "intermediate_dim": 16, "dropout": 0.0}
M = S | {"hidden_dim": 16, "num_heads": 4, "intermediate_dim": 32, "dropout": 0.1}


def test_widths_that_add_up_pass():
    check_widths(plans.stages_of(["table1"]), {"S": S, "M": M})


def test_every_width_that_does_not_add_up_is_named():
    stages = plans.stages_of(["self_fusion"])
    big = M | {"hidden_dim": 12, "num_heads": 5}
    with pytest.raises(UserError, match=r"hidden_dim=8\+8, not 12; num_heads=2\+2, not 5"):
        check_widths(stages, {"S": S, "M": big})


def test_a_depth_that_differs_is_named():
    stages = plans.stages_of(["self_fusion"])
    with pytest.raises(UserError, match="num_layers=2, not 3"):
        check_widths(stages, {"S": S, "M": M | {"num_layers": 3}})


def test_a_size_that_is_not_defined_is_named():
    with pytest.raises(UserError, match="size='M' of stage 'baseline'"):
        check_widths(plans.stages_of(["baseline"]), {"S": S})
