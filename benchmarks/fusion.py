"""Time and memory of a fusion, compared with writing the fused weights' bytes once.

    python -m benchmarks.fusion [--size=t5_m] [--rounds=3]

Fuses two T5s of `size` (by default two T5-M into a T5-L of 1.14 G parameters; needs 11 GB and
about a minute). The bound on time is numpy writing as many bytes into fresh memory in the same
process, in turn with the fusions; the fusion should take at most twice that. The bound on memory
is sources + target + the largest weight, from the kernel's count of resident pages (Linux).
"""

import gc
import time

import numpy as np
from absl import flags

import keras_fusion as kf
from benchmarks import _programs
from benchmarks._rounds import line, ratios


def memory(field):
    """Returns a field of /proc/self/status in bytes: VmRSS is resident now, VmHWM its peak."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak():
    """Sets the peak of resident memory to what is resident now."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def write_once(shapes):
    """Returns the seconds that numpy takes to write arrays of these shapes into fresh memory."""
    start = time.perf_counter()
    arrays = [np.full(shape, 1.0, np.float32) for shape in shapes]
    seconds = time.perf_counter() - start
    del arrays
    return seconds


def fuse_once(sources):
    """Returns a fusion's seconds, the bytes added at its peak, their bound, the weights' shapes."""
    gc.collect()
    reset_peak()
    before = memory("VmRSS")
    start = time.perf_counter()
    fused = sources[0].fuse(*sources[1:])
    seconds = time.perf_counter() - start
    added = memory("VmHWM") - before
    sizes = [4 * int(np.prod(weight.shape)) for weight in fused.weights]
    return seconds, added, sum(sizes) + max(sizes), [tuple(w.shape) for w in fused.weights]


def main():
    config = kf.models.T5Config.from_size(SIZE.value)
    sources = [kf.models.T5(config, seed=seed) for seed in range(2)]
    fusions, writes = [], []
    for _ in range(ROUNDS.value):
        *measured, shapes = fuse_once(sources)
        fusions.append(measured)
        writes.append(write_once(shapes))
    parameters = sum(int(np.prod(shape)) for shape in shapes)
    print(f"2 x {SIZE.value} -> {parameters / 1e6:.0f} M parameters")
    seconds = [fusion[0] for fusion in fusions]
    print(line("fusion", seconds, "s", decimals=3))
    print(line("numpy write", writes, "s", decimals=3))
    print(line("ratio", ratios(seconds, writes), decimals=3))
    added, bound = max(fusion[1] for fusion in fusions), fusions[0][2]
    print(
        f"{'memory added':16} {added / 2**30:.3f} GiB, bound (target + largest weight) "
        f"{bound / 2**30:.3f} GiB, ratio {added / bound:.3f}"
    )


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "t5_m", sorted(kf.models.config.SIZES), "Size of a source.")
    ROUNDS = flags.DEFINE_integer("rounds", 3, "Fusions and writes, in turn.", lower_bound=1)
    _programs.run(main)
