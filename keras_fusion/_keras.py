"""The private names of Keras that this project uses, each in one function with a test.

Keras has no public way to these. pyproject.toml bounds the version of Keras, and a test for each
function (tests/keras_fusion/keras_private_test.py) says when a new version needs another way.
"""

import contextlib
import contextvars

import keras
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional


def children(layer):
    """Layers directly inside a layer, in the order in which they were assigned."""
    return layer._flatten_layers(include_self=False, recursive=False)


def layers_in(layer):
    """A layer and all layers inside it, at any depth."""
    return layer._flatten_layers()


def seed_generators(layer):
    """Seed generators that a layer holds itself, not through a sublayer."""
    return layer._seed_generators


def own_variables(layer):
    """Variables that a layer holds itself, not through a sublayer; the trainable ones first."""
    return layer._trainable_variables + layer._non_trainable_variables


def value_of(variable):
    """Tensor of a variable; None where the variable is deferred and holds none yet."""
    return variable._value


def initializer_of(variable):
    """Initializer of a variable that holds no value yet; None afterwards."""
    return variable._initializer


def initialize(variable, initializer=None):
    """Gives a deferred variable its value.

    Args:
        variable: a variable that was created inside `deferred`.
        initializer: takes the place of the variable's own.
    """
    if initializer is not None:
        variable._initializer = initializer
    variable._deferred_initialize()


def set_value(variable, value):
    """Makes an array the value of a variable, which forgets its initializer; copies nothing.

    Args:
        variable: a variable, deferred or not.
        value: a tensor of the backend; None takes the variable's memory away.
    """
    variable._value, variable._initializer = value, None


def set_sharding(variable, sharding):
    """Makes JAX put whatever is assigned to a variable where a sharding says."""
    variable._layout = sharding


@contextlib.contextmanager
def deferred():
    """While it is open, variables are created without memory for values, and stay so.

    Examples:
        >>> with deferred():
        ...     layer = keras.layers.Embedding(10**9, 10**6)
        ...     layer.build()
        >>> layer.embeddings.shape
        (1000000000, 1000000)
    """
    with keras.StatelessScope(initialize_variables=False):
        # Keras would give them their values when any later scope closes.
        waiting = global_state.get_global_attribute(
            "uninitialized_variables", [], set_to_default=True
        )
        before = len(waiting)
        try:
            yield
        finally:
            del waiting[before:]


_KEEPS_INITIALIZERS = contextvars.ContextVar("keras_fusion_keeps_initializers", default=False)


@contextlib.contextmanager
def kept_initializers():
    """While it is open, variables keep their initializers and have no values; in this thread.

    Unlike `deferred` it lets optimizers be created and weights be assigned. A variable that is read
    before it has a value gives that of its initializer. The first use replaces a method of
    `keras.Variable`.
    """
    if not hasattr(keras.Variable._initialize_with_initializer, "replaced"):
        _replace_initialization()
    token = _KEEPS_INITIALIZERS.set(True)
    try:
        yield
    finally:
        _KEEPS_INITIALIZERS.reset(token)


def _replace_initialization():
    replaced = keras.Variable._initialize_with_initializer

    def initialize_or_keep(self, initializer):
        if _KEEPS_INITIALIZERS.get():
            # As in a variable that is created in a `keras.StatelessScope`.
            self._value, self._initializer = None, initializer
        else:
            replaced(self, initializer)

    initialize_or_keep.replaced = replaced
    keras.Variable._initialize_with_initializer = initialize_or_keep


def is_functional(model):
    """Returns whether a model is sequential or functional and its `call` runs its graph."""
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call
    return isinstance(model, Functional) and type(model).call is Functional.call


def class_to_make(model):
    """Class that makes a model of a graph like this one.

    It is the user's own, with a training step of its own for example, where that is constructed as
    Keras' class is.
    """
    plain = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    return type(model) if type(model).__init__ is plain.__init__ else plain


def nodes(model):
    """Nodes of a functional or sequential model in the order in which they are computed.

    A node has `operation`, `arguments` (with `args` and `kwargs`), `outputs` and `is_input`.
    """
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return [
        node
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
    ]


def operation_of(tensor):
    """Operation that made a symbolic tensor; of an input, its `InputLayer`."""
    return tensor._keras_history.operation


def operations_of(tensors):
    """Operations that symbolic tensors were made by, those that come last first."""
    operations, visited, pending = {}, set(), list(tensors)
    while pending:
        node = node_of(pending.pop(0))
        if id(node) not in visited:
            visited.add(id(node))
            operations[id(node.operation)] = node.operation
            pending += node.arguments.keras_tensors
    return list(operations.values())


def node_of(tensor):
    """Node that made a symbolic tensor."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def mask_of(tensor):
    """Mask that a tensor carries, of which a symbolic one has a symbolic one; None without one."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor, mask):
    """Makes a symbolic tensor carry a mask, which the layers that are called on it then know of."""
    tensor._keras_mask = mask


def structures(model):
    """Structures (lists, dictionaries) of a functional model's inputs and outputs."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return functional._inputs_struct, functional._outputs_struct


def compile_arguments(model):
    """Arguments that `compile` was called with, as the user gave them; None without one."""
    config = getattr(model, "_compile_config", None)
    return None if config is None else dict(config.config)


def optimizer_config(optimizer):
    """Configuration of an optimizer, with a learning rate schedule as the object that it is.

    A schedule of the user's may have no configuration.
    """
    schedule = optimizer._learning_rate
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return optimizer.get_config()
    try:
        optimizer._learning_rate = keras.optimizers.schedules.CosineDecay(0.1, 1)
        return optimizer.get_config() | {"learning_rate": schedule}
    finally:
        optimizer._learning_rate = schedule


def adam_slots(optimizer, variable):
    """First and second moment that Adam or AdamW keeps of a variable."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def sum_no_gradients(optimizer):
    """Makes an optimizer apply gradients that are summed over TensorFlow's replicas already.

    By itself it sums them inside `apply`: too late to clip the sum, and a second all-reduce of
    every gradient where the step has made one.
    """
    # Read first: a method that is there no more must not be replaced unnoticed.
    _ = optimizer._all_reduce_sum_gradients
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
