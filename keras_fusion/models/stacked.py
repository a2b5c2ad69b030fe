"""Stacks a T5 in depth: its blocks, all of them, several times on top of one another."""

import dataclasses
import re

# The number of a block in the path of a weight: "encoder/block_0/self_attention/query/kernel".
_BLOCK = re.compile(r"/block_(\d+)/")


def stacked_weights(config, weights, copies):
    """Returns the weights of a T5 whose stacks hold the blocks of another one several times.

    The blocks 0 to L - 1 of the encoder, and of the decoder, are followed by copies of the same
    in the same order (G_stack of arXiv:2405.15319). Embedding, position biases, final norms and
    head are taken over. The function changes.

    Args:
        config: The source's `T5Config`.
        weights: `{path: array-like}` of the source, such as `Checkpoint.weights`.
        copies: How many times, at least 2.

    Returns:
        The stacked `T5Config`, and `{path: array-like}` for `T5.from_weights`; nothing is copied.

    Raises:
        ValueError: Fewer than two copies.

    Examples:
        >>> config, weights = stacked_weights(small.config, weights_of_small, 4)
        >>> deep = T5.from_weights(config, weights)
    """
    if type(copies) is not int or copies < 2:
        raise ValueError(f"copies must be an integer of at least 2. Received: copies={copies!r}")
    stacked = {}
    for path, array in weights.items():
        block = _BLOCK.search(path)
        if not block:
            stacked[path] = array
            continue
        for copy in range(copies):
            number = copy * config.num_layers + int(block[1])
            stacked[f"{path[: block.start()]}/block_{number}/{path[block.end() :]}"] = array
    return dataclasses.replace(config, num_layers=copies * config.num_layers), stacked
