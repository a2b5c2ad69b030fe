"""Fuse trained networks into a bigger one that computes exactly their average, and train on."""

from keras_fusion import layers as layers
from keras_fusion import models as models
from keras_fusion import optimizers as optimizers
from keras_fusion import schedules as schedules
from keras_fusion import theory as theory
from keras_fusion.errors import FusionError as FusionError
from keras_fusion.errors import SymmetryWarning as SymmetryWarning
from keras_fusion.fusion import fuse as fuse
from keras_fusion.layers.tree import weight_axes as weight_axes
from keras_fusion.measures import FusionGap as FusionGap
from keras_fusion.measures import fusion_gap as fusion_gap
from keras_fusion.measures import symmetry as symmetry
