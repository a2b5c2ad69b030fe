"""Every family, every operation: measured, and noted in docs/models.json."""

import re
import warnings

import numpy as np
import pytest

import keras_fusion as kf
from tests import models_table
from tests.keras_fusion.families import stock

FAMILIES = tuple(dict.fromkeys(case.family for case in stock.CASES))


def measure_self_fusion(case):
    model = stock.source(case)
    feeds = stock.inputs(model)
    expected = stock.logits(model, feeds)
    return max(stock.gap(kf.self_fuse(model, n, check=False), expected, feeds) for n in (2, 3, 4))


def measure_mlp(case):
    model = stock.source(case)
    feeds = stock.inputs(model)
    expected = stock.logits(model, feeds)
    wide = [
        kf.grow(model, mlp=2, check=False),
        kf.grow(model, mlp=3, fill="copies", asymmetry=0.2, check=False),
    ]
    assert len({stock.config(m)["hidden_dim"] for m in (model, *wide)}) == 1
    return max(stock.gap(grown, expected, feeds) for grown in wide)


def measure_heads(case):
    model = stock.source(case)
    feeds = stock.inputs(model)
    expected = stock.logits(model, feeds)
    wide = kf.grow(model, heads=2, check=False)
    assert stock.config(wide)["hidden_dim"] == stock.config(model)["hidden_dim"]
    return stock.gap(wide, expected, feeds)


def measure_rule(case):
    a, b = stock.source(case), stock.source(case, seed=1, other=True)
    feeds = stock.inputs(a)
    twin = stock.make(case)
    twins = kf.fuse([a, twin], norm="rule", check=False)
    assert stock.gap(twins, stock.logits(a, feeds), feeds) <= models_table.EXACT
    fused = kf.fuse([a, b], norm="rule", weights=[0.7, 0.3])
    assert type(fused) is type(a)
    hidden = [stock.config(model)["hidden_dim"] for model in (a, b, fused)]
    assert hidden[2] == hidden[0] + hidden[1]
    return stock.gap(fused, stock.mean_logits([a, b], feeds, [0.7, 0.3]), feeds)


def measure_property(case):
    a, b = stock.source(case), stock.source(case, seed=1, other=True)
    c = stock.source(case, seed=2)
    feeds = stock.inputs(a)
    if case.shares_norms:
        # What differs between networks that were trained apart.
        apart = stock.make(case, seed=1)
        stock.randomize(apart, seed=1)
        return kf.fuse([a, apart])
    gaps = []
    for models, weights in (([a, b], [0.7, 0.3]), ([a, b, c], [0.5, 0.2, 0.3])):
        fused = kf.fuse(models, weights=weights, check=False)
        gaps.append(stock.gap(fused, stock.mean_logits(models, feeds, weights), feeds))
    return max(gaps)


OPERATIONS = {
    "self_fusion": measure_self_fusion,
    "rule": measure_rule,
    "property": measure_property,
    "mlp": measure_mlp,
    "heads": measure_heads,
}


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell(family, operation, note_model):
    measured, cases = [], [case for case in stock.CASES if case.family == family]
    for case in cases:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", kf.SymmetryWarning)
                measured.append(OPERATIONS[operation](case))
        except kf.FusionError as error:
            measured.append(_reason(error))
    assert len({isinstance(value, str) for value in measured}) == 1, measured
    if isinstance(measured[0], str):
        expected = {"heads": not cases[0].free_heads, "property": cases[0].shares_norms}
        assert expected.get(operation) and len(set(measured)) == 1
    elif operation != "rule":
        assert max(measured) <= models_table.EXACT
    note_model(family, "keras_hub", operation, max(measured))


def _reason(error):
    """A refusal's text without what is of one class alone."""
    text = str(error).removeprefix("cannot fuse: ")
    return re.sub(r"\b\w+Backbone\b", "these classes", text)


@pytest.mark.slow
@pytest.mark.parametrize("case", stock.CASES, ids=str)
def test_self_fusion_in_bfloat16(case):
    model = stock.source(case, dtype="bfloat16")
    feeds = stock.inputs(model)
    wide = kf.self_fuse(model, 2, noise=0.01)
    dtypes = [[v.dtype for v in m.variables] for m in (model, wide)]
    assert dtypes[0] == dtypes[1] and "bfloat16" in dtypes[1]
    wide = kf.self_fuse(model, 2)
    # A bfloat16 has eight bits, and close to a soft cap they say little of what was capped.
    tolerance = 0.3 if case.cap else 0.1
    assert stock.gap(wide, stock.logits(model, feeds), feeds) <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in stock.CASES if c.shares_norms], ids=str)
def test_equal_norms_of_all_heads_are_exact_for_different_sources(case):
    a, b = stock.source(case), stock.source(case, seed=1, other=True)
    feeds = stock.inputs(a)
    fused = kf.fuse([a, b], weights=[0.7, 0.3])
    expected = stock.mean_logits([a, b], feeds, [0.7, 0.3])
    assert stock.gap(fused, expected, feeds) <= models_table.EXACT


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in stock.CASES if c.shares_norms], ids=str)
def test_the_rule_takes_the_mean_of_norms_of_all_heads_and_says_so(case):
    a, b = stock.make(case), stock.make(case, seed=1)
    stock.randomize(b, seed=1)
    with pytest.warns(UserWarning, match="norms that all heads share .* kf.fusion_gap"):
        fused = kf.fuse([a, b], norm="rule")
    for made, *sources in zip(fused.variables, a.variables, b.variables, strict=True):
        if any(name in made.path for name in stock.SHARED_NORMS):
            np.testing.assert_allclose(made, (sources[0] + sources[1]) / 2, rtol=1e-6)
