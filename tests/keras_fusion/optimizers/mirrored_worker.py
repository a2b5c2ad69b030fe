"""Runs Adafactor under MirroredStrategy and saves the variables: a process of its own, because the
number of logical CPUs is fixed when TensorFlow starts.

    python -m tests.keras_fusion.optimizers.mirrored_worker REPLICAS INPUT.npz OUTPUT.npz
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from keras_fusion.optimizers import Adafactor
from keras_fusion.schedules import InverseSquareRoot


def run(replicas, initial, grads):
    """Returns the variables after one step per row of `grads`, all in one `tf.function`."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    with strategy.scope():
        variables = [keras.Variable(value) for value in initial]
        optimizer = Adafactor(InverseSquareRoot(2))
        optimizer.build(variables)

    def step(index):
        # Each replica holds an unequal share of the gradient; Keras adds the shares up.
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        share = (replica + 1.0) / (replicas * (replicas + 1) / 2)
        optimizer.apply([share * tf.constant(gradient)[index] for gradient in grads], variables)

    @tf.function
    def steps(number):
        for index in tf.range(number):
            strategy.run(step, args=(index,))

    steps(tf.constant(len(grads[0])))
    if optimizer.iterations.numpy() != len(grads[0]):
        raise AssertionError(f"counted {optimizer.iterations.numpy()} steps")
    slots = [slot for v in variables for slot in optimizer.slots_of(v).values()]
    copies = strategy.experimental_local_results
    for variable in [*variables, *slots]:
        first, *others = copies(variable.value)
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy())
    return [copies(variable.value)[0].numpy() for variable in variables]


if __name__ == "__main__":
    count = int(sys.argv[1])
    with np.load(sys.argv[2]) as data:
        values = [data[f"value_{i}"] for i in range(len(data) // 2)]
        shares = [data[f"gradient_{i}"] for i in range(len(data) // 2)]
    np.savez(sys.argv[3], *run(count, values, shares))
