"""The benchmark of folders runs, at a size of seconds."""

from benchmarks import fuse_folders
from keras_fusion.interop.writing import nbytes

SMALL = fuse_folders.CONFIG | {
    "hidden_size": 64,
    "head_dim": 16,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 50,
}


def test_folders_of_a_size_are_fused_in_little_memory(tmp_path):
    sources = [
        fuse_folders.write_source(tmp_path / name, 500_000, seed, SMALL)
        for seed, name in enumerate("ab")
    ]
    size = (sources[0] / "model.safetensors").stat().st_size
    assert 400_000 < size < 600_000
    copied, written, fused, memory, plan = fuse_folders.measure(tmp_path, sources)
    assert copied > 0 and written > 0 and fused > 0 and 0 <= memory < 200e6
    assert plan.nbytes > 3 * size
    assert sum(nbytes(array) for array in plan.sources[0].arrays.values()) < size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
