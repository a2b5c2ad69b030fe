"""Fuse trained networks into a bigger one that computes exactly their average, and train on."""

from keras_fusion import callbacks, families, layers, models, optimizers, schedules, theory
from keras_fusion.axes import Axes, Joined
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.fusion import fuse, grow, self_fuse
from keras_fusion.layers.declarations import Declaration, register_fusion
from keras_fusion.layers.tree import weight_axes
from keras_fusion.measures import FusionGap, eta_share, fusion_gap, symmetry
from keras_fusion.reports import FusionReport, report

__version__ = "0.2.0"

__all__ = [
    "Axes",
    "callbacks",
    "Declaration",
    "eta_share",
    "families",
    "fuse",
    "fusion_gap",
    "FusionError",
    "FusionGap",
    "FusionReport",
    "grow",
    "Joined",
    "layers",
    "models",
    "optimizers",
    "register_fusion",
    "report",
    "schedules",
    "self_fuse",
    "symmetry",
    "SymmetryWarning",
    "theory",
    "weight_axes",
]
