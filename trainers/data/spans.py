"""Span corruption, the pretraining task of T5 (Raffel et al. 2020, section 3.1.4).

By default n = round(0.15 L) of L tokens are noise, in s = round(n / 3) spans. Each span leaves one
sentinel in the inputs; the targets are sentinel, span, sentinel, span, … Both end with EOS. The
first sentinel is the highest id of the vocabulary, and they count down:

    tokens   Thank you for inviting me to your party last week
    inputs   Thank you <0> me to your party <1> week EOS
    targets  <0> for inviting <1> last EOS

Everything here is numpy and a pure function of the generator that it is given. A whole batch of
equally long examples is corrupted at once: every example then has the same n and s, so that the
results are rectangular and need no padding.
"""

import bisect

import numpy as np

from trainers.data.tokens import EOS_ID
from trainers.errors import UserError

# Share of the tokens that are noise, and mean tokens of a span: (density, length).
DEFAULT = (0.15, 3.0)
# Raw tokens beyond the inputs: no text has so many.
_MOST = 1 << 40


def span_counts(length: int, shares: tuple[float, float] = DEFAULT) -> tuple[int, int]:
    """Returns (n, s): the number of noise tokens among `length` raw tokens, and of their spans.

    Args:
        length: raw tokens.
        shares: share of noise, and mean tokens of a span.

    At least 2: one token has to stay, and one has to go.

    Example:
        >>> span_counts(568)
        (85, 28)
    """
    if length < 2:
        raise ValueError(f"Expected at least 2 raw tokens. Received: length={length}.")
    density, mean_length = shares
    noise = min(max(round(length * density), 1), length - 1)
    # As many kept runs as spans lie between them.
    spans = min(max(round(noise / mean_length), 1), noise, length - noise)
    return noise, spans


def input_length(length: int, shares: tuple[float, float] = DEFAULT) -> int:
    """Returns the number L - n + s + 1 of encoder tokens that L raw tokens become, with EOS."""
    noise, spans = span_counts(length, shares)
    return length - noise + spans + 1


def target_length(length: int, shares: tuple[float, float] = DEFAULT) -> int:
    """Returns the number n + s + 1 of target tokens that L raw tokens become, with EOS."""
    noise, spans = span_counts(length, shares)
    return noise + spans + 1


def raw_length(inputs: int, shares: tuple[float, float] = DEFAULT) -> int:
    """Returns the largest number of raw tokens whose corrupted inputs fit `inputs` tokens.

    Example:
        >>> raw_length(512), target_length(raw_length(512))
        (568, 114)
    """
    if inputs < 3:
        tokens = "at least 3 tokens, for one of the text, one sentinel and EOS"
        raise UserError(tokens, f"input_length={inputs}", "Take longer inputs")
    # More tokens never have shorter inputs; at a share of noise near 1 they may stay as short.
    first = max(inputs - 1, 2)
    lengths = range(first, first + _MOST)
    return lengths[bisect.bisect(lengths, inputs, key=lambda n: input_length(n, shares)) - 1]


def random_segmentation(
    items: int, segments: int, rows: int, rng: np.random.Generator, wanted: slice = slice(None)
):
    """Cuts `items` things into `segments` non-empty runs, each way of doing so equally likely.

    Returns an int64 array (rows, segments) of lengths; each row is a cut and adds up to `items`.
    Of `rows` rows those that are `wanted` are returned, the same as if all were.
    """
    if segments == 1:
        return np.full((rows, 1), items, np.int64)[wanted]
    # The gaps with the smallest random numbers are cut: a uniform choice without replacement.
    gaps = rng.random((rows, items - 1))[wanted]
    chosen = np.argpartition(gaps, segments - 2, axis=1)[:, : segments - 1]
    return np.diff(np.sort(chosen + 1, axis=1), axis=1, prepend=0, append=items)


def corrupt_batch(
    tokens: np.ndarray,
    rng: np.random.Generator,
    first_sentinel: int,
    shares: tuple[float, float] = DEFAULT,
    rows_of: tuple[slice, int] | None = None,
):
    """Corrupts every row of `tokens`.

    Args:
        tokens: integer array (batch, L), L >= 2.
        rng: the source of randomness; the same state gives the same spans.
        first_sentinel: id of the first sentinel; the next ones are the ids below.
        shares: share of noise, and mean tokens of a span.
        rows_of: which rows of a batch of how many the tokens are; None for all of it.

    Returns:
        (inputs, targets): int32 arrays (batch, L - n + s + 1) and (batch, n + s + 1).
    """
    batch, length = tokens.shape
    noise, spans = span_counts(length, shares)
    wanted, whole = rows_of or (slice(None), batch)
    kept_runs = random_segmentation(length - noise, spans, whole, rng, wanted)
    noise_runs = random_segmentation(noise, spans, whole, rng, wanted)
    # Runs alternate and the first one is kept, so that a sentinel never opens the inputs.
    noise_starts = np.cumsum(kept_runs, axis=1)
    noise_starts[:, 1:] += np.cumsum(noise_runs, axis=1)[:, :-1]
    noise_ends = noise_starts + noise_runs
    sentinels = np.arange(first_sentinel, first_sentinel - spans, -1, dtype=np.int32)

    rows = np.arange(batch)[:, None]
    steps = np.zeros((batch, length + 1), np.int8)
    steps[rows, noise_starts] = 1
    steps[rows, noise_ends] = -1
    is_noise = np.cumsum(steps[:, :length], axis=1, dtype=np.int8).astype(bool)

    eos = np.full((batch, 1), EOS_ID, np.int32)
    # Inputs: the kept tokens and the first token of every noise span, which becomes the sentinel.
    visible = ~is_noise
    visible[rows, noise_starts] = True
    marked = tokens.astype(np.int32)
    hidden = marked[is_noise].reshape(batch, noise)
    marked[rows, noise_starts] = sentinels
    inputs = np.concatenate([marked[visible].reshape(batch, -1), eos], axis=1)
    # Targets: span k begins after the noise of the spans before it and k + 1 sentinels.
    targets = np.empty((batch, noise + spans + 1), np.int32)
    places = np.cumsum(noise_runs, axis=1) - noise_runs + np.arange(spans)
    is_sentinel = np.zeros(targets.shape, bool)
    is_sentinel[rows, places] = True
    is_sentinel[:, -1] = True
    targets[~is_sentinel] = hidden.ravel()
    targets[rows, places] = sentinels
    targets[:, -1] = EOS_ID
    return inputs, targets
