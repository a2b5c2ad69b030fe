"""Fuses trained models into one, without training it.

    python -m trainers.fuse --sources=W/small_0,W/small_1 --output=W/fused --norm=property

Each source is the folder of a stage (its newest good checkpoint is taken) or of one checkpoint;
one that is named twice is fused with itself. The output is a new folder with the checkpoint of
step 0, which can be a source again. With `--check_data_dir` it also says by how much the loss on a
validation batch moved from that of the sources' mean logits: nothing for `--norm=property`
without noise; something for `--norm=rule` with different sources. No model is built unless it has
to say that: the output is computed weight by weight from the sources' files, in the memory of one.
"""

from trainers import programs, stopping
from trainers.pretraining.fused_model import FuseConfig, fuse


@stopping.handled()
def main(config: FuseConfig) -> None:
    """Fuses."""
    fuse(config)


if __name__ == "__main__":
    programs.run(main, FuseConfig)
