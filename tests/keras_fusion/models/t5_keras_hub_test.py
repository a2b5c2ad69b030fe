"""The forward pass against an independent T5: KerasHub's backbone with the same weights."""

import numpy as np
import pytest
from keras import ops

from tests.keras_fusion.models import tiny


@pytest.fixture(scope="module")
def peers():
    """The benchmarks' KerasHub models; imported here, as that takes seconds."""
    return pytest.importorskip("benchmarks._keras_hub")


@pytest.mark.filterwarnings("ignore:Layer '.*_attention'.*does not support masking")
@pytest.mark.parametrize(
    "version",
    [tiny.V1_1, pytest.param(tiny.V1_0, marks=pytest.mark.slow)],
    ids=["v1.1", "v1.0"],
)
@pytest.mark.one_backend
def test_the_same_hidden_states_and_logits(version, peers):
    model = tiny.model(num_heads=3, **version)
    peer = peers.peer_of(model)
    assert sum(np.prod(w.shape) for w in peer.weights) == model.count_params()
    # Longer than 16 and 128 positions, so that buckets of all kinds are read.
    inputs = tiny.batch(padding=True, lengths=(140, 40))
    theirs = peer(inputs, training=False)
    encoded = model.encode(inputs["encoder_token_ids"], inputs["encoder_padding_mask"])
    real = inputs["encoder_padding_mask"].astype(bool)
    expected = ops.convert_to_numpy(theirs["encoder_sequence_output"])
    hidden = ops.convert_to_numpy(encoded)
    assert tiny.relative_gap(hidden[real], expected[real]) <= 1e-5

    hidden = theirs["decoder_sequence_output"]
    if model.config.tie_embedding_weights:
        hidden = hidden * model.config.hidden_dim**-0.5
    expected = ops.convert_to_numpy(peer.token_embedding(hidden, reverse=True))
    real = inputs["decoder_padding_mask"].astype(bool)
    logits = tiny.logits(model, inputs)
    assert tiny.relative_gap(logits[real], expected[real]) <= 1e-5
