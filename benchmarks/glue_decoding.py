"""How many examples a second does greedy decoding take, beside KerasHub's T5Seq2SeqLM.generate?

    python -m benchmarks.glue_decoding [--size=tiny_m] [--batch_size=32] [--input_length=128]

Both have the same sizes and the same random weights, decode the same batch in turn in this one
process, each compiled as it compiles itself, and must say the same tokens. No sequence ends before
`--max_length`, so both run all of their steps. Takes about a minute on two cores at the default
size; `KERAS_BACKEND=jax` compares the two on JAX.
"""

import functools
import time

import keras
import keras_hub
import numpy as np
from absl import app, flags

import keras_fusion as kf
from benchmarks._keras_hub import peer_of
from benchmarks._rounds import in_turn, line, ratios
from keras_fusion.models import generation


def random_inputs(vocabulary_size, batch_size, input_length, seed=0):
    """Token ids and padding mask (batch, input_length) of inputs of many lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(input_length // 4, input_length + 1, (batch_size, 1))
    mask = (np.arange(input_length) < lengths).astype("int32")
    return rng.integers(2, vocabulary_size, mask.shape).astype("int32") * mask, mask


def ours(model, token_ids, mask, max_length):
    """A function that decodes a batch, and returns tokens (batch, max_length)."""
    decode = generation.compiled(model, max_length=max_length, end_id=-1)
    return lambda: keras.ops.convert_to_numpy(decode(token_ids, mask))


def peers(model, token_ids, mask, max_length):
    """The same, of KerasHub's model with the same weights."""
    peer = keras_hub.models.T5Seq2SeqLM(peer_of(model), preprocessor=None)
    peer.compile(sampler="greedy")
    # The start token is the prompt; what it generates replaces the rest.
    prompt = np.zeros((len(token_ids), max_length + 1), "int32")
    given = prompt.copy()
    given[:, 0] = 1
    inputs = {
        "encoder_token_ids": token_ids,
        "encoder_padding_mask": mask,
        "decoder_token_ids": prompt,
        "decoder_padding_mask": given,
    }

    def decode():
        found = peer.generate(inputs, stop_token_ids=None)
        return keras.ops.convert_to_numpy(found["decoder_token_ids"])[:, 1:]

    return decode


def compare(config, batch_size, input_length, max_length, calls, rounds):
    """Examples a second of both, round by round, and the share of tokens that agree."""
    model = kf.models.T5(config, seed=0)
    inputs = random_inputs(config.vocabulary_size, batch_size, input_length)
    decoders = [kind(model, *inputs, max_length) for kind in (ours, peers)]
    agreement = float(np.mean(decoders[0]() == decoders[1]()))

    def speed(decode):
        start = time.perf_counter()
        for _ in range(calls):
            decode()
        return calls * batch_size / (time.perf_counter() - start)

    return *in_turn([functools.partial(speed, each) for each in decoders], rounds), agreement


def main(argv):
    del argv
    config = kf.models.T5Config.from_size(SIZE.value)
    ours_speed, peers_speed, agreement = compare(
        config,
        BATCH_SIZE.value,
        INPUT_LENGTH.value,
        MAX_LENGTH.value,
        CALLS.value,
        ROUNDS.value,
    )
    print(
        f"{SIZE.value}, batch {BATCH_SIZE.value} x {INPUT_LENGTH.value}, {MAX_LENGTH.value} tokens "
        f"each, {keras.backend.backend()}, keras {keras.__version__}, "
        f"keras-hub {keras_hub.__version__}: {agreement:.2%} of the tokens agree"
    )
    print(line("keras_fusion", ours_speed, "examples/s"))
    print(line("KerasHub", peers_speed, "examples/s"))
    print(line("ratio", ratios(ours_speed, peers_speed)))


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Inputs a batch.")
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Tokens of the longest input.")
    MAX_LENGTH = flags.DEFINE_integer("max_length", 16, "Tokens to generate for each input.")
    CALLS = flags.DEFINE_integer("calls", 5, "Batches a round.")
    ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds, both in turn.")
    app.run(main)
