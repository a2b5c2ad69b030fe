"""Training steps of the peer: Hugging Face's T5 of the same sizes, with torch.compile."""

import contextlib
import gc
import time

import numpy as np

import keras_fusion as kf
from benchmarks._batches import lengths, random_batches
from benchmarks.gpu.results import PEER

MODES = ("compiled", "eager")


def run(size, results, left):
    """Measures each model at its first batch size, compiled, which can take minutes, then as it is.

    Products are in bfloat16 (autocast), weights and AdamW's slots in float32. `size`, `results`
    and `left` are as in `benchmarks.gpu.steps.run`.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        results.note("transformers", f"left out: {error}")
        return
    longest = 0.0
    for mode in MODES:
        for model, batches in size.batches.items():
            name = f"transformers {transformers.__version__}, {model}, batch {batches[0]}, {mode}"
            if longest > left():
                results.note(name, f"left out: {left():.0f} s left, the longest took {longest:.0f}")
                continue
            start = time.perf_counter()
            try:
                measure(size, model, batches[0], mode, name, results)
            except Exception as error:
                results.note(name, f"failed: {error}")
            longest = max(longest, time.perf_counter() - start)
            gc.collect()
            with contextlib.suppress(AssertionError):
                torch.cuda.empty_cache()


def measure(size, model_name, batch_size, mode, name, results):
    """Measures one model."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = make_model(kf.models.T5Config.from_size(model_name)).to(device)
    step = make_step(model, device, compiled=mode == "compiled")
    batch = next(random_batches(model.config.vocab_size, batch_size, size.input_length))
    batch = {key: torch.from_numpy(value).long().to(device) for key, value in batch.items()}

    def steps():
        start = time.perf_counter()
        for _ in range(size.steps):
            loss = step(batch)
        loss = loss.item()  # waits for the device
        return (time.perf_counter() - start) / size.steps, loss

    start = time.perf_counter()
    step(batch).item()
    first = time.perf_counter() - start
    _, loss = steps()
    seconds = [steps()[0] for _ in range(size.rounds)]
    tokens = batch_size * sum(lengths(size.input_length))
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    results.add(
        name,
        [tokens / value for value in seconds],
        "tokens/s",
        of=PEER,
        model=model_name,
        batch=batch_size,
        torch=torch.__version__,
        attention=model.config._attn_implementation,
        **{"step ms": 1e3 * float(np.median(seconds)), "first step s": first},
        **{"most GB": memory and memory / 1e9, "loss after a call": loss},
    )


def make_model(config):
    """Returns transformers' T5 of a configuration of ours, with random weights."""
    import transformers

    activation = "gelu_new" if config.activation == "gelu" else config.activation
    gated = "gated-" if config.use_gated_activation else ""
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config.vocabulary_size,
            d_model=config.hidden_dim,
            d_kv=config.key_value_dim,
            d_ff=config.intermediate_dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            relative_attention_num_buckets=config.relative_attention_num_buckets,
            relative_attention_max_distance=config.relative_attention_max_distance,
            dropout_rate=config.dropout,
            layer_norm_epsilon=config.layer_norm_epsilon,
            # It reads "gated-gelu" as the tanh approximation.
            feed_forward_proj=gated + ("gelu" if gated else activation),
            tie_word_embeddings=config.tie_embedding_weights,
            use_cache=False,
        )
    )


def make_step(model, device, compiled):
    """Returns a function of a batch that trains one step and returns its loss on the device."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def loss_of(batch):
        with torch.autocast(device, torch.bfloat16):
            return model(
                input_ids=batch["encoder_token_ids"],
                decoder_input_ids=batch["decoder_token_ids"],
                labels=batch["targets"],
            ).loss

    if compiled:
        loss_of = torch.compile(loss_of)

    def step(batch):
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
