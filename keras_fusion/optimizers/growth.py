"""Optimizer state of a fused network, grown from its sources' by the map of the weights.

Self-fusion of n equal copies (Lemmas 1 and 2). Every representation is `(y, …, y)`, and the head,
divided by n, sends back `(δ/n, …, δ/n)`. A weight with an output axis that grows sees input y and
output gradient δ/n in all of its blocks, diagonal or not, so each block's gradient is g/n with g
the source's. A weight with none (the head) sees y and the undivided δ: each block's gradient is g,
though its value is w/n. A weight whose blocks a model multiplies by a further factor f (the final
norm of a T5 whose head is tied) has f times the value, hence 1/f of the gradient. With
`s = divisor / (n f)`, where `divisor` is that of AVG (n at the head, else 1), all cases read

    m → s m,    v → s² v    in every block.

Adafactor's r and c are the means of v over one axis. They are computed from the grown v, which for
equal copies makes them s² r and s² c, concatenated, and their estimate r c / mean(r) makes the
same s² v: the mean of r scales as r does, so no further constant appears. Where only the fused
weight is large enough to be factored, the same means start from the source's full v.

Different sources. Block (i, j) pairs source i's inputs with source j's output gradients. On the
diagonal the rule stays, exact as far as the mean of the outputs has the gradient of each. Off it,
inputs and gradients of networks trained apart have signs that are not aligned, so m is zero; and
E[(y_i δ_j)²] = E[y_i²] E[δ_j²] if they are independent, so v is the product of the marginals of
v_i over the input axis and of v_j over the output axis. How a v splits its size between y and δ
cannot be known; half each, in logarithms, gives

    v_ij = s_i s_j · mean_out(v_i) · mean_in(v_j) / sqrt(mean(v_i) mean(v_j)),

the geometric mean of the two sizes, and for i = j Adafactor's own estimate of v_i. A weight without
a growing axis (an output bias) takes the mean.

`blocks` says which blocks have the grown state, the others begin at zero: "all"; "diagonal", as in
Staged Training (arXiv:2203.06211); "first", the block of the first copy alone, which breaks the
symmetry of equal copies (arXiv:2602.02472).

The state belongs to a step count: keep it (`write_state(…, iterations=…)`). At step 0 Adafactor's
beta2 is 0, which forgets everything grown, and Adam's bias correction would take ten times m. To
restart the learning rate all the same, give the schedule the offset `-iterations`.
"""

import functools
import itertools

import keras
import numpy as np

from keras_fusion._keras import adam_slots
from keras_fusion.errors import FusionError
from keras_fusion.optimizers.adafactor import Adafactor, factored_axes, slot_shapes

_SHARED = "shared"

# Whether a block has the grown state, from the sources along its growing dimensions.
BLOCKS = {
    "all": lambda sources: True,
    "diagonal": lambda sources: len(set(sources)) == 1,
    "first": lambda sources: set(sources) == {0},
}


def read_state(optimizer, variables):
    """Returns an optimizer's slots as arrays: `{name: {"r", "c"}, {"v"} or {"m", "v"}}`.

    Args:
        optimizer: a built `Adafactor`, `keras.optimizers.Adam` or `AdamW`.
        variables: `{name: variable}`, named by paths inside the model, as in
            `keras_fusion.layers.tree.weight_axes(model)`.

    Raises:
        FusionError: if the optimizer is of another class.
    """
    return {
        name: {key: keras.ops.convert_to_numpy(slot) for key, slot in slots.items()}
        for name, slots in _slots(optimizer, variables).items()
    }


def write_state(optimizer, variables, state, iterations):
    """Sets an optimizer's slots and its step count.

    Args:
        optimizer: built on the fused model's variables.
        variables: `{name: variable}`.
        state: what `grow_state` returned.
        iterations: int, the step count that the sources' state had reached.

    Raises:
        FusionError: if names, slots or shapes differ; nothing is written then.
    """
    slots = _slots(optimizer, variables)
    expected = {(n, k): tuple(s.shape) for n, keyed in slots.items() for k, s in keyed.items()}
    received = {(n, k): a.shape for n, keyed in state.items() for k, a in keyed.items()}
    _raise_if(
        f"{name} {key}: expected shape {expected.get((name, key))}, "
        f"Received: {received.get((name, key))}"
        for name, key in sorted(expected.keys() | received.keys())
        if expected.get((name, key)) != received.get((name, key))
    )
    for name, key in expected:
        slots[name][key].assign(state[name][key])
    optimizer.iterations.assign(iterations)


