"""A fusion of two models on the device: seconds, and the memory that it takes."""

import contextlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import keras_fusion as kf
from benchmarks import fusion
from benchmarks._rounds import in_turn, ratios
from benchmarks.gpu import device


def run(size, results, left):
    """Fuses two models of `size.fused`, in turn with writing as many bytes on the device."""
    del left
    config = kf.models.T5Config.from_size(size.fused)
    sources = [kf.models.T5(config, seed=seed) for seed in range(2)]
    _wait(sources[0], sources[1])
    with contextlib.suppress(OSError):
        fusion.reset_peak()
    before = {"device": device.bytes_in_use(), "host": _host("VmRSS")}
    first, shapes = fuse_once(sources)
    peak = {"device": device.bytes_in_use(peak=True), "host": _host("VmHWM")}
    bytes_ = [4 * int(np.prod(shape)) for shape in shapes]
    name = f"2 × {size.fused} to {sum(bytes_) / 4e6:.0f} M weights"
    fusions, writes = in_turn(
        [lambda: fuse_once(sources)[0], lambda: write_once(shapes)], size.rounds
    )
    results.add(f"{name}, fused", fusions, "s", **{"first time s": first, "device": device.name()})
    results.add("as many bytes written on the device", writes, "s")
    results.add("fusion over writing", ratios(fusions, writes), "×")
    bound = sum(bytes_) + max(bytes_)
    for place, most in peak.items():
        if most is None:
            results.note(f"{place} memory", "left out: not counted here")
            continue
        added = most - before[place]
        facts = {"bound (target + largest weight) GB": bound / 1e9, "ratio": added / bound}
        results.add(f"{place} memory added at the peak", [added / 1e9], "GB", **facts)


def fuse_once(sources):
    """Returns the seconds of a fusion, its weights on the device, and their shapes."""
    start = time.perf_counter()
    fused = sources[0].fuse(*sources[1:])
    _wait(fused)
    return time.perf_counter() - start, [tuple(weight.shape) for weight in fused.weights]


def write_once(shapes):
    """Returns the seconds that writing float32 arrays of these shapes takes on the device."""
    start = time.perf_counter()
    jax.block_until_ready([jnp.full(shape, 1.0, jnp.float32) for shape in shapes])
    return time.perf_counter() - start


def _host(field):
    """A field of this process's memory; None where the system does not have it."""
    with contextlib.suppress(OSError, StopIteration):
        return fusion.memory(field)


def _wait(*models):
    jax.block_until_ready([weight.value for model in models for weight in model.weights])
