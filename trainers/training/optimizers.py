"""The optimizers that a stage can train with, by name."""

import keras

from keras_fusion.optimizers import Adafactor


def _adafactor(schedule):
    return Adafactor(schedule)


def _adamw(schedule):
    return keras.optimizers.AdamW(schedule, weight_decay=0.0)


OPTIMIZERS = {"adafactor": _adafactor, "adamw": _adamw}
