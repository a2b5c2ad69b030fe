"""Training steps of one T5 in a process of its own, as its users run it.

    python -m benchmarks.step_alone keras_fusion|keras_hub|transformers CONFIG BATCH_SIZE LENGTH

`benchmarks.train_step` starts it, with a `T5Config` as JSON. For each number of steps on standard
input it writes the seconds that they took. Every peer has an Adafactor, the one that comes with it.
"""

import json
import sys
import time

import trainers  # noqa: F401  first, as in the programs: it makes settings before TensorFlow's import
from benchmarks import _programs
from benchmarks._batches import random_batches
from benchmarks._workers import serve

LEARNING_RATE = 0.001


def keras_fusion_steps(fields, batch_size, input_length):
    """Steps as trainers.pretrain runs them."""
    import keras_fusion as kf
    from benchmarks.train_step import make_engine
    from trainers.process import keep_freed_memory

    keep_freed_memory()
    engine = make_engine()
    config = kf.models.T5Config.from_dict(fields)
    with engine.scope():
        model = kf.models.T5(config, seed=0)
        optimizer = kf.optimizers.Adafactor(LEARNING_RATE)
    engine.compile(model, optimizer)
    batches = random_batches(config.vocabulary_size, batch_size, input_length)
    return lambda steps: engine.train(batches, steps)


def keras_hub_steps(fields, batch_size, input_length):
    """`fit` of KerasHub's backbone and a head, on arrays."""
    import keras
    import numpy as np

    import keras_fusion as kf
    from benchmarks._keras_hub import KerasHubT5

    config = kf.models.T5Config.from_dict(fields)
    # KerasHub's own GELU, which is the exact one.
    model = KerasHubT5(config, activation=config.activation)
    model.compile(
        keras.optimizers.Adafactor(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    )
    batch = next(random_batches(config.vocabulary_size, batch_size, input_length))

    def run(steps):
        arrays = {name: np.tile(value, (steps, 1)) for name, value in batch.items()}
        targets = arrays.pop("targets")
        model.fit(arrays, targets, batch_size=batch_size, shuffle=False, verbose=0)

    return run


def transformers_steps(fields, batch_size, input_length):
    """A plain loop over Hugging Face's T5 in PyTorch, in float32."""
    import torch
    import transformers

    import keras_fusion as kf
    from benchmarks.gpu.peer import make_model

    model = make_model(kf.models.T5Config.from_dict(fields)).train()
    optimizer = transformers.Adafactor(
        model.parameters(), lr=LEARNING_RATE, relative_step=False, scale_parameter=True
    )
    batch = next(random_batches(fields["vocabulary_size"], batch_size, input_length))
    batch = {name: torch.from_numpy(value).long() for name, value in batch.items()}

    def run(steps):
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            model(
                input_ids=batch["encoder_token_ids"],
                decoder_input_ids=batch["decoder_token_ids"],
                labels=batch["targets"],
            ).loss.backward()
            optimizer.step()

    return run


STEPS = {
    "keras_fusion": keras_fusion_steps,
    "keras_hub": keras_hub_steps,
    "transformers": transformers_steps,
}


def timed(name, config, batch_size, input_length):
    """Returns a function of a number of steps that runs them and returns their seconds."""
    run = STEPS[name](json.loads(config), int(batch_size), int(input_length))

    def seconds(steps):
        start = time.perf_counter()
        run(steps)
        return time.perf_counter() - start

    return seconds


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in STEPS:
        _programs.fail(
            f"Expected {'|'.join(STEPS)} CONFIG BATCH_SIZE LENGTH, as benchmarks.train_step gives "
            f"them. Received: {' '.join(sys.argv[1:]) or 'nothing'}. Run benchmarks.train_step"
        )
    serve(lambda: timed(*sys.argv[1:]))
