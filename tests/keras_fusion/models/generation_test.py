"""Generation with a cache, against full forward passes that know no cache."""

import collections
import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.models import generation
from tests import eager
from tests.keras_fusion.models import tiny


@pytest.fixture
def untraced():
    """Has TensorFlow run what it would trace, which takes longer than some tokens."""
    with eager.eager():
        yield


def by_forward_passes(model, token_ids, padding_mask, length, end_id=1):
    """Greedy decoding by one whole forward pass per token."""
    tokens = np.zeros((len(token_ids), length + 1), "int32")
    done = np.zeros(len(token_ids), bool)
    for index in range(length):
        # The decoder sees the whole array; what is not yet written lies ahead and is masked.
        inputs = {"encoder_token_ids": token_ids, "decoder_token_ids": tokens[:, :length]}
        if padding_mask is not None:
            inputs["encoder_padding_mask"] = padding_mask
        chosen = tiny.logits(model, inputs)[:, index].argmax(-1)
        tokens[:, index + 1] = np.where(done, 0, chosen)
        done |= chosen == end_id
    return tokens[:, 1:]


def lively(**overrides):
    """A T5 that says more than one token; a fresh one mostly repeats itself."""
    model = tiny.model(**overrides)
    # numpy's numbers: the backends draw different ones from the same seed.
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if len(weight.shape) == 2:
            scale = 3.0 if weight.name == "table" else 0.5
            weight.assign(scale * rng.normal(size=weight.shape) / weight.shape[0] ** 0.5)
    table = ops.convert_to_numpy(model.token_embedding.embeddings)
    model.token_embedding.embeddings.assign(table / np.linalg.norm(table, axis=1, keepdims=True))
    # Scales of both signs: the tied head does not find its own input likeliest.
    model.decoder.final_norm.scale.assign(rng.normal(size=table.shape[1]))
    return model


@pytest.mark.parametrize(
    ("version", "end_id"),
    [
        pytest.param(tiny.V1_1, -1, id="v1.1"),
        pytest.param(tiny.V1_0, 9, id="v1.0"),
        pytest.param(tiny.V1_1, 9, id="v1.1-end", marks=pytest.mark.slow),
        pytest.param(tiny.V1_0, -1, id="v1.0-long", marks=pytest.mark.slow),
    ],
)
def test_greedy_equals_full_forward_passes(version, end_id):
    model = lively(num_layers=1 if end_id > 0 else 2, **version)
    inputs = tiny.batch(padding=True, size=3)
    token_ids, mask = inputs["encoder_token_ids"], inputs["encoder_padding_mask"]
    tokens = model.generate(token_ids, mask, max_length=10, end_id=end_id)
    assert tokens.shape == (3, 10)
    expected = by_forward_passes(model, token_ids, mask, 10, end_id)
    np.testing.assert_array_equal(tokens, expected)
    assert end_id > 0 or any(len(set(row)) > 1 for row in tokens.tolist())


@pytest.mark.parametrize(
    "dtype",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_greedy_in_mixed_precision(untraced, dtype):
    wide, half = lively(num_layers=1), lively(num_layers=1, dtype=dtype)
    token_ids = tiny.batch(size=4)["encoder_token_ids"]
    tokens, expected = (
        model.generate(token_ids, max_length=4, end_id=-1) for model in (half, wide)
    )
    assert np.mean(tokens == expected) > 0.5


@pytest.mark.parametrize(
    ("version", "norm"),
    [
        pytest.param(tiny.V1_1, "property", id="v1.1-property"),
        # test_greedy_equals_full_forward_passes has v1.0, whose norms over a fusion are plain.
        pytest.param(tiny.V1_0, "rule", id="v1.0-rule", marks=pytest.mark.slow),
        pytest.param(tiny.V1_1, "rule", id="v1.1-rule", marks=pytest.mark.slow),
        pytest.param(tiny.V1_0, "property", id="v1.0-property", marks=pytest.mark.slow),
    ],
)
@pytest.mark.one_backend
def test_greedy_with_a_fused_model(untraced, version, norm):
    small = lively(num_layers=1, **version)
    narrow = tiny.model(1, num_layers=1, hidden_dim=6, **version)
    model = small.fuse(narrow, norm=norm, noise=0.1)
    token_ids = tiny.batch()["encoder_token_ids"]
    tokens = model.generate(token_ids, max_length=6)
    np.testing.assert_array_equal(tokens, by_forward_passes(model, token_ids, None, 6))


def test_changed_weights_are_seen_without_compiling_again():
    model = lively(num_layers=1)
    token_ids = tiny.batch()["encoder_token_ids"]
    decode = generation.compiled(model, max_length=6, end_id=-1)
    before = ops.convert_to_numpy(decode(token_ids))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        value = ops.convert_to_numpy(weight)
        weight.assign(value + 0.5 * rng.normal(size=value.shape))
    after = ops.convert_to_numpy(decode(token_ids))
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, by_forward_passes(model, token_ids, None, 6, -1))


