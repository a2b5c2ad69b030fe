"""The result of `kf.fuse` is a plain Keras model: whatever Keras does with one works."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fusion as kf
from tests.keras_fusion.fusion_contract import numpy, random_inputs
from tests.keras_fusion.graph.networks import randomised

IMAGES = random_inputs([(8, 6, 6, 1)])[0]
LABELS = np.arange(8) % 3
TOKENS = np.random.default_rng(0).integers(0, 9, (4, 5)).astype("int32")


def convolutional(seed, dtype=None):
    """A model that every path of a fusion has a part in: blocks, a concatenation, a mean."""
    stack = [
        layers.Conv2D(3 + seed, 3, activation="relu", dtype=dtype),
        layers.BatchNormalization(dtype=dtype),
        layers.Flatten(dtype=dtype),
        layers.Dense(4 + seed, activation="gelu", dtype=dtype, name="hidden"),
        layers.Dense(3, activation="softmax", dtype="float32"),
    ]
    return randomised(keras.Sequential([keras.Input((6, 6, 1)), *stack]), seed)


def encoder(seed):
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4)(tokens)
    x = x + layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Dense(6, activation="relu", name="hidden")(layers.LayerNormalization()(x))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    return randomised(keras.Model(tokens, outputs), seed)


CASES = [(convolutional, IMAGES), (encoder, TOKENS)]


def pair(build, **options):
    return [build(seed, **options) for seed in range(2)]


def mean(sources, inputs):
    return np.mean([numpy(source(inputs)).astype("float32") for source in sources], 0)


@pytest.mark.one_backend
def test_it_is_quantized():
    fused = kf.fuse(pair(convolutional))
    before = numpy(fused(IMAGES))
    fused.quantize("int8")
    dtypes = [keras.backend.standardize_dtype(w.dtype) for w in fused.get_layer("hidden").weights]
    assert "int8" in dtypes
    np.testing.assert_allclose(numpy(fused(IMAGES)), before, atol=0.1 * np.abs(before).max())


@pytest.mark.one_backend
def test_an_adapter_trains_alone():
    fused = kf.fuse(pair(convolutional))
    before = numpy(fused(IMAGES))
    hidden = fused.get_layer("hidden")
    hidden.enable_lora(2)
    np.testing.assert_allclose(numpy(fused(IMAGES)), before, atol=1e-6)
    (frozen,) = [weight for weight in hidden.weights if weight.name == "kernel"]
    kernel = numpy(frozen)
    fused.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    fused.fit(IMAGES, LABELS, verbose=0)
    np.testing.assert_array_equal(numpy(frozen), kernel)
    assert np.any(numpy(hidden.lora_kernel_b))


@pytest.mark.parametrize("options", [{}, {"average": "outputs"}])
@pytest.mark.one_backend
def test_mixed_precision_stays(options):
    sources = pair(convolutional, dtype="mixed_bfloat16")
    fused = kf.fuse(sources, **options)
    names = {layer.name for layer in sources[0].layers[:4]}
    policies = {layer.dtype_policy.name for layer in fused.layers if layer.name in names}
    assert policies == {"mixed_bfloat16"}
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in fused.weights} == {
        "float32"
    }
    assert keras.backend.standardize_dtype(fused.outputs[0].dtype) == "float32"
    hidden = [
        numpy(keras.Model(model.inputs, model.get_layer("hidden").output)(IMAGES)).astype("float32")
        for model in (*sources, fused)
    ]
    # Numbers have eight bits, and pass through four layers.
    apart = np.concatenate(hidden[:2], -1)
    np.testing.assert_allclose(hidden[2], apart, rtol=0, atol=0.02 * np.abs(apart).max())


@pytest.mark.parametrize(
    ("build", "inputs"),
    [CASES[0], pytest.param(*CASES[1], marks=pytest.mark.slow)],
)
@pytest.mark.one_backend
def test_it_is_compiled_by_xla_and_trained(build, inputs):
    sources = pair(build)
    fused = kf.fuse(sources, average="outputs")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=build is encoder)
    fused.compile(keras.optimizers.Adam(0.01), loss, jit_compile=True)
    np.testing.assert_allclose(fused.predict(inputs, verbose=0), mean(sources, inputs), atol=1e-5)
    labels = LABELS[: len(inputs)]
    history = fused.fit(inputs, labels, epochs=4, batch_size=len(inputs), verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's")
@pytest.mark.parametrize(("build", "inputs"), CASES)
def test_it_is_exported(build, inputs, tmp_path):
    import tensorflow as tf

    sources = pair(build)
    fused = kf.fuse(sources, average="outputs")
    fused.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(numpy(loaded.serve(inputs)), mean(sources, inputs), atol=1e-5)


@pytest.mark.parametrize(("build", "inputs"), CASES)
@pytest.mark.one_backend
def test_it_is_saved_and_loaded(build, inputs, tmp_path):
    fused = kf.fuse(pair(build), average="outputs", weights=[0.3, 0.7])
    fused.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras", safe_mode=True)
    np.testing.assert_array_equal(numpy(loaded(inputs)), numpy(fused(inputs)))


@pytest.mark.one_backend
def test_keras_callbacks_and_evaluate(tmp_path):
    fused = kf.fuse(pair(convolutional))
    fused.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    path = tmp_path / "best.keras"
    callbacks = [
        keras.callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True),
        keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9, restore_best_weights=True),
    ]
    history = fused.fit(IMAGES, LABELS, epochs=5, verbose=0, callbacks=callbacks)
    assert len(history.history["loss"]) == 2 and path.exists()
    loss, accuracy = fused.evaluate(IMAGES, LABELS, verbose=0)
    assert 0 <= accuracy <= 1
    best = keras.saving.load_model(path).evaluate(IMAGES, LABELS, verbose=0)
    assert best[0] == pytest.approx(loss, rel=1e-4) or best[0] < loss


@pytest.mark.one_backend
def test_the_seed_decides_the_noise():
    sources = pair(convolutional)
    first, again, other = (kf.fuse(sources, noise=0.1, seed=seed) for seed in (3, 3, 4))
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    hidden = [numpy(model.get_layer("hidden").kernel) for model in (first, other)]
    assert np.any(hidden[0] != hidden[1])


@pytest.mark.one_backend
def test_a_training_step_of_the_users_own_stays():
    class Weighted(keras.Model):
        def compute_loss(self, *args, **kwargs):
            return 7.0 * super().compute_loss(*args, **kwargs)

    def source(seed):
        inputs = keras.Input((5,))
        hidden = layers.Dense(3 + seed, activation="relu")(inputs)
        return randomised(Weighted(inputs, layers.Dense(2)(hidden)), seed)

    fused = kf.fuse([source(0), source(1)])
    assert type(fused) is Weighted
    x, y = np.ones((2, 5), "float32"), np.zeros((2, 2), "float32")
    fused.compile("sgd", "mse", run_eagerly=True)
    expected = 7.0 * np.mean(np.square(numpy(fused(x))))
    assert float(fused.train_on_batch(x, y)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda model: model.get_layer("hidden").enable_lora(2),
        lambda model: model.quantize("int8"),
    ],
    ids=["adapter", "quantized"],
)
@pytest.mark.one_backend
def test_sources_with_adapters_or_quantized_weights_are_refused(prepare):
    sources = pair(convolutional)
    for source in sources:
        prepare(source)
    match = "layer `hidden` .*merge adapters and quantised weights first"
    with pytest.raises(kf.FusionError, match=match):
        kf.fuse(sources)
