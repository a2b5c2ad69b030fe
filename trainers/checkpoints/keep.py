"""Choice of the checkpoints of a run that stay."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping

from trainers.checkpoints.format import read_manifest, step_folders
from trainers.errors import UserError
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class Keep:
    """Choice of the checkpoints of a run that stay; checks itself.

    Example:
        >>> Keep(newest=2, every=300).of({100: 3.0, 200: 1.0, 300: None, 400: 2.0, 500: 2.0})
        {200, 300, 400, 500}
    """

    newest: int = option(2, at_least=1)  # how many of the newest
    best: bool = True  # the one with the lowest score; of equal ones the newest
    every: int | None = option(None, at_least=1)  # multiples of so many steps, 0 included

    def __post_init__(self):
        check_options(self)

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
    scores = {}
    for step, path in step_folders(folder):
        with contextlib.suppress(UserError, OSError):
            manifest = read_manifest(path)
            sizes = {name: os.lstat(path / name).st_size for name in manifest.files}
            if sizes == {name: digest.bytes for name, digest in manifest.files.items()}:
                scores[step] = manifest.score
    return scores
