"""Training steps of our T5: tokens per second, and the share of the card's peak that they reach."""

import gc
import pathlib
import shutil
import tempfile
import time

import jax
import keras
import numpy as np

import keras_fusion as kf
from benchmarks._batches import lengths, random_batches
from benchmarks.gpu import device
from benchmarks.gpu.results import OURS
from trainers.engines.flops import step_flops
from trainers.engines.jax import JaxEngine

# As the library chooses it, and as plain operations.
ATTENTIONS = ("chosen", "plain")
DTYPE = "mixed_bfloat16"


def run(size, results, left, profile=False):
    """Measures each model at all its batch sizes, then with plain attention at the first one.

    Args:
        size: a `Size`.
        results: a `Results`.
        profile: whether to write a trace of two steps of each.
        left: function that returns the seconds left; nothing begins that would take longer than
            what came before it.
    """
    peak = measure_peak(size, results)
    chosen, plain = ATTENTIONS
    queue = [(model, chosen, batch) for model, batches in size.batches.items() for batch in batches]
    queue += [(model, plain, batches[0]) for model, batches in size.batches.items()]
    longest = 0.0
    for model, kind, batch in queue:
        name = f"{model}, batch {batch}, {kind} attention"
        if longest > left():
            results.note(name, f"left out: {left():.0f} s left, the longest took {longest:.0f}")
            continue
        start = time.perf_counter()
        try:
            measure(size, model, kind, batch, name, peak, results, profile)
        except Exception as error:
            results.note(name, f"failed: {error}")
        jax.clear_caches()
        gc.collect()  # models hold themselves
        longest = max(longest, time.perf_counter() - start)


def measure_peak(size, results):
    """Writes and returns the FLOP/s that utilisation is a share of."""
    kind = device.name()
    measured = device.matmul_flops(size.matmul)
    peak = device.data_sheet_peak(kind)
    facts = {"device": kind, "data sheet TFLOP/s": peak and peak / 1e12}
    figures = [value / 1e12 for value in measured]
    results.add(f"bfloat16 product of {size.matmul}²", figures, "TFLOP/s", **facts)
    return peak or max(measured)


def measure(size, model_name, kind, batch_size, name, peak, results, profile=False):
    """Measures one model at one batch size."""
    config = kf.models.T5Config.from_size(model_name)
    if kind == "plain":
        keras.config.disable_flash_attention()
    engine = JaxEngine()
    with engine.scope():
        model = kf.models.T5(config, seed=0, dtype=DTYPE)
        optimizer = kf.optimizers.Adafactor(0.001)
    engine.compile(model, optimizer)
    engine.load_state({}, partial=True)  # draws the weights
    batches = random_batches(config.vocabulary_size, batch_size, size.input_length)
    start = time.perf_counter()
    engine.warm_up(next(batches), size.steps)
    compiled = time.perf_counter() - start
    loss = engine.train(batches, size.steps).loss_per_token
    if not np.isfinite(loss):
        raise ArithmeticError(f"expected a finite loss. Received: {loss}")
    tokens = batch_size * sum(lengths(size.input_length))
    seconds = []
    for _ in range(size.rounds):
        start = time.perf_counter()
        engine.train(batches, size.steps)  # waits for the device
        seconds.append((time.perf_counter() - start) / size.steps)
    speeds = [tokens / value for value in seconds]
    flops = step_flops(model, batch_size, *lengths(size.input_length)).total
    memory = device.bytes_in_use(peak=True)
    results.add(
        name,
        speeds,
        "tokens/s",
        of=OURS,
        model=model_name,
        batch=batch_size,
        utilisation=float(flops / np.median(seconds) / peak),
        **{"step ms": 1e3 * float(np.median(seconds)), "compiled in s": compiled},
        **{"most GB in this process so far": memory and memory / 1e9, "loss after a call": loss},
    )
    if profile:
        trace(
            lambda: engine.train(batches, 2), results.folder / f"{model_name}_{batch_size}_{kind}"
        )


def trace(call, path):
    """Writes what the device did in a call, as PATH.xplane.pb for TensorBoard or XProf."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        for written in pathlib.Path(folder).rglob("*.xplane.pb"):
            shutil.copy(written, path.with_suffix(".xplane.pb"))
