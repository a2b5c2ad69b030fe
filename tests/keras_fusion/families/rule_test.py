"""The weights of `norm="rule"` are Eq. 5's, put together here by hand."""

import numpy as np
import pytest

import keras_fusion as kf
from tests.keras_fusion.families import stock

pytestmark = pytest.mark.one_backend

WEIGHTS = [0.7, 0.3]


def arrays(model):
    return {v.path: np.asarray(v) for v in model.backbone.weights}


def diagonal(a, b, dims):
    """Each source's block at the end of the other's along some dimensions, zeros elsewhere."""
    shape = [a.shape[i] + b.shape[i] * (i in dims) for i in range(a.ndim)]
    fused = np.zeros(shape, a.dtype)
    fused[tuple(slice(0, size) for size in a.shape)] = a
    fused[tuple(slice(-s, None) if i in dims else slice(None) for i, s in enumerate(b.shape))] = b
    return fused


def expected_gpt2(path, a, b):
    """A tied head: the last norm takes the weights of the mean."""
    name = path.split("/", 1)[-1]
    if path.startswith("layer_norm/"):
        return np.concatenate([0.7 * a, 0.3 * b])
    if a.ndim == 1:
        return np.concatenate([a, b])
    if "embedding" in path:
        return np.concatenate([a, b], axis=1)
    if "attention_output/kernel" in name:  # (heads, head size, hidden)
        return diagonal(a, b, {0, 2})
    if name.endswith(("query/kernel", "key/kernel", "value/kernel")):  # (hidden, heads, head size)
        return diagonal(a, b, {0, 1})
    if name.endswith(("query/bias", "key/bias", "value/bias")):
        return np.concatenate([a, b], axis=0)
    return diagonal(a, b, {0, 1})


def expected_llama(path, a, b):
    """A head of its own: its rows take the weights of the mean."""
    if path == "token_embedding/reverse_embeddings":
        return np.concatenate([0.7 * a, 0.3 * b], axis=0)
    if path == "token_embedding/embeddings":
        return np.concatenate([a, b], axis=1)
    if a.ndim == 1:
        return np.concatenate([a, b])
    if "attention_output" in path:
        return diagonal(a, b, {0, 2})
    # Query heads of one source follow one another, so that each reads its own key head.
    return diagonal(a, b, {0, 1})


@pytest.mark.parametrize(
    "name, expected", [("GPT2CausalLM", expected_gpt2), ("LlamaCausalLM", expected_llama)]
)
def test_the_weights_are_those_of_equation_5(name, expected):
    case = stock.BY_NAME[name]
    a, b = stock.source(case), stock.source(case, seed=1, other=True)
    fused = kf.fuse([a, b], norm="rule", weights=WEIGHTS)
    assert type(fused) is type(a) and type(fused.backbone) is type(a.backbone)
    first, second, got = arrays(a), arrays(b), arrays(fused)
    assert first.keys() == second.keys() == got.keys() and len(got) > 15
    for path, value in got.items():
        np.testing.assert_array_equal(
            value, expected(path, first[path], second[path]).astype("float32"), err_msg=path
        )
