"""How many tokens a second does a training step of our T5 take, beside KerasHub's of that size?

    python -m benchmarks.train_step [--size=tiny_m] [--batch_size=32] [--input_length=128]

Both models have the same shapes, batch, loss, Adafactor and engine; their steps run in turn in
this one process, and the ratio is taken pair by pair. Takes about a minute on two cores at the
default size. KerasHub's backbone gets the head that it lacks, and its masks of ones.
"""

import statistics
import time

import keras
import keras_hub
import numpy as np
from absl import app, flags

import keras_fusion as kf
from trainers.data.spans import raw_length, target_length
from trainers.engines.tensorflow import TensorFlowEngine


class KerasHubT5(keras.Model):
    """KerasHub's T5 backbone with an untied head, on our batches."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.backbone = keras_hub.models.T5Backbone(
            vocabulary_size=config.vocabulary_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            hidden_dim=config.hidden_dim,
            intermediate_dim=config.intermediate_dim,
            key_value_dim=config.key_value_dim,
            dropout=config.dropout,
            activation="gelu",
            use_gated_activation=True,
            tie_embedding_weights=False,
        )
        self.head = keras.layers.Dense(config.vocabulary_size, use_bias=False)
        self.head.build((None, None, config.hidden_dim))
        # The backbone's own output table stands unused; the head takes its place.
        self.built = True

    def call(self, inputs, training=None):
        masks = {
            f"{side}_padding_mask": keras.ops.ones_like(inputs[f"{side}_token_ids"])
            for side in ("encoder", "decoder")
        }
        decoded = self.backbone({**inputs, **masks}, training=training)["decoder_sequence_output"]
        return self.head(decoded)


def random_batches(vocabulary_size, batch_size, input_length, seed=0):
    """An endless iterator over one random batch."""
    rng = np.random.default_rng(seed)
    length = target_length(raw_length(input_length))
    batch = {
        "encoder_token_ids": (batch_size, input_length),
        "decoder_token_ids": (batch_size, length),
        "targets": (batch_size, length),
    }
    batch = {
        name: rng.integers(2, vocabulary_size, shape).astype("int32")
        for name, shape in batch.items()
    }
    while True:
        yield batch


def make_step(model, batch_size, input_length):
    """A function that runs n training steps of a model and returns their seconds."""
    engine = TensorFlowEngine()
    engine.compile(model, kf.optimizers.Adafactor(0.001))
    batches = random_batches(model.config.vocabulary_size, batch_size, input_length)

    def run(steps):
        start = time.perf_counter()
        engine.train(batches, steps)
        return time.perf_counter() - start

    run(2)
    return run


def compare(config, batch_size, input_length, steps, rounds):
    """Tokens a second of both models, and the ratios, round by round."""
    ours = make_step(kf.models.T5(config, seed=0), batch_size, input_length)
    peer = make_step(KerasHubT5(config), batch_size, input_length)
    tokens = steps * batch_size * (input_length + target_length(raw_length(input_length)))
    pairs = [(tokens / ours(steps), tokens / peer(steps)) for _ in range(rounds)]
    return [list(column) for column in zip(*pairs, strict=True)]


def main(argv):
    del argv
    config = kf.models.T5Config.from_size(SIZE.value)
    ours, peer = compare(config, BATCH_SIZE.value, INPUT_LENGTH.value, STEPS.value, ROUNDS.value)
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    print(
        f"{SIZE.value}, batch {BATCH_SIZE.value} x {INPUT_LENGTH.value}, "
        f"keras {keras.__version__}, "
        f"keras-hub {keras_hub.__version__}"
    )
    for name, values in (("keras_fusion", ours), ("KerasHub", peer), ("ratio", ratios)):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(
            f"{name:14} median {middle:10.2f}   min {low:10.2f}   max {high:10.2f}"
            + ("" if name == "ratio" else "   tokens/s")
        )


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Sequences a batch.")
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Tokens of an input.")
    STEPS = flags.DEFINE_integer("steps", 20, "Steps a round.")
    ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds, both models in turn.")
    app.run(main)
