"""Eager steps for tests: faster than tracing what runs a few times."""

import contextlib

import keras


@contextlib.contextmanager
def eager(eagerly: bool = True):
    """TensorFlow runs one operation after the other; other backends go as they do."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eagerly)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
