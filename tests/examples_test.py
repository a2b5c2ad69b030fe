"""The examples run: in a reduced form, with every line of their tables."""

import importlib

import pytest

SOURCES = 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("fuse_mlps", marks=pytest.mark.slow),  # documents_test.py fuses perceptrons
        pytest.param("fuse_convnets", marks=pytest.mark.slow),
        pytest.param("fuse_text_classifiers", marks=pytest.mark.slow),
    ],
)
def test_an_example(name, capsys):
    rows = importlib.import_module(f"examples.{name}").main(steps=3, more_steps=2)
    *sources, fused, trained, scratch = rows
    assert len(sources) == SOURCES
    assert fused.flops == sum(row.flops for row in sources) < trained.flops
    assert fused.parameters == trained.parameters == scratch.parameters
    # The same compute, to a whole number of steps.
    assert scratch.flops == pytest.approx(trained.flops, rel=0.2)
    assert all(0 <= row.accuracy <= 1 and row.loss > 0 for row in rows)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [str(row) for row in rows]


def test_folders_of_transformers(capsys):
    plans = importlib.import_module("examples.fuse_llama_folders").main()
    assert [plan.is_exact for plan in plans.values()] == [False, True, True]
    assert capsys.readouterr().out.count("result: LlamaForCausalLM") == 3


@pytest.mark.slow
def test_a_grown_gpt2_writes_the_same_and_learns_on(capsys):
    small, fused, trained = importlib.import_module("examples.grow_gpt2").main(40, 40)
    assert fused.tokens == small.tokens and len(fused.tokens) == 9
    assert fused.loss == pytest.approx(small.loss, rel=1e-4)
    assert trained.loss < fused.loss
    assert 3 * small.parameters < trained.parameters == fused.parameters
    printed = capsys.readouterr().out.splitlines()
    assert printed[2:5] == [str(row) for row in (small, fused, trained)]
    assert printed[5].endswith("GPT2CausalLM, 48 wide")
