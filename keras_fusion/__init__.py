"""Fuse trained networks into a bigger one that computes exactly their average, and train on."""

from keras_fusion import callbacks as callbacks
from keras_fusion import families as families
from keras_fusion import layers as layers
from keras_fusion import models as models
from keras_fusion import optimizers as optimizers
from keras_fusion import schedules as schedules
from keras_fusion import theory as theory
from keras_fusion.axes import Axes as Axes
from keras_fusion.axes import Joined as Joined
from keras_fusion.errors import FusionError as FusionError
from keras_fusion.errors import SymmetryWarning as SymmetryWarning
from keras_fusion.fusion import fuse as fuse
from keras_fusion.fusion import grow as grow
from keras_fusion.fusion import self_fuse as self_fuse
from keras_fusion.layers.declarations import Declaration as Declaration
from keras_fusion.layers.declarations import register_fusion as register_fusion
from keras_fusion.layers.tree import weight_axes as weight_axes
from keras_fusion.measures import FusionGap as FusionGap
from keras_fusion.measures import eta_share as eta_share
from keras_fusion.measures import fusion_gap as fusion_gap
from keras_fusion.measures import symmetry as symmetry
from keras_fusion.reports import FusionReport as FusionReport
from keras_fusion.reports import report as report
