"""Grown optimizer state against the state that the fused network accumulates by itself.

The oracle is a network of matrices and ReLUs in numpy, with its gradients by hand: sources and
fused network see the same batches with frozen weights, each with an optimizer of its own.
"""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.axes import Axes
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers.tree import join, leaves, own_weights, weight_axes
from keras_fusion.models import T5, T5Config
from keras_fusion.models.config import GROWING
from keras_fusion.operator import fuse_arrays
from keras_fusion.optimizers import Adafactor
from keras_fusion.optimizers.growth import grow_state, lazy_state, read_state, write_state
from keras_fusion.theory.derivatives import Derivatives

AXES = {
    "input": Axes(("features", "hidden"), sums=("features",)),
    "bias": Axes(("hidden",)),
    "body": Axes(("hidden", "mlp"), sums=("hidden",)),
    "head": Axes(("mlp", "classes"), sums=("mlp",)),
    "offset": Axes(("classes",)),
}
GROW = {"hidden", "mlp"}


def network(rng, hidden, mlp, features=5, classes=3):
    shapes = {
        "input": (features, hidden),
        "bias": (hidden,),
        "body": (hidden, mlp),
        "head": (mlp, classes),
        "offset": (classes,),
    }
    return {name: rng.normal(size=shape) / 4 for name, shape in shapes.items()}


def gradients(weights, x, target):
    """Gradients of half the squared error, by hand, in double precision."""
    first = x @ weights["input"] + weights["bias"]
    h = np.maximum(first, 0)
    second = h @ weights["body"]
    m = np.maximum(second, 0)
    error = m @ weights["head"] + weights["offset"] - target
    back = (error @ weights["head"].T) * (second > 0)
    early = (back @ weights["body"].T) * (first > 0)
    return {
        "input": x.T @ early,
        "bias": early.sum(0),
        "body": h.T @ back,
        "head": m.T @ error,
        "offset": error.sum(0),
    }


def fuse(sources):
    return {name: fuse_arrays([s[name] for s in sources], AXES[name], GROW) for name in AXES}


def accumulate(optimizer, weights, steps=4, seed=0):
    """The state after some batches at frozen weights (learning rate 0)."""
    rng = np.random.default_rng(seed)
    variables = {name: keras.Variable(value.astype("float32")) for name, value in weights.items()}
    optimizer.build(list(variables.values()))
    for _ in range(steps):
        grads = gradients(weights, rng.normal(size=(7, 5)), rng.normal(size=(7, 3)))
        optimizer.apply([ops.cast(g, "float32") for g in grads.values()])
    return read_state(optimizer, variables), variables


def assert_same_state(grown, expected, **tolerance):
    assert grown.keys() == expected.keys()
    for name, slots in expected.items():
        assert grown[name].keys() == slots.keys()
        for key, slot in slots.items():
            np.testing.assert_allclose(grown[name][key], slot, err_msg=f"{name} {key}", **tolerance)


def adafactor(limit):
    return lambda: Adafactor(0.0, min_dim_size_to_factor=limit)


@pytest.mark.parametrize("copies", [2, pytest.param(3, marks=pytest.mark.one_backend)])
@pytest.mark.parametrize(
    ("make", "limit"),
    [
        pytest.param(lambda: keras.optimizers.AdamW(0.0), 128, marks=pytest.mark.one_backend),
        (adafactor(128), 128),  # full v in the source and in the fused network
        # Factored in both; in the fused network only.
        *(
            pytest.param(adafactor(limit), limit, marks=pytest.mark.one_backend)
            for limit in (8, 12)
        ),
    ],
)
def test_self_fusion_has_the_state_that_the_fused_network_accumulates(make, limit, copies):
    source = network(np.random.default_rng(1), hidden=9, mlp=8)
    state, _ = accumulate(make(), source)
    expected, variables = accumulate(make(), fuse([source] * copies))
    grown = grow_state(AXES, GROW, [state] * copies, min_dim_size_to_factor=limit)
    scale = max(np.abs(slot).max() for slots in expected.values() for slot in slots.values())
    assert_same_state(grown, expected, rtol=1e-4, atol=1e-7 * scale)
    optimizer = make()
    optimizer.build(list(variables.values()))
    write_state(optimizer, variables, grown, iterations=4)
    assert_same_state(read_state(optimizer, variables), grown, rtol=0)
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 4


