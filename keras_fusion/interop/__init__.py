"""Models of other libraries, in folders: read, fused, written. docs/folders.md shows how."""

from keras_fusion.interop.folders import Folder, is_folder, read_folder
from keras_fusion.interop.fusing import Plan, plan_fusion
from keras_fusion.interop.presets import PresetFusion, is_preset, plan_presets

__all__ = [
    "Folder",
    "Plan",
    "PresetFusion",
    "is_folder",
    "is_preset",
    "plan_presets",
    "plan_fusion",
    "read_folder",
]
