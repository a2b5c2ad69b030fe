"""Pretraining tasks: the inputs and targets that tokens become (Raffel et al. 2020, section 3.3).

A task is a pure function of the tokens and of a generator, and all examples of raw length L have
the same lengths, so that batches are rectangular without padding.

    span_corruption   spans become sentinels; the targets are the spans (trainers.data.spans)
    prefix_lm         the first half is the input, the second half and EOS are the targets
"""

import dataclasses

import numpy as np

from trainers.data import spans
from trainers.data.tokens import EOS_ID
from trainers.errors import UserError
from trainers.programs import check_options, option

SPAN_CORRUPTION, PREFIX_LM = "span_corruption", "prefix_lm"


@dataclasses.dataclass(frozen=True)
class Objective:
    """Pretraining task and its settings; checks itself. `objective` None is span corruption.

    Raises:
        UserError: a value without meaning, or settings of spans for a task without spans.

    Example:
        >>> task = Objective("prefix_lm")
        >>> task.lengths(task.raw_length(64))
        (64, 65)
    """

    objective: str | None = option(
        None,
        "Task: spans to fill in, or the second half of a text after the first; without it that of "
        "--size, or span_corruption where a program has no sizes.",
        choices=(SPAN_CORRUPTION, PREFIX_LM),
        group="Task",
    )
    noise_density: float = option(
        spans.DEFAULT[0], "span_corruption: share of the tokens to fill in.", above=0, below=1
    )
    mean_span_length: float = option(
        spans.DEFAULT[1], "span_corruption: mean tokens of a span.", at_least=1
    )

    def __post_init__(self):
        check_options(self)
        if self.objective == PREFIX_LM and self._shares != spans.DEFAULT:
            raise UserError(
                f"noise_density and mean_span_length with --objective={SPAN_CORRUPTION}",
                f"objective={self.objective!r}",
                "Give that objective, or leave them out",
            )

    @property
    def _shares(self) -> tuple[float, float]:
        return self.noise_density, self.mean_span_length

    def raw_length(self, inputs: int) -> int:
        """Returns the largest number of raw tokens whose inputs fit `inputs` tokens."""
        if self.objective == PREFIX_LM:
            return 2 * inputs
        return spans.raw_length(inputs, self._shares)

    def lengths(self, length: int) -> tuple[int, int]:
        """Returns the input and target tokens that `length` raw tokens become."""
        if self.objective == PREFIX_LM:
            return length // 2, length - length // 2 + 1
        return spans.input_length(length, self._shares), spans.target_length(length, self._shares)

    def sentinels(self, length: int) -> int:
        """Returns how many sentinels an example of `length` raw tokens needs."""
        return 0 if self.objective == PREFIX_LM else spans.span_counts(length, self._shares)[1]

    def pairs(
        self,
        tokens: np.ndarray,
        rng: np.random.Generator,
        first_sentinel: int,
        rows_of: tuple[slice, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the int32 inputs and targets of a batch.

        Args:
            tokens: integer array (batch, L).
            rng: the source of randomness; prefix LM takes nothing from it.
            first_sentinel: id of the first sentinel; the next ones are the ids below.
            rows_of: which rows of a batch of how many the tokens are; None for all of it.
        """
        if self.objective == PREFIX_LM:
            inputs, rest = np.split(tokens.astype(np.int32), [tokens.shape[1] // 2], axis=1)
            eos = np.full((len(tokens), 1), EOS_ID, np.int32)
            return inputs, np.concatenate([rest, eos], axis=1)
        return spans.corrupt_batch(tokens, rng, first_sentinel, self._shares, rows_of)
