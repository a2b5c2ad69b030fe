"""Fusing the graphs of functional and sequential Keras models of any layers."""