@pytest.mark.one_backend
def test_grown_fused_state_grows_again():
    source = network(np.random.default_rng(2), hidden=4, mlp=6)
    state, _ = accumulate(keras.optimizers.Adam(0.0), source)
    pair = fuse([source] * 2)
    pair_state = grow_state(AXES, GROW, [state] * 2)
    expected, _ = accumulate(keras.optimizers.Adam(0.0), fuse([pair] * 2))
    assert_same_state(grow_state(AXES, GROW, [pair_state] * 2), expected, rtol=1e-4, atol=1e-6)


def summed_cross_entropy(targets, logits):
    return ops.sum(keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True))


def t5_state(model, seed):
    """Adam's state after one batch at a frozen T5."""
    rng = np.random.default_rng(seed)
    batch = {
        f"{side}_token_ids": rng.integers(0, 16, size=(2, 5)) for side in ("encoder", "decoder")
    }
    weights = {
        join(path, name): weight
        for path, leaf in leaves(model).items()
        for name, weight in own_weights(leaf).items()
    }
    at = Derivatives(model, (batch, rng.integers(0, 16, size=(2, 5))), summed_cross_entropy)
    _, gradient = at.gradient(at.weights())
    optimizer = keras.optimizers.Adam(0.0)
    optimizer.build(model.trainable_variables)
    optimizer.apply(gradient)
    return read_state(optimizer, weights)


@pytest.mark.parametrize(
    ("version", "norm"), [("1.0", "property"), pytest.param("1.1", "rule", marks=pytest.mark.slow)]
)
@pytest.mark.one_backend
def test_self_fused_t5(version, norm):
    config = T5Config(
        vocabulary_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=6,
        key_value_dim=3,
        tie_embedding_weights=version == "1.0",
        use_gated_activation=version == "1.1",
    )
    source = T5(config, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SymmetryWarning)
        fused = source.self_fuse(2, norm=norm)
    state = t5_state(source, seed=1)
    factors = source.weight_factors([source, source])
    grown = grow_state(weight_axes(source), set(GROWING), [state] * 2, factors)
    expected = t5_state(fused, seed=1)
    assert grown.keys() == expected.keys()
    for name, slots in expected.items():
        for key, slot in slots.items():
            error = np.linalg.norm(grown[name][key] - slot) / np.linalg.norm(slot)
            assert error < 1e-4, f"{name} {key}: {error}"


@pytest.mark.one_backend
def test_different_sources_of_unequal_widths():
    rng = np.random.default_rng(3)
    widths = [(4, 6), (3, 2)]
    slots = []
    for hidden, mlp in widths:
        # Rank one, its size split evenly between the two factors: what the rule assumes.
        a, b = rng.uniform(0.5, 2, size=hidden), rng.uniform(0.5, 2, size=mlp)
        b *= a.mean() / b.mean()
        slots.append({"a": a, "b": b, "m": rng.normal(size=(hidden, mlp)), "v": np.outer(a, b)})
    axes = {"body": AXES["body"]}
    states = [{"body": {"m": slot["m"], "v": slot["v"]}} for slot in slots]
    grown = grow_state(axes, GROW, states)["body"]
    whole = np.outer(*(np.concatenate([slot[k] for slot in slots]) for k in "ab"))
    np.testing.assert_allclose(grown["v"], whole / 4)
    np.testing.assert_allclose(grown["m"][:4, :6], slots[0]["m"] / 2)
    np.testing.assert_allclose(grown["m"][4:, 6:], slots[1]["m"] / 2)
    assert not np.any(grown["m"][4:, :6]) and not np.any(grown["m"][:4, 6:])


@pytest.mark.one_backend
def test_head_and_weights_without_a_growing_axis_keep_their_gradient():
    states = [
        {"head": {"v": np.full((w, 3), float(w))}, "offset": {"v": np.full(3, float(w))}}
        for w in (2, 4)
    ]
    axes = {name: AXES[name] for name in ("head", "offset")}
    grown = grow_state(axes, GROW, states)
    np.testing.assert_allclose(grown["head"]["v"][:, 0], [2, 2, 4, 4, 4, 4])
    np.testing.assert_allclose(grown["offset"]["v"], 3)


