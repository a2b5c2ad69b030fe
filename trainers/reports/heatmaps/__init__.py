"""Heat maps of fused kernels over time, and how η grows.

To read a model's axes takes Keras, and seconds to import it.
"""

from trainers.reports.heatmaps.heat_maps import heat_maps

__all__ = ["heat_maps"]
