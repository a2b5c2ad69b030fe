"""Which checkpoints of a run stay."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping

from trainers.checkpoints.format import read_manifest, step_folders
from trainers.errors import UserError


@dataclasses.dataclass(frozen=True)
class Keep:
    """Which checkpoints of a run stay.

    Args:
        newest: how many of the newest, at least 1.
        best: whether the one with the lowest score stays; of equal ones the newest.
        every: steps that are multiples of it stay; None for none.

    Raises:
        UserError: a number that is not a positive integer.

    Example:
        >>> Keep(newest=2, every=300).of({100: 3.0, 200: 1.0, 300: None, 400: 2.0, 500: 2.0})
        {200, 300, 400, 500}
    """

    newest: int = 2
    best: bool = True
    every: int | None = None

    def __post_init__(self):
        for name, value in (
            ("newest", self.newest),
            ("every", 1 if self.every is None else self.every),
        ):
            if type(value) is not int or value < 1:
                raise UserError(
                    f"Expected a positive number of checkpoints to keep. Received: {name}={value!r}"
                    ". Give at least 1."
                )

    def of(self, scores: Mapping[int, float | None]) -> set[int]:
        """Returns the steps that stay.

        Args:
            scores: step → score of every good checkpoint, None where it has none.
        """
        stay = set(sorted(scores)[-self.newest :])
        scored = [(score, -step) for step, score in scores.items() if score is not None]
        if self.best and scored:
            stay.add(-min(scored)[1])
        if self.every:
            stay |= {step for step in scores if step % self.every == 0}
        return stay


def good_scores(folder: pathlib.Path) -> dict[int, float | None]:
    """Returns step → score of the good checkpoints of a folder; hashes no tensor.

    A damaged one does not count, and so is never taken for one of the newest.
    """
    found = {}
    for step, path in step_folders(folder):
        with contextlib.suppress(UserError, OSError):
            manifest = read_manifest(path)
            sizes = {name: os.lstat(path / name).st_size for name in manifest.files}
            if sizes == {name: digest.bytes for name, digest in manifest.files.items()}:
                found[step] = manifest.score
    return found
