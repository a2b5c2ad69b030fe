"""Tokens per second of training our T5, compared with KerasHub's of the same size.

    python -m benchmarks.train_step [--size=tiny_m] [--batch_size=32] [--input_length=128]

Both models have the same shapes, batch, loss, Adafactor and engine; their steps run in turn in
this one process, and the ratio is taken pair by pair. Takes about a minute on two cores at the
default size. KerasHub's backbone gets the head that it lacks, and masks of ones.
"""

import time

import keras
import keras_hub
from absl import app, flags

import keras_fusion as kf
from benchmarks._batches import lengths, random_batches
from benchmarks._keras_hub import backbone
from benchmarks._rounds import in_turn, line, ratios
from trainers.engines.tensorflow import TensorFlowEngine


class KerasHubT5(keras.Model):
    """KerasHub's T5 backbone with an untied head, on our batches."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.backbone = backbone(config, config.dropout)
        self.head = keras.layers.Dense(config.vocabulary_size, use_bias=False)
        self.head.build((None, None, config.hidden_dim))
        # The backbone's own output table is unused; the head replaces it.
        self.built = True

    def call(self, inputs, training=None):
        masks = {
            f"{side}_padding_mask": keras.ops.ones_like(inputs[f"{side}_token_ids"])
            for side in ("encoder", "decoder")
        }
        decoded = self.backbone({**inputs, **masks}, training=training)["decoder_sequence_output"]
        return self.head(decoded)


def make_step(model, batch_size, input_length):
    """Returns a function that runs n training steps of a model and returns their seconds."""
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
    """Returns the tokens per second of both models, and the ratios, round by round."""
    ours = make_step(kf.models.T5(config, seed=0), batch_size, input_length)
    peer = make_step(KerasHubT5(config), batch_size, input_length)
    tokens = steps * batch_size * sum(lengths(input_length))
    return in_turn([lambda: tokens / ours(steps), lambda: tokens / peer(steps)], rounds)


def main(argv):
    del argv
    config = kf.models.T5Config.from_size(SIZE.value)
    ours, peer = compare(config, BATCH_SIZE.value, INPUT_LENGTH.value, STEPS.value, ROUNDS.value)
    print(
        f"{SIZE.value}, batch {BATCH_SIZE.value} x {INPUT_LENGTH.value}, "
        f"keras {keras.__version__}, "
        f"keras-hub {keras_hub.__version__}"
    )
    print(line("keras_fusion", ours, "tokens/s"))
    print(line("KerasHub", peer, "tokens/s"))
    print(line("ratio", ratios(ours, peer)))


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Sequences per batch.")
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Tokens of an input.")
    STEPS = flags.DEFINE_integer("steps", 20, "Steps per round.")
    ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds, both models in turn.")
    app.run(main)
