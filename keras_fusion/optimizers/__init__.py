"""Optimizers that the paper's recipe needs and Keras does not bring."""

from keras_fusion.optimizers.adafactor import Adafactor

__all__ = ["Adafactor"]