def grow_state(axes, grow, source_states, factors=None, min_dim_size_to_factor=128, blocks="all"):
    """Returns the fused model's optimizer state, by the rule of the module's docstring.

    Args:
        axes: `{name: Axes}` of all weights, `keras_fusion.layers.tree.weight_axes(model)`.
        grow: names of the axes that grow.
        source_states: list of what `read_state` returned, one per source, n ≥ 2; for a self-fusion
            the same state n times.
        factors: optional `{name: one factor per source}`, the model's `weight_factors(sources)`:
            what blocks were multiplied by besides AVG's 1/n.
        min_dim_size_to_factor: int, that of the fused model's `Adafactor`.
        blocks: one of `BLOCKS`, the blocks that have the grown state; that of others is zero.

    Raises:
        FusionError: fewer than two sources, or weights or slots that not all sources have.

    Examples:

    >>> state = read_state(optimizer, variables)
    >>> grown = grow_state(weight_axes(model), {"hidden", "heads", "mlp"}, [state, state])
    >>> write_state(big_optimizer, big_variables, grown, iterations=1000)
    """
    lazy = lazy_state(axes, grow, source_states, factors, min_dim_size_to_factor, blocks)
    return {
        name: {key: np.asarray(slot) for key, slot in slots.items()} for name, slots in lazy.items()
    }


class LazySlot:
    """A slot of a fused weight, computed when it is read: an array with shape and slicing."""

    def __init__(self, shape, compute):
        self.shape = shape
        self._compute = compute

    def __getitem__(self, index):
        return self._compute()[index]

    def __array__(self, dtype=None, copy=None):
        return np.array(self._compute(), dtype, copy=copy)


def lazy_state(axes, grow, source_states, factors=None, min_dim_size_to_factor=128, blocks="all"):
    """Returns what `grow_state` returns, computed as it is read, weight by weight.

    The slots of one weight are kept until those of another one are read.

    Args:
        source_states: may have memory-mapped arrays, or what `numpy.asarray` makes arrays of; they
            are read when the fused slots are.
        axes, grow, factors, min_dim_size_to_factor, blocks: as for `grow_state`.

    Raises:
        FusionError: as `grow_state` does, before anything is read.

    Examples:

    >>> slot = lazy_state(weight_axes(model), {"hidden"}, [state, state])["head/kernel"]["v"]
    >>> slot.shape, slot[:2]
    """
    if len(source_states) < 2:
        raise FusionError(
            f"growing optimizer state takes at least two sources. Received: {len(source_states)}"
        )
    differing = [sorted(state.keys() ^ axes.keys()) for state in source_states]
    _raise_if(
        f"source {index} has other weights than `axes` names: {names}"
        for index, names in enumerate(differing)
        if names
    )
    num_sources = len(source_states)
    sources = {id(state): state for state in source_states}
    factors = factors or {}

    @functools.lru_cache(maxsize=1)
    def grown(name):
        # A source that stands several times is read once.
        slots = {key: _arrays(state[name]) for key, state in sources.items()}
        share = axes[name].divisor(grow, num_sources) / num_sources
        scales = [share / factor for factor in factors.get(name, [1.0] * num_sources)]
        slots = [slots[id(state)] for state in source_states]
        return grow_slots(axes[name], grow, slots, scales, min_dim_size_to_factor, blocks)

    def lazy(name):
        slots = [state[name] for state in source_states]
        _check_slots(name, slots)
        shapes = _slot_shapes(axes[name], grow, slots, min_dim_size_to_factor)
        return {
            key: LazySlot(shape, lambda key=key: grown(name)[key]) for key, shape in shapes.items()
        }

    return {name: lazy(name) for name in axes}


def _arrays(slots):
    return {key: np.asarray(slot) for key, slot in slots.items()}


def _slot_shapes(axes, grow, slots, min_dim):
    """Shapes of what `grow_slots` returns."""
    shapes = [
        np.broadcast_shapes(*(tuple(slot.shape) for slot in keyed.values())) for keyed in slots
    ]
    shape = tuple(layout.size for layout in axes.layouts(grow, shapes))
    return dict.fromkeys("mv", shape) if "m" in slots[0] else slot_shapes(shape, min_dim)


def _check_slots(name, slots):
    if len({"m" in keyed for keyed in slots}) > 1:
        raise FusionError(
            f"{name}: the sources' optimizers must be of one class. "
            f"Received: slots={[sorted(keyed) for keyed in slots]}"
        )


