"""Models of other libraries, in folders: read, fused, written. docs/folders.md shows how."""

from keras_fusion.interop.folders import Folder, is_folder, read_folder
from keras_fusion.interop.fusing import Plan, plan_fusion
from keras_fusion.interop.presets import fuse_presets, is_preset

__all__ = [
    "Folder",
    "Plan",
    "fuse_presets",
    "is_folder",
    "is_preset",
    "plan_fusion",
    "read_folder",
]
