"""Errors and warnings that the library raises."""


class FusionError(ValueError):
    """Networks that cannot be fused. The message names every reason, with the values."""


class SymmetryWarning(UserWarning):
    """Fused copies that would stay equal for ever: the network grew, its capacity did not."""
