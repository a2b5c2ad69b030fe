"""Fuses trained models into one, without training it.

    python -m trainers.fuse --sources=W/small_0,W/small_1 --output=W/fused --norm=property
    python -m trainers.fuse --sources=LLAMA_A,LLAMA_B --output=DIR --norm=rule
    python -m trainers.fuse --sources=GPT2 --output=DIR --grow=mlp:2

Each source is the folder of a stage (its newest good checkpoint is taken) or of one checkpoint,
a folder of transformers (config.json, model.safetensors or shards), or a preset of KerasHub. One
that is named twice is fused with itself. The output is a new folder of the same kind, which can be
a source again: of checkpoints one with the checkpoint of step 0, of transformers one that it loads
as its stock class, with a model card.

With `--check_data_dir` it also says by how much the loss of checkpoints on a validation batch moved
from that of the sources' mean logits: nothing for `--norm=property` without noise; something for
`--norm=rule` with different sources. `--verify` compares the logits of a result for transformers
with the mean of its sources'. No model is built unless it has to say that: the output is computed
weight by weight from the sources' files, in the memory of one. `--dry_run` computes nothing. One
process on one host does it, also where sources and result are for many hosts: each of them reads
what its devices need.
"""

from trainers import programs, stopping
from trainers.engines import hosts
from trainers.pretraining.fused_model import FuseConfig, fuse


@stopping.handled()
def main(config: FuseConfig) -> None:
    """Fuses."""
    hosts.check_alone("trainers.fuse")
    fuse(config)


if __name__ == "__main__":
    programs.run(main, FuseConfig)
