"""Costs of a training step on a mesh that is not at hand."""
