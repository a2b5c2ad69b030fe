"""Grows a GPT-2 of KerasHub: trained small, fused with itself, trained on.

The model is a tiny `GPT2CausalLM` with random weights. Its texts count in steps, such as 3, 7, 11,
15: the step has to be read from the text. Takes less than a minute on two cores:

    python -m examples.grow_gpt2

The fused model is a `GPT2CausalLM` as well, twice as wide; it writes the same tokens before it is
trained on, and saves to a preset that KerasHub loads by itself.
"""

import tempfile
from typing import NamedTuple

import keras
import keras_hub
import numpy as np

import keras_fusion as kf

VOCABULARY, LENGTH, BATCH = 31, 12, 64


class Row(NamedTuple):
    """One line of the output.

    Args:
        name: The model's name.
        parameters: Number of its weights.
        loss: Its loss on new texts, in nats per token.
        tokens: Tokens that it generates after the first three.
    """

    name: str
    parameters: int
    loss: float
    tokens: list[int]

    def __str__(self):
        tokens = " ".join(map(str, self.tokens))
        return f"{self.name:16}{self.parameters:>9,} weights   loss {self.loss:.3f}   {tokens}"


def texts(number, seed):
    """Inputs and targets: numbers modulo the vocabulary that grow by a constant step."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, VOCABULARY, (number, 1))
    steps = rng.integers(1, 6, (number, 1))
    tokens = (starts + steps * np.arange(LENGTH + 1)) % VOCABULARY
    mask = np.ones((number, LENGTH), "int32")
    return {"token_ids": tokens[:, :-1], "padding_mask": mask}, tokens[:, 1:]


def network():
    """A small GPT-2 with random weights."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=VOCABULARY,
        num_layers=1,
        num_heads=2,
        hidden_dim=24,
        intermediate_dim=48,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sampler="greedy",
        jit_compile=False,
    )
    return model


def train(model, steps, seed):
    """Trains a model on new texts."""
    inputs, targets = texts(steps * BATCH, seed)
    model.fit(inputs, targets, batch_size=BATCH, shuffle=False, verbose=0)


def row(name, model):
    """Measures a model."""
    inputs, targets = texts(256, seed=99)
    loss, *_ = model.evaluate(inputs, targets, batch_size=256, verbose=0)
    prompt = {key: value[:1].copy() for key, value in inputs.items()}
    prompt["padding_mask"][:, 3:] = 0
    generated = model.generate(prompt, stop_token_ids=None)
    tokens = np.asarray(generated["token_ids"])[0, 3:].tolist()
    return Row(name, model.count_params(), float(loss), tokens)


def main(steps=150, more_steps=100):
    """Prints the table, and returns its rows."""
    small = network()
    train(small, steps, seed=1)
    # The noise adds up to zero over the copies: the function stays, and the copies part.
    wide = kf.self_fuse(small, 2, noise=0.2, noise_kind="balanced", optimizer="grow")
    rows = [row("trained small", small), row("fused, twice it", wide)]
    train(wide, more_steps, seed=2)
    rows.append(row("trained on", wide))
    print("Counting in steps; the tokens that follow the first three of a text:")
    print("right answer".ljust(45), *texts(256, seed=99)[0]["token_ids"][0, 3:])
    for line in rows:
        print(line)
    with tempfile.TemporaryDirectory() as folder:
        wide.save_to_preset(folder)
        loaded = keras_hub.models.CausalLM.from_preset(folder, preprocessor=None)
    print(
        f"Saved, and loaded by KerasHub: {type(loaded).__name__}, {loaded.backbone.hidden_dim} wide"
    )
    return rows


if __name__ == "__main__":
    main()
