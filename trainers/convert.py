"""Converts a T5 between this project's checkpoints, KerasHub's presets and folders of transformers.

    python -m trainers.convert --source=W/self_fusion --output=DIR --format=huggingface
    python -m trainers.convert --source=T5_FOLDER --output=DIR --format=keras_fusion

The source is the folder of a stage or checkpoint, a preset of KerasHub, or one of transformers;
the output is a new folder. Weights are rearranged, not changed: logits are the same. A vocabulary
in the folder of transformers is copied beside a checkpoint as vocabulary.model, the name that
fine-tuning takes: `python -m glue.finetune --checkpoint=DIR --vocabulary=DIR/vocabulary.model`.
"""

from trainers import programs, stopping
from trainers.engines import hosts
from trainers.pretraining.converted import ConvertConfig, convert


@stopping.handled()
def main(config: ConvertConfig) -> None:
    """Converts."""
    hosts.check_alone("trainers.convert")
    convert(config)


if __name__ == "__main__":
    programs.run(main, ConvertConfig)
