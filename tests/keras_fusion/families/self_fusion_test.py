"""A stock model fused with itself is a stock model that computes the same."""

import pytest

import keras_fusion as kf
from tests.keras_fusion.families import stock


def cases():
    """A case of each family; JAX compiles every operation, so it has one of them."""
    for case in stock.FAMILIES:
        marks = () if case.family == "GPT-2" else pytest.mark.one_backend
        yield pytest.param(case, id=str(case), marks=marks)


@pytest.mark.parametrize("case", list(cases()))
def test_a_model_with_itself(case):
    model = stock.source(case)
    with pytest.warns(kf.SymmetryWarning, match="never part"):
        wide = kf.self_fuse(model, 2)
    assert type(wide) is type(model) and wide.name == model.name
    expected, got = stock.config(model), stock.config(wide)
    assert got["hidden_dim"] == 2 * expected["hidden_dim"]
    assert got.keys() == expected.keys()
    feeds = stock.inputs(model)
    assert stock.gap(wide, stock.logits(model, feeds), feeds) <= 1e-5
