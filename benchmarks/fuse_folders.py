"""Fuses two folders of transformers, against copying their bytes.

    python -m benchmarks.fuse_folders [--gigabytes=3] [--rounds=3]

Makes two Llamas of random weights in bfloat16, in a folder that is removed at the end. The bounds
are the times of copying their files once, to the disk, and of writing as many bytes as the result
has: up to twice as many, of which half are the zeros between the blocks. At 3 GB the files take
40 GB, and a round some minutes.

Aims: at most 2 × the time of copying the sources' bytes; resident memory, without the pages of the
mapped files, that grows by at most three times the largest tensor.
"""

import json
import os
import pathlib
import shutil
import tempfile
import threading
import time

import ml_dtypes
import numpy as np
from absl import flags

from benchmarks import _programs
from benchmarks._rounds import line, ratios
from keras_fusion import interop
from keras_fusion.interop import tensors
from keras_fusion.interop.writing import nbytes

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "head_dim": 128,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 7168,
    "rms_norm_eps": 1e-5,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


class RandomArray:
    """A bfloat16 array whose rows are those of one random block, over and over."""

    dtype = np.dtype(ml_dtypes.bfloat16)

    def __init__(self, shape, rng):
        self.shape = shape
        self._block = rng.normal(size=(1 << 20,)).astype(ml_dtypes.bfloat16)

    def __getitem__(self, region):
        shape = [part.stop - part.start for part in region]
        return np.resize(self._block, shape)


def write_source(folder, num_bytes, seed, config=CONFIG):
    """Writes a Llama of about that many bytes; returns the folder."""
    hidden, mlp, size = (config[f] for f in ("hidden_size", "intermediate_size", "head_dim"))
    heads, keys = (config[f] * size for f in ("num_attention_heads", "num_key_value_heads"))
    layer = {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes = {name: (config["vocab_size"], hidden) for name in ("model.embed_tokens", "lm_head")}
    shapes["model.norm"] = (hidden,)
    outside, inside = (
        2 * sum(int(np.prod(shape)) for shape in part.values()) for part in (shapes, layer)
    )
    layers = max(1, round((num_bytes - outside) / inside))
    for number in range(layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    arrays = {f"{name}.weight": RandomArray(shape, rng) for name, shape in shapes.items()}
    tensors.write(folder / "model.safetensors", arrays, {"format": "pt"})
    return folder


def copy(source, target):
    """Copies a folder, to the disk."""
    shutil.copytree(source, target)
    for path in target.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def write_zeros(path, num_bytes):
    """Writes a file of zeros, to the disk."""
    piece = bytes(1 << 23)
    with open(path, "wb") as file:
        for start in range(0, num_bytes, len(piece)):
            file.write(piece[: num_bytes - start])
        file.flush()
        os.fsync(file.fileno())


def seconds(call, *arguments):
    """Seconds that a call takes."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def anonymous_memory():
    """Bytes of the process that are resident and of no file."""
    with open("/proc/self/status", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["RssAnon"].split()[0]) * 1024


class PeakMemory:
    """Context that measures by how much a process' anonymous memory grows at most.

    Attributes:
        bytes: The growth.
    """

    def __enter__(self):
        self._before, self._peak, self._ended = anonymous_memory(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._ended.wait(0.02):
            self._peak = max(self._peak, anonymous_memory())

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()
        self.bytes = max(self._peak, anonymous_memory()) - self._before


def measure(folder, sources):
    """Seconds of copying, of writing the result's bytes and of fusing; memory; the `Plan`."""
    plan = interop.plan_fusion(sources, norm="rule")
    copies = {source: folder / f"copy_of_{source.name}" for source in sources}
    copied = sum(seconds(copy, source, target) for source, target in copies.items())
    for target in copies.values():
        shutil.rmtree(target)
    written = seconds(write_zeros, folder / "zeros", plan.nbytes)
    (folder / "zeros").unlink()
    with PeakMemory() as memory:
        fused = seconds(plan.write, folder / "fused")
    shutil.rmtree(folder / "fused")
    return copied, written, fused, memory.bytes, plan


def main():
    with tempfile.TemporaryDirectory(dir=flags.FLAGS.folder) as name:
        folder = pathlib.Path(name)
        size = flags.FLAGS.gigabytes * 1e9
        sources = [write_source(folder / name, size, seed) for seed, name in enumerate("ab")]
        rows = [measure(folder, sources) for _ in range(flags.FLAGS.rounds)]
    copied, written, fused, memory, _ = zip(*rows, strict=True)
    plan = rows[0][-1]
    largest = max(map(nbytes, plan.arrays.values()))
    read = sum(nbytes(array) for source in plan.sources for array in source.arrays.values())
    print(f"sources {read / 1e9:.2f} GB, result {plan.nbytes / 1e9:.2f} GB")
    print(line("copy, s", copied))
    print(line("plain write, s", written))
    print(line("fusion, s", fused))
    print(line("over the copy", ratios(fused, copied)), "  aim: at most 2")
    print(line("over the write", ratios(fused, written)))
    print(
        f"memory {max(memory) / 1e6:.0f} MB, {max(memory) / largest:.2f} of the largest tensor "
        f"({largest / 1e6:.0f} MB; aim: at most 3)"
    )


if __name__ == "__main__":
    flags.DEFINE_float("gigabytes", 3.0, "Size of each source.", lower_bound=0.3)
    flags.DEFINE_integer("rounds", 3, "Measurements.", lower_bound=1)
    flags.DEFINE_string("folder", None, "Where the files are made; None for the system's.")
    flags.register_validator(
        "folder", lambda name: name is None or os.path.isdir(name), "it has to be a folder"
    )
    _programs.run(main)
