"""Measures greedy decoding in examples per second, beside KerasHub's T5Seq2SeqLM.generate.

    python -m benchmarks.glue_decoding [--size=tiny_m] [--batch_size=32] [--input_length=128]

Both have the same sizes and the same random weights, decode the same batch in turn in this one
process, each compiled as it compiles itself, and must generate the same tokens. No sequence ends
before `--max_length`, so both run all of their steps. Takes about a minute on two cores at the
default size; `KERAS_BACKEND=jax` compares the two on JAX.
"""

import dataclasses
import functools
import time

import keras
import keras_hub
import numpy as np

import keras_fusion as kf
from benchmarks._keras_hub import peer_of
from benchmarks._rounds import in_turn, line, ratios
from keras_fusion.models import generation
from trainers import programs
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """The settings of the benchmark; checks itself."""

    size: str = option("tiny_m", "Size of the T5.", choices=tuple(sorted(kf.models.config.SIZES)))
    batch_size: int = option(32, "Inputs per batch.", at_least=1)
    input_length: int = option(128, "Tokens of the longest input.", at_least=1)
    max_length: int = option(16, "Tokens to generate for each input.", at_least=1)
    calls: int = option(5, "Batches per round.", at_least=1)
    rounds: int = option(7, "Rounds, both in turn.", at_least=1)

    def __post_init__(self):
        check_options(self)


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
    # The start token is the prompt; the generated tokens replace the rest.
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
        outputs = peer.generate(inputs, stop_token_ids=None)
        return keras.ops.convert_to_numpy(outputs["decoder_token_ids"])[:, 1:]

    return decode


def compare(config, batch_size, input_length, max_length, calls, rounds):
    """Examples per second of both, round by round, and the share of tokens that agree."""
    model = kf.models.T5(config, seed=0)
    inputs = random_inputs(config.vocabulary_size, batch_size, input_length)
    decoders = [kind(model, *inputs, max_length) for kind in (ours, peers)]
    agreement = float(np.mean(decoders[0]() == decoders[1]()))

    def speed(decode):
        start = time.perf_counter()
        for _ in range(calls):
            decode()
        return calls * batch_size / (time.perf_counter() - start)

    return *in_turn([functools.partial(speed, decode) for decode in decoders], rounds), agreement


def main(config: DecodingConfig) -> None:
    """Measures and prints."""
    settings = dataclasses.asdict(config)
    size = settings.pop("size")
    ours_speed, peers_speed, agreement = compare(kf.models.T5Config.from_size(size), **settings)
    print(
        f"{size}, batch {config.batch_size} x {config.input_length}, {config.max_length} tokens "
        f"each, {keras.backend.backend()}, keras {keras.__version__}, "
        f"keras-hub {keras_hub.__version__}: {agreement:.2%} of the tokens agree"
    )
    print(line("keras_fusion", ours_speed, "examples/s"))
    print(line("KerasHub", peers_speed, "examples/s"))
    print(line("ratio", ratios(ours_speed, peers_speed)))


if __name__ == "__main__":
    programs.run(main, DecodingConfig)
