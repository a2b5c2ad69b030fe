"""The accelerator: its name, its peak, its memory."""

import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of the makers' data sheets, by a part of the device's name.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "TPU v4": 275e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
}


def name():
    """Returns the device's name, such as "NVIDIA H100 80GB HBM3"."""
    return jax.devices()[0].device_kind


def data_sheet_peak(device):
    """Returns the FLOP/s of `PEAKS` for a device's name; None for one that is not there."""
    matches = [part for part in PEAKS if part in device]
    return PEAKS[max(matches, key=len)] if matches else None


def matmul_flops(size, rounds=5, products=10):
    """Returns the FLOP/s of bfloat16 products of random square matrices, round by round."""
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()

    def once():
        start = time.perf_counter()
        for _ in range(products):
            result = product(a, b)
        result.block_until_ready()
        return products * 2 * size**3 / (time.perf_counter() - start)

    return [once() for _ in range(rounds)]


def bytes_in_use(peak=False):
    """Returns the bytes that arrays hold on the device, or held at most; None on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use" if peak else "bytes_in_use")