def test_source_without_gradients_yet_grows_to_finite_state():
    axes = {"body": AXES["body"]}
    states = [{"body": {"v": np.full((2, 2), value)}} for value in (0.0, 4.0)]
    grown = grow_state(axes, GROW, states)["body"]["v"]
    np.testing.assert_allclose(grown, np.kron([[0, 0], [0, 1]], np.ones((2, 2))))


@pytest.mark.one_backend
def test_what_cannot_grow_is_named():
    state = {"body": {"v": np.ones((2, 2))}}
    axes = {"body": AXES["body"]}
    with pytest.raises(FusionError, match="at least two sources. Received: 1"):
        grow_state(axes, GROW, [state])
    with pytest.raises(FusionError, match=r"source 1 .*\['body', 'other'\]"):
        grow_state(axes, GROW, [state, {"other": state["body"]}])
    with pytest.raises(FusionError, match="one class. Received: slots="):
        grow_state(axes, GROW, [state, {"body": {"m": np.ones((2, 2)), "v": np.ones((2, 2))}}])
    with pytest.raises(FusionError, match="Received: optimizer=SGD"):
        read_state(keras.optimizers.SGD(0.1), {})


@pytest.mark.one_backend
def test_nothing_is_written_when_shapes_differ():
    variables = {name: keras.Variable(np.ones(3, "float32")) for name in ("a", "b")}
    optimizer = Adafactor(0.0)
    optimizer.build(list(variables.values()))
    state = {"a": {"v": np.ones(3, "float32")}, "b": {"v": np.ones(4, "float32")}}
    with pytest.raises(FusionError, match=r"b v: expected shape \(3,\), Received: \(4,\)"):
        write_state(optimizer, variables, state, iterations=5)
    assert not np.any(read_state(optimizer, variables)["a"]["v"])
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 0


@pytest.mark.parametrize(
    ("blocks", "grown"),
    [("all", [[1, 1], [1, 1]]), ("diagonal", [[1, 0], [0, 1]]), ("first", [[1, 0], [0, 0]])],
)
@pytest.mark.one_backend
def test_blocks_that_are_not_grown_begin_at_zero(blocks, grown):
    axes = {name: AXES[name] for name in ("body", "bias", "offset")}
    shapes = {"body": (1, 1), "bias": (1,), "offset": (1,)}
    state = {n: {"m": np.full(shape, 8.0), "v": np.full(shape, 4.0)} for n, shape in shapes.items()}
    made = grow_state(axes, GROW, [state] * 2, blocks=blocks)
    # The weights in the middle of two copies have half of each source's gradient.
    np.testing.assert_array_equal(made["body"]["m"], 4.0 * np.array(grown))
    np.testing.assert_array_equal(made["body"]["v"], 1.0 * np.array(grown))
    np.testing.assert_array_equal(made["bias"]["m"], 4.0 * np.diag(grown))
    np.testing.assert_array_equal(made["offset"]["m"], [8.0])


class Read:
    """An array that counts how often it is read."""

    def __init__(self, array):
        self.shape, self.times, self._array = array.shape, 0, array

    def __array__(self, dtype=None, copy=None):
        self.times += 1
        return np.array(self._array, dtype, copy=copy)


@pytest.mark.one_backend
@pytest.mark.parametrize("keys", ["mv", "v"])
def test_lazy_state_reads_the_weight_that_is_asked_for_once(keys):
    rng = np.random.default_rng(4)
    axes = {name: AXES[name] for name in ("body", "bias")}
    shapes = {"body": (3, 4), "bias": (4,)}
    states, counted = [], []
    for _ in range(2):
        state = {n: {key: rng.uniform(1, 2, shape) for key in keys} for n, shape in shapes.items()}
        states.append(state)
        counted.append({n: {k: Read(slot) for k, slot in s.items()} for n, s in state.items()})
    # The fused weight is factored, its sources are not.
    lazy = lazy_state(axes, GROW, counted, min_dim_size_to_factor=6)
    whole = grow_state(axes, GROW, states, min_dim_size_to_factor=6)
    assert {n: list(s) for n, s in lazy.items()} == {n: list(s) for n, s in whole.items()}
    for key, slot in lazy["body"].items():
        assert slot.shape == whole["body"][key].shape
        np.testing.assert_array_equal(slot[:2], whole["body"][key][:2])
    times = {name: {slot.times for slot in counted[1][name].values()} for name in shapes}
    assert times == {"body": {1}, "bias": {0}}
