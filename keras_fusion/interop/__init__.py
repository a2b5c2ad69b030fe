"""Models of other libraries, in folders: read, fused, written."""

from keras_fusion.interop.folders import is_folder as is_folder
from keras_fusion.interop.folders import read_folder as read_folder
from keras_fusion.interop.fusing import Plan as Plan
from keras_fusion.interop.fusing import plan_fusion as plan_fusion
