"""Measurements on one accelerator: training steps, a fusion, a short experiment.

`python -m benchmarks.gpu` is the program; `benchmarks.gpu.collect` prepares what a machine without
a network needs for it.
"""