def grow_slots(axes, grow, slots, scales, min_dim=128, blocks="all"):
    """Slots of one weight of the fused model.

    Args:
        axes: The weight's `Axes`.
        grow: Names of the axes that grow, or `{name: Layout}`.
        slots: Slots of each source, as in `read_state`.
        scales: For each source, the factor s of the module's text.
        min_dim: `min_dim_size_to_factor` of the fused model's `Adafactor`.
        blocks: One of `BLOCKS`.
    """
    is_grown = BLOCKS[blocks]
    squares = [s**2 * _full_second_moment(keyed) for s, keyed in zip(scales, slots, strict=True)]
    second = _grow_array(squares, axes, grow, _product_of_marginals, is_grown)
    if "m" in slots[0]:
        means = [s * keyed["m"] for s, keyed in zip(scales, slots, strict=True)]
        return {"m": _grow_array(means, axes, grow, _zeros, is_grown), "v": second}
    factored = factored_axes(second.shape, min_dim)
    if factored is None:
        return {"v": second}
    row, column = factored
    return {"r": _mean(second, (column,)), "c": _mean(second, (row,))}


def _grow_array(arrays, axes, grow, off_diagonal, is_grown):
    """Fills every block: with the array of its sources if they agree, else `off_diagonal`.

    What all sources have in common takes the mean, a block that is not grown zeros.
    """
    layouts = axes.layouts(grow, [array.shape for array in arrays])
    dims = [dim for dim, layout in enumerate(layouts) if layout.grows]
    keys = [[*range(len(arrays)), *([_SHARED] if any(layouts[dim].shared) else [])] for dim in dims]
    fused = np.empty([layout.size for layout in layouts], arrays[0].dtype)
    for choice in itertools.product(*keys):
        of_dim = dict(zip(dims, choice, strict=True))
        block = _index(layouts, of_dim, None)
        source_of_dim = {dim: source for dim, source in of_dim.items() if source != _SHARED}
        if not source_of_dim:
            parts = [array[_index(layouts, of_dim, i)] for i, array in enumerate(arrays)]
            fused[block] = np.mean(parts, axis=0, dtype=np.float64)
            continue
        if not is_grown(source_of_dim.values()):
            fused[block] = 0
            continue
        # A source's part: along every dimension that grew its own entries, or the shared ones.
        parts = [
            arrays[source][_index(layouts, of_dim, source, source)]
            for source in source_of_dim.values()
        ]
        if all(_same(parts[0], part) for part in parts[1:]):
            fused[block] = parts[0]
        else:
            fused[block] = off_diagonal(parts, tuple(source_of_dim))
    return fused


def _index(layouts, of_dim, source, instead=None):
    """Index of a block in the fused array, or of a source's part of it in that source's array.

    Args:
        layouts: `Layout` of each dimension.
        of_dim: `{dimension: source, or that the shared entries are meant}`.
        source: The source whose array is indexed; None for the fused array.
        instead: The source that every dimension is read from; None for those of `of_dim`.
    """
    lists = []
    for dim, layout in enumerate(layouts):
        key = of_dim.get(dim, _SHARED)
        number = key if key != _SHARED else 0
        if source is not None:
            number = source if instead is None else instead
        target, origin = layout.entries(number, shared=key == _SHARED)
        lists.append(target if source is None else origin)
    return np.ix_(*lists)


def _same(a, b):
    return a is b or np.array_equal(a, b)


def _zeros(chosen, dims):
    return np.zeros((), chosen[0].dtype)


def _product_of_marginals(chosen, dims):
    """Π over growing axes of the chosen source's marginal, less the sizes counted too often."""
    product, size = 1.0, 1.0
    for array, dim in zip(chosen, dims, strict=True):
        product = product * _mean(array, tuple(d for d in dims if d != dim), np.float64)
        size = size * _mean(array, dims, np.float64) ** ((len(dims) - 1) / len(dims))
    # A source that has seen no gradient yet has size 0, and so has all its product.
    return product / np.where(size > 0, size, 1.0)


def _mean(array, dims, dtype=np.float32):
    return np.mean(array, axis=dims, keepdims=True, dtype=np.float64).astype(dtype)


def _full_second_moment(slots):
    if "v" in slots:
        return slots["v"]
    r, c = slots["r"], slots["c"]
    row, _ = factored_axes(np.broadcast_shapes(r.shape, c.shape), min_dim_size_to_factor=1)
    return r / np.mean(r, axis=row, keepdims=True) * c


def _slots(optimizer, variables):
    if isinstance(optimizer, Adafactor):
        return {name: optimizer.slots_of(variable) for name, variable in variables.items()}
    if isinstance(optimizer, keras.optimizers.Adam):
        return {
            name: dict(zip("mv", adam_slots(optimizer, variable), strict=True))
            for name, variable in variables.items()
        }
    raise FusionError(
        "only the state of Adafactor, Adam and AdamW can grow. "
        f"Received: optimizer={type(optimizer).__name__}; start a new one on the fused model"
    )


def _raise_if(problems):
    problems = list(problems)
    if problems:
        raise FusionError("; ".join(problems))
