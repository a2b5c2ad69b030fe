"""Several examples in one row, against the same examples in rows of their own."""

import numpy as np
import pytest
from keras import ops

from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.derivatives import Derivatives
from tests.keras_fusion.models import tiny

# Tokens that the encoder and the decoder see of each example; the last one reaches the distance
# from which on all positions share a bucket.
LENGTHS = [(5, 3), (9, 6), (4, 1), (140, 7)]
# Which examples a row holds. Rows without any give all batches one shape: JAX compiles it once.
PACKED, ALONE = [(0, 3), (2, 1), (), ()], [(0,), (1,), (2,), (3,)]
VERSIONS = pytest.mark.parametrize(
    "version", [tiny.V1_1, pytest.param(tiny.V1_0, marks=pytest.mark.slow)], ids=["v1.1", "v1.0"]
)


def fused(version, norm):
    a = tiny.shared(0, num_layers=1, **version)
    return a.fuse(tiny.shared(1, num_layers=1, hidden_dim=6, **version), norm=norm, noise=0.1)


def join(rows, parts, length):
    """Tokens and segment ids (rows, length) of rows that hold some of the parts."""
    tokens, segments = np.zeros((2, len(rows), length), "int32")
    for row, members in enumerate(rows):
        start = 0
        for number, member in enumerate(members, start=1):
            stop = start + len(parts[member])
            tokens[row, start:stop], segments[row, start:stop] = parts[member], number
            start = stop
    return tokens, segments


def batch_of(rows):
    """A batch of the same examples, whatever rows they are in."""
    rng = np.random.default_rng(0)
    inputs, decoder, targets = (
        [rng.integers(2, 23, lengths[side]).astype("int32") for lengths in LENGTHS]
        for side in (0, 1, 1)
    )
    long, short = 150, 12
    batch = {}
    batch["encoder_token_ids"], batch["encoder_segment_ids"] = join(rows, inputs, long)
    batch["decoder_token_ids"], batch["decoder_segment_ids"] = join(rows, decoder, short)
    batch["targets"], _ = join(rows, targets, short)
    return batch


def padded():
    """The examples in rows of their own, with masks in place of segments."""
    batch = batch_of(ALONE)
    for side in ("encoder", "decoder"):
        batch[f"{side}_padding_mask"] = batch.pop(f"{side}_segment_ids")
    return batch


def logits_by_example(logits, rows):
    """Logits of each example's tokens, out of the rows that hold them."""
    examples = {}
    for row, members in zip(logits, rows, strict=True):
        ends = np.cumsum([LENGTHS[member][1] for member in members])
        examples |= dict(zip(members, np.split(row, ends)[:-1], strict=True))
    return np.concatenate([examples[member] for member in sorted(examples)])


@VERSIONS
@pytest.mark.parametrize("norm", ["property", pytest.param("rule", marks=pytest.mark.one_backend)])
def test_an_example_has_the_same_logits_wherever_it_lies(version, norm):
    model = fused(version, norm)
    expected = logits_by_example(tiny.logits(model, padded()), ALONE)
    for rows in (PACKED, [members[::-1] for members in PACKED], ALONE):
        logits = logits_by_example(tiny.logits(model, batch_of(rows)), rows)
        assert tiny.relative_gap(logits, expected) < 1e-5


@VERSIONS
@pytest.mark.one_backend
def test_the_loss_and_its_gradient_are_the_same(version):
    model = tiny.shared(num_layers=1, **version)
    values, gradients = [], []
    for batch in (batch_of(PACKED), padded()):
        at = Derivatives(model, batch, mean_cross_entropy)
        value, gradient = at.gradient(at.weights())
        values.append(value)
        gradients.append(
            np.concatenate([ops.convert_to_numpy(slopes).ravel() for slopes in gradient])
        )
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert np.linalg.norm(gradients[0] - gradients[1]) < 1e-5 * np.linalg.norm(gradients[1])


@pytest.mark.one_backend
def test_without_segments_examples_of_a_row_see_each_other():
    """Shows what the tests above would find if nothing were hidden."""
    model = tiny.shared(num_layers=1)
    batch = batch_of(PACKED)
    expected = logits_by_example(tiny.logits(model, batch), PACKED)
    inputs = {name: value for name, value in batch.items() if "segment" not in name}
    assert tiny.relative_gap(logits_by_example(tiny.logits(model, inputs), PACKED), expected) > 1e-2


@pytest.mark.parametrize("hidden", ["encoder", "decoder"])
def test_each_attention_stays_in_its_segment(hidden):
    """Changing one example, on one side, changes nothing of its neighbour."""
    model = fused(tiny.V1_1, "property")
    batch = batch_of([(0, 1), (), (), ()])
    changed = {name: value.copy() for name, value in batch.items()}
    first = batch[f"{hidden}_segment_ids"] == 1
    changed[f"{hidden}_token_ids"][first] = 22
    before, after = (tiny.logits(model, inputs)[0] for inputs in (batch, changed))
    ends = np.cumsum([LENGTHS[member][1] for member in (0, 1)])
    assert np.abs(before - after)[: ends[0]].max() > 1e-3
    np.testing.assert_allclose(before[ends[0] : ends[1]], after[ends[0] : ends[1]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
@pytest.mark.one_backend
def test_a_row_without_examples_is_finite(dtype):
    model = tiny.shared(num_layers=1, dtype=dtype)
    batch = batch_of([(0, 1), ()])
    batch["encoder_segment_ids"][0, -1] = 3  # Nothing of the decoder belongs to it.
    assert np.isfinite(tiny.logits(model, batch)).all()


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.one_backend
def test_segments_of_one_side_alone_are_refused(side):
    batch = batch_of(PACKED)
    del batch[f"{side}_segment_ids"]
    with pytest.raises(ValueError, match="together.*Received: inputs="):
        tiny.shared(num_layers=1)(batch)
