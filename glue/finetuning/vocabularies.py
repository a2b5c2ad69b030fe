"""The vocabulary that a checkpoint was pretrained with: found beside it, or named and compared.

A pretraining run W keeps what its tokens were made with in W/data/*/, and W/run.json has the hash.
A fused model that `trainers.fuse` wrote into W is found the same way. Tokens that were prepared
elsewhere, and checkpoints that were copied out of their run, need `--vocabulary`; no path that
stands in a checkpoint is opened.
"""

import pathlib

from absl import logging

from trainers.checkpoints import Checkpoint
from trainers.data import manifest
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError
from trainers.files import read_json
from trainers.runs.workdir import RUN_FILE

# A checkpoint lies in W/STAGE/checkpoints/step_…
_DEPTH = 3
# T5's; a folder of tokens says how many it has.
_SENTINELS = 100


def find(checkpoint: Checkpoint, rows: int, given: str | None = None) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Args:
        checkpoint: of the pretrained model.
        rows: of its embedding.
        given: a SentencePiece model, or a folder that `trainers.prepare` wrote; None looks for
            that of the checkpoint's run.

    Raises:
        UserError: there is none, or it is not the one that the model was pretrained with; the
            message names the file and both values.
    """
    run = _run_of(checkpoint)
    wanted = _wanted(run) if run else None
    if given:
        path, vocabulary = _open(pathlib.Path(given), rows)
    elif run:
        path, vocabulary = _search(run, wanted, rows)
    else:
        raise UserError(
            "Expected --vocabulary for a checkpoint outside the folder of its run. Received: "
            f"checkpoint={str(checkpoint.path)!r} without a {RUN_FILE} above it. Add "
            "--vocabulary=FILE or =FOLDER (of trainers.prepare)."
        )
    _check(vocabulary, path, checkpoint, rows, wanted)
    return vocabulary


def _run_of(checkpoint: Checkpoint) -> pathlib.Path | None:
    """The folder of the pretraining run that a checkpoint lies in."""
    parents = list(checkpoint.path.resolve().parents)[:_DEPTH]
    return next((path for path in parents if (path / RUN_FILE).is_file()), None)


def _wanted(run: pathlib.Path) -> str | None:
    """How the hash of the run's vocabulary begins."""
    found = read_json(run / RUN_FILE).get("settings", {}).get(manifest.VOCABULARY)
    return found if isinstance(found, str) and found else None


def _open(path: pathlib.Path, rows: int) -> tuple[pathlib.Path, Vocabulary]:
    """Opens a file, or that of a folder of tokens, which knows how many sentinels it has."""
    if path.is_dir():
        facts = manifest.read(path)["vocabulary"]
        path = path / manifest.VOCABULARY
        return path, Vocabulary.from_file(path, facts["sentinels"])
    pieces = Vocabulary.from_file(path, 0).num_pieces
    # Only what is a sentinel and what padding hangs on their number; no label has either.
    return path, Vocabulary.from_file(path, max(0, min(_SENTINELS, rows - pieces)))


def _search(run: pathlib.Path, wanted: str | None, rows: int) -> tuple[pathlib.Path, Vocabulary]:
    folders = [path.parent for path in sorted(run.glob(f"data/*/{manifest.MANIFEST}"))]
    for folder in folders:
        path, vocabulary = _open(folder, rows)
        if wanted and vocabulary.sha256.startswith(wanted):
            return path, vocabulary
    raise UserError(
        f"Expected the vocabulary {wanted} of the pretraining run in its data folder. Received: "
        f"folder={str(run / 'data')!r}, which does not have it. Add --vocabulary=FOLDER (what its "
        "--data_dir was)."
    )


def _check(
    vocabulary: Vocabulary,
    path: pathlib.Path,
    checkpoint: Checkpoint,
    rows: int,
    wanted: str | None,
):
    if wanted and not vocabulary.sha256.startswith(wanted):
        raise UserError(
            f"Expected the vocabulary that the model was pretrained with ({wanted}). Received: "
            f"vocabulary={str(path)!r} ({vocabulary.sha256[: len(wanted)]}), another one than "
            f"that of checkpoint={str(checkpoint.path)!r}. Leave out --vocabulary."
        )
    if vocabulary.padded_size != rows:
        raise UserError(
            f"Expected a vocabulary of {rows} ids, as checkpoint={str(checkpoint.path)!r} has. "
            f"Received: vocabulary={str(path)!r} of {vocabulary.padded_size}. Give the one that "
            "the model was pretrained with."
        )
    if not wanted:
        logging.warning(
            "%s is no part of a pretraining run: that %s is its vocabulary was not checked",
            checkpoint.path,
            path,
        )
