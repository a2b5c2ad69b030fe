"""The optimizers that a stage can train with, by name."""

import keras

from keras_fusion.optimizers import Adafactor


def _adafactor(schedule):
    return Adafactor(schedule)


def _adamw(schedule):
    return keras.optimizers.AdamW(schedule, weight_decay=0.0)


def _muon(schedule):
    # Embedding, head and position biases, as all that is no matrix, take AdamW's step.
    return keras.optimizers.Muon(
        schedule,
        weight_decay=None,
        adam_weight_decay=None,
        exclude_layers=["(^|/)head/", "position_bias"],
    )


OPTIMIZERS = {"adafactor": _adafactor, "adamw": _adamw, "muon": _muon}
