"""Host memory of a fusion on a mesh, above what the devices hold in the end.

    python -m benchmarks.mesh_fusion [--size=t5_m] [--devices=4] [--layout=RULES]

Writes two sources of random numbers as memory-mapped files, tensor by tensor, then fuses them onto
virtual devices of the CPU in a process of its own, through the engine, as a fused stage begins. The
bound is one shard of the largest part of a weight that a device holds, plus the slice that it is
copied from. Measured is the kernel's count of anonymous pages (Linux, sampled every
millisecond) less those before and less the bytes that devices hold at the time. Pages of the files
do not count, since the system reclaims them. At the default size two T5-M become a T5-L of 1.14 G
parameters: 3 GB on the disk, 6 GB of memory, two minutes.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from absl import flags

from benchmarks import _programs

SOURCES = 2
# A shard and the slice that it is copied from.
COPIES = 2


class RandomArray:
    """Random numbers that exist only while they are written."""

    def __init__(self, shape, seed):
        self.shape, self.dtype = tuple(shape), np.dtype(np.float32)
        self.nbytes = 4 * int(np.prod(shape))
        self._seed = seed

    def __array__(self, dtype=None, copy=None):
        return np.random.default_rng(self._seed).standard_normal(self.shape, np.float32)


class Memory:
    """Peak of this process's memory, less what it was and what devices hold by now."""

    def __init__(self):
        self.held = self.peak = 0
        self._before = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def now(self):
        return anonymous_bytes() - self._before - self.held

    def look(self):
        self.peak = max(self.peak, self.now())

    def _sample(self):
        while not self._done.wait(1e-3):
            self.look()


class Watched:
    """An array whose slices count as held by devices once the next one is asked for."""

    def __init__(self, array, memory):
        self.array, self._memory = array, memory
        self.shape, self.dtype = array.shape, array.dtype
        self.largest = 0
        self.pending = 0
        self.copies = 1

    def __getitem__(self, index):
        self.settle()
        part = self.array[index]
        self.largest = max(self.largest, part.nbytes)
        self._memory.look()
        self.pending = part.nbytes * self.copies
        return part

    def settle(self):
        """Counts the last slice: it is on its devices."""
        self._memory.held += self.pending
        self.pending = 0


def anonymous_bytes():
    """Returns this process's resident memory that belongs to no file."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def write_sources(folder, size):
    """Writes the sources' weights, and returns their bytes."""
    import keras_fusion as kf
    from trainers.checkpoints import tensors
    from trainers.engines.state import state_variables

    skeleton = kf.models.T5.skeleton(kf.models.T5Config.from_size(size))
    shapes = {
        name.removeprefix("model/"): tuple(variable.shape)
        for name, variable in state_variables(skeleton).items()
        if name.startswith("model/")
    }
    total = SOURCES * sum(4 * int(np.prod(shape)) for shape in shapes.values())
    free = shutil.disk_usage(folder).free
    if free < 2 * total:
        raise SystemExit(
            f"Expected {2 * total / 2**30:.1f} GiB free in {folder}. Received: {free / 2**30:.1f}. "
            "Set TMPDIR to a larger disk, or take a smaller --size."
        )
    for seed in range(SOURCES):
        tensors.write(
            folder / f"{seed}.safetensors",
            {
                name: RandomArray(shape, (seed, number))
                for number, (name, shape) in enumerate(shapes.items())
            },
        )
    return total


def fuse_on_mesh(folder, size, devices, layout):
    """Fuses the files onto a mesh, and returns its time and memory."""
    import keras
    from jax.sharding import NamedSharding, PartitionSpec

    import keras_fusion as kf
    from trainers.checkpoints import tensors
    from trainers.engines.jax import JaxEngine
    from trainers.engines.jax_variables import place

    config = kf.models.T5Config.from_size(size)
    files = [tensors.read(folder / f"{seed}.safetensors") for seed in range(SOURCES)]
    fused, weights = kf.models.fused_weights([config] * SOURCES, files)
    engine = JaxEngine(f"model:{devices}", layout)
    with engine.scope():
        model = kf.models.T5.from_weights(fused, weights, seed=0)
        optimizer = keras.optimizers.SGD(0.1)
    engine.compile(model, optimizer)
    single = NamedSharding(engine.mesh, PartitionSpec())
    # The runtime allocates memory of its own with its first array.
    place(np.zeros((64, 64), np.float32), np.float32, single)
    arrays, parts = [], {}
    start = time.perf_counter()
    with Memory() as memory:
        for path, weight in weights.items():
            sharding = engine.shardings[f"model/{path}"]
            array = Watched(weight, memory)
            shard = int(np.prod(sharding.shard_shape(weight.shape), dtype=int))
            array.copies = devices * shard // weight.size
            arrays.append(place(array, weight.dtype, sharding))
            array.settle()
            parts[path] = array.largest
        # The runtime frees the last slice when it is called again.
        place(np.zeros((64, 64), np.float32), np.float32, single)
        left = memory.now()
    seconds = time.perf_counter() - start
    held = sum(shard.data.nbytes for array in arrays for shard in array.addressable_shards)
    assert held == memory.held
    largest = max(parts, key=parts.get)
    return {
        "seconds": seconds,
        "held": held,
        "above": memory.peak,
        "left": left,
        "bound": COPIES * parts[largest],
        "largest": largest,
        "parameters": sum(weight.size for weight in weights.values()),
    }


def in_a_process_of_its_own(folder):
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES.value}",
        # Freed memory goes back to the system at once, so that what is counted is in use.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 17),
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.mesh_fusion", f"--fuse={folder}"),
            *(f"--size={SIZE.value}", f"--devices={DEVICES.value}", f"--layout={LAYOUT.value}"),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if FUSE.value:
        figures = fuse_on_mesh(pathlib.Path(FUSE.value), SIZE.value, DEVICES.value, LAYOUT.value)
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = write_sources(pathlib.Path(folder), SIZE.value)
        figures = in_a_process_of_its_own(folder)
    gib = 2**30
    print(
        f"{SOURCES} x {SIZE.value}, files of {files / gib:.2f} GiB -> "
        f"{figures['parameters'] / 1e6:.0f} M parameters on {DEVICES.value} devices, "
        f"{figures['held'] / gib:.2f} GiB, in {figures['seconds']:.1f} s"
    )
    print(
        f"memory above the devices' at its peak {figures['above'] / 2**20:.1f} MiB, bound (shard "
        f"and slice of {figures['largest']}) {figures['bound'] / 2**20:.1f} MiB, ratio "
        f"{figures['above'] / figures['bound']:.3f}; {figures['left'] / 2**20:.1f} MiB of it "
        "belong to the runtime, and stay"
    )


if __name__ == "__main__":
    SIZE = flags.DEFINE_string("size", "t5_m", "Size of a source.")
    DEVICES = flags.DEFINE_integer("devices", 4, "Virtual devices.", lower_bound=1)
    LAYOUT = flags.DEFINE_string(
        "layout", "batch:batch,heads:model,mlp:model,vocab:model", "Layout rules."
    )
    FUSE = flags.DEFINE_string("fuse", None, "Folder of sources; used by the benchmark itself.")
    _programs.run(main)