@contextlib.contextmanager
def uncompiled():
    """Runs loops in Python, one iteration after the other."""
    if keras.backend.backend() == "jax":
        import jax

        with jax.disable_jit():
            yield
    else:
        yield  # Outside of `tf.function` they do.


@pytest.mark.parametrize(("end_id", "steps"), [(9, 1), (-1, 5)])
@pytest.mark.one_backend
def test_one_encoder_pass_and_no_step_after_the_last_end(monkeypatch, end_id, steps):
    model = tiny.model(num_layers=1)
    # Every sequence says 9, and says it at once.
    says_nine = ops.ones((3, 1, 1)) * np.eye(23, dtype="float32")[9]
    monkeypatch.setattr(model, "logits", lambda hidden: says_nine)
    calls = collections.Counter()

    def counted(name, function):
        def count(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return count

    block = model.decoder.blocks[0]
    monkeypatch.setattr(block, "step", counted("steps", block.step))
    monkeypatch.setattr(model, "encode", counted("encodings", model.encode))
    with uncompiled():
        decode = generation.decoding(model, max_length=5, end_id=end_id)
        tokens = ops.convert_to_numpy(decode(tiny.batch(size=3)["encoder_token_ids"]))
    assert calls == {"steps": steps, "encodings": 1}
    assert tokens.tolist() == [[9] * steps + [0] * (5 - steps)] * 3


@pytest.mark.one_backend
def test_padding_of_the_encoder_is_ignored(untraced):
    model = tiny.model(num_layers=1)
    inputs = tiny.batch(padding=True)
    token_ids, mask = inputs["encoder_token_ids"], inputs["encoder_padding_mask"]
    decode = generation.compiled(model, max_length=6)
    padded = decode(token_ids, mask)
    changed = np.where(mask, token_ids, 3).astype("int32")
    np.testing.assert_array_equal(decode(changed, mask), padded)


@pytest.mark.one_backend
def test_what_follows_the_end_is_padding(untraced):
    model = tiny.model(num_layers=1)
    token_ids = tiny.batch(size=3)["encoder_token_ids"]
    free = model.generate(token_ids, max_length=8, end_id=-1)
    # Take as the end a token that some row says early.
    end = int(free[0, 2])
    tokens = model.generate(token_ids, max_length=8, end_id=end, pad_id=22)
    for row, without_end in zip(tokens, free, strict=True):
        places = np.flatnonzero(without_end == end)
        stop = places[0] + 1 if places.size else 8
        np.testing.assert_array_equal(row[:stop], without_end[:stop])
        np.testing.assert_array_equal(row[stop:], 22)
    assert (tokens == 22).any()


@pytest.mark.usefixtures("untraced")
class TestSampling:
    def test_is_seeded(self):
        model = tiny.model(num_layers=1)
        token_ids = tiny.batch()["encoder_token_ids"]
        a, b, c = (
            model.generate(token_ids, max_length=6, temperature=2.0, seed=seed, end_id=-1)
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert a.min() >= 0 and a.max() < 23

    def test_positions_and_calls_draw_for_themselves(self, monkeypatch):
        model = tiny.model(num_layers=1)
        flat = ops.zeros((2, 1, 23))
        monkeypatch.setattr(model, "logits", lambda hidden: flat)
        token_ids = tiny.batch()["encoder_token_ids"]
        decode = generation.compiled(model, max_length=12, temperature=1.0, seed=1, end_id=-1)
        first, second = (ops.convert_to_numpy(decode(token_ids)) for _ in range(2))
        assert all(len(set(row)) > 4 for row in first.tolist())
        assert not np.array_equal(first, second)
        # No call repeats another's draws a position later.
        assert not np.array_equal(first[:, 1:], second[:, :-1])

    @pytest.mark.slow  # test_stays_among_the_likeliest draws from three
    def test_the_likeliest_of_one_is_greedy(self):
        model = tiny.model(num_layers=1)
        token_ids = tiny.batch()["encoder_token_ids"]
        np.testing.assert_array_equal(
            model.generate(token_ids, max_length=6, temperature=5.0, top_k=1, seed=0),
            model.generate(token_ids, max_length=6),
        )

    @pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
    @pytest.mark.one_backend
    def test_stays_among_the_likeliest(self):
        model = tiny.model(num_layers=1)
        token_ids = np.repeat(tiny.batch()["encoder_token_ids"][:1], 64, 0)
        drawn = model.generate(token_ids, max_length=1, temperature=50.0, top_k=3, seed=0)[:, 0]
        first = tiny.logits(
            model,
            {"encoder_token_ids": token_ids[:1], "decoder_token_ids": np.zeros((1, 1), "int32")},
        )[0, 0]
        assert set(drawn) == set(np.argsort(first)[-3:])


@pytest.mark.parametrize(
    "options", [{"max_length": 0}, {"temperature": -1.0}, {"temperature": 1.0, "top_k": 0}]
)
@pytest.mark.one_backend
def test_bad_options(options):
    name, value = list(options.items())[-1]
    with pytest.raises(ValueError, match=f"Received: .*{name}={value}"):
        tiny.model(num_layers=1).generate(np.ones((1, 2), "int32"), **options)
